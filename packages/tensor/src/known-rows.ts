import type { Engine } from "./engine.ts"
import { Tensor } from "./tensor.ts"

/** Rows up to which backends may multiply with other kernels than for more, whose sums have other roundings. Above, a row's results are the same bits whatever else is in a pass. */
export const FEW_ROWS = 32

/** Rows at which a pass over prompts that are kept is large enough: each pass is kept until all of its prompts have been trained on. */
export const KEPT_ROWS = 256

/** What a linear layer has made: its result [rows, out], and the inner product of its adapter [rows, rank] where it has one. */
interface Made {
  readonly y: Tensor
  readonly t: Tensor | undefined
}

/** What the linear layers of a model have made of the rows of one pass, by their weights: a later pass over these rows with the same weights takes it instead of multiplying again. */
export class KnownRows implements Disposable {
  /** Rows of the pass. */
  readonly rows: number
  // A weight that two layers share has no entry that says whose it is.
  readonly #made = new Map<Tensor, Made | undefined>()
  #owners = 1

  constructor(rows: number) {
    this.rows = rows
  }

  /** Bytes of what is kept. */
  get bytes(): number {
    let n = 0
    for (const made of this.#made.values()) n += (made?.y.storage.bytes ?? 0) + (made?.t?.storage.bytes ?? 0)
    return n
  }

  /** Keeps what the layer with the weight `w` has made. */
  put(w: Tensor, y: Tensor, t: Tensor | undefined): void {
    if (this.#made.has(w)) {
      this.forget(w)
      this.#made.set(w, undefined)
      return
    }
    const own = (x: Tensor): Tensor => new Tensor(x.engine, x.storage.retain(), x.shape, x.dtype)
    this.#made.set(w, { y: own(y), t: t === undefined ? undefined : own(t) })
  }

  /** What the layer with the weight `w` has made. */
  get(w: Tensor): Made | undefined {
    return this.#made.get(w)
  }

  /** Frees what the layer with the weight `w` has made. */
  forget(w: Tensor): void {
    const made = this.#made.get(w)
    this.#made.delete(w)
    made?.y.dispose()
    made?.t?.dispose()
  }

  /** One more who disposes it. */
  share(): this {
    this.#owners++
    return this
  }

  /** Frees everything when the last owner lets go. */
  [Symbol.dispose](): void {
    if (--this.#owners > 0) return
    for (const w of this.#made.keys()) this.forget(w)
  }
}

/** Rows `first` .. `first + count` of a pass, which are the rows from `from` on of an earlier one. */
export interface KnownSpan {
  readonly known: KnownRows
  readonly from: number
  readonly first: number
  readonly count: number
  /** True where no later pass takes anything of `known`: every layer's share is freed as soon as it is taken. */
  readonly last: boolean
}

/** Consecutive rows of a pass. */
interface RowRange {
  readonly first: number
  readonly count: number
}

/** What linear layers do with the rows of a pass: leave their results for a later one, or take some rows from an earlier one. */
export type RowMemo =
  | { readonly mode: "record"; readonly rows: number; readonly into: KnownRows }
  | {
      readonly mode: "take"
      readonly rows: number
      readonly spans: readonly KnownSpan[]
      readonly rest: readonly RowRange[]
    }

/** A memo that keeps a pass of `rows` rows; undefined for a pass of so few that its bits may not be those of another. */
export const recordRows = (rows: number): { readonly memo: RowMemo; readonly known: KnownRows } | undefined => {
  if (rows <= FEW_ROWS) return undefined
  const known = new KnownRows(rows)
  return { memo: { mode: "record", rows, into: known }, known }
}

/**
 * A memo that takes `spans`, in order of rows; undefined where there is nothing to take. A gap of so few rows that their bits would change gets some of its neighbour's, which are then computed
 * again with the bits of many rows.
 */
export const takeRows = (rows: number, spans: readonly KnownSpan[]): RowMemo | undefined => {
  const lacking = (gap: number): number => (gap > 0 && gap <= FEW_ROWS ? FEW_ROWS + 1 - gap : 0)
  const taken = spans.map((span, i): KnownSpan => {
    const before = i === 0 ? lacking(span.first) : 0
    const behind = lacking((spans[i + 1]?.first ?? rows) - span.first - span.count)
    return { ...span, first: span.first + before, from: span.from + before, count: span.count - before - behind }
  })
  if (taken.length === 0 || taken.some(({ count }) => count <= 0)) return undefined
  const rest: RowRange[] = []
  let at = 0
  for (const { first, count } of [...taken, { first: rows, count: 0 }]) {
    if (first > at) rest.push({ first: at, count: first - at })
    at = first + count
  }
  return { mode: "take", rows, spans: taken, rest }
}

/** Runs `body` with a memo of rows. */
export const withRows = <R>(engine: Engine, memo: RowMemo | undefined, body: () => R): R => {
  const before = engine.rows
  engine.rows = memo
  try {
    return body()
  } finally {
    engine.rows = before
  }
}

/**
 * Puts known rows into `y` [rows, out] and `t` [rows, rank] and says which rows are left to compute; undefined where this layer has to compute all of them.
 */
export const takeInto = (
  memo: Extract<RowMemo, { readonly mode: "take" }>,
  w: Tensor,
  y: Tensor,
  t: Tensor | undefined,
): readonly RowRange[] | undefined => {
  // In the last layer some products are of fewer rows than the pass has.
  if (y.shape[0] !== memo.rows) return undefined
  const made = memo.spans.map(({ known }) => known.get(w))
  const all = made.every((m) => m !== undefined && (t === undefined || m.t !== undefined))
  const { engine } = w
  engine.scope(() => {
    const copy = (to: Tensor, from: Tensor, span: KnownSpan): void => {
      const [target, source] = [to.rows(span.first, span.count), from.rows(span.from, span.count)]
      engine.backend.kernels.copy(target.handle, source.handle, target.size * 4)
    }
    for (const [i, span] of memo.spans.entries()) {
      if (!all) break
      copy(y, made[i]!.y, span)
      if (t !== undefined) copy(t, made[i]!.t!, span)
    }
  })
  for (const { known, last } of memo.spans) if (last) known.forget(w)
  return all ? memo.rest : undefined
}
