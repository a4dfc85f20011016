/**
 * Memory that kernels of the native backend ask for beside their arguments and keep for the next call (`pool_shared`): the slots that are more than a megabyte. Sizes are those of
 * native/hot/gemm.h, loss.h, loss_stream.h and attention.h, for products in f32.
 */
const MB = 2 ** 20
const LOGITS = { rows: 512, bytes: 48 * MB }
const PANELS = { bytes: 4 * MB, columns: 32, stretch: 384 }
const NARROW = 64
const STREAM = { rows: 512, vocab: 384, parts: 16, bytes: 48 * MB }
/** Rows up to which products and losses have kernels of their own. */
const SKINNY = 32

type Slot = "panels" | "logits" | "stream" | "stream rows" | "delta"
type Needs = Readonly<Partial<Record<Slot, number>>>

/** Panels of the right operand of a product over many rows: `n` columns, a contraction of `k`. */
const panels = (n: number, k: number): Needs => {
  if (n <= 0 || k <= 0) return {}
  const stretches = Math.ceil(k / PANELS.stretch)
  const words = stretches === 1 ? k : Math.ceil(Math.ceil(k / stretches) / 32) * 32
  const units = Math.ceil(n / PANELS.columns)
  const most = PANELS.bytes / 4
  const parts = Math.min(units, Math.ceil((units * PANELS.columns * words) / most))
  // Columns that do not split evenly: the narrower part may have room for one stretch more.
  const size = (count: number): number => {
    const wide = count * PANELS.columns
    const groups = Math.ceil(stretches / Math.max(1, Math.floor(most / (wide * words))))
    return wide * Math.ceil(stretches / groups) * words * 4
  }
  return { panels: Math.max(size(Math.floor(units / parts)), size(Math.ceil(units / parts))) }
}

/** What the largest of several products needs. */
const largest = (...all: readonly Needs[]): Needs => ({ panels: Math.max(0, ...all.map((needs) => needs.panels ?? 0)) })

/** Logits of some rows at a time, with the products of the gradients that are wanted. */
const logits = (rows: number, vocab: number, hidden: number, dh: boolean, dw: boolean): Needs => {
  const room = Math.max(1, Math.min(LOGITS.rows, Math.floor(LOGITS.bytes / 4 / Math.max(1, vocab))))
  const block = Math.ceil(rows / Math.max(1, Math.ceil(rows / room)))
  return {
    logits: block * vocab * 4,
    ...largest(
      block > SKINNY ? panels(vocab, hidden) : {},
      dh ? panels(hidden, vocab) : {},
      dw && Math.min(vocab, hidden) > NARROW ? panels(hidden, block) : {},
    ),
  }
}

const stream = (rows: number, vocab: number, hidden: number, gradient: boolean): Needs => {
  const block = Math.ceil(rows / Math.ceil(rows / STREAM.rows))
  const parts = Math.max(
    1,
    Math.min(STREAM.parts, Math.ceil(vocab / STREAM.vocab), Math.floor(STREAM.bytes / 4 / Math.max(1, block * hidden))),
  )
  return { stream: gradient ? parts * block * hidden * 4 : 0, "stream rows": parts * block * 20 + block * 8 }
}

const NEEDS: Readonly<Record<string, (...args: number[]) => Needs>> = {
  matmul: (_c, _a, _b, m, n, k, transA, transB) =>
    transA !== 0 && transB === 0 && Math.min(m!, n!) <= NARROW ? {} : panels(n!, k!),
  linear: (_y, _x, _w, _f, m, n, k, _bias, t, _b, r) => (m! <= SKINNY ? {} : panels(n!, k! + (t === 0 ? 0 : r!))),
  linearBackwardInput: (_dx, _dy, _w, _f, _m, n, k, dt, _a, r) => panels(k!, n! + (dt === 0 ? 0 : r!)),
  linearCrossEntropy: (_nll, dh, dw, _h, _w, _f, _t, _c, rows, vocab, hidden) =>
    dw !== 0 || rows! <= SKINNY
      ? logits(rows!, vocab!, hidden!, dh !== 0, dw !== 0)
      : stream(rows!, vocab!, hidden!, dh !== 0),
  linearLogprobs: (_logp, _lse, _e, dh, _h, _w, _f, _t, rows, vocab, hidden) =>
    rows! <= SKINNY ? logits(rows!, vocab!, hidden!, dh !== 0, false) : stream(rows!, vocab!, hidden!, dh !== 0),
  linearLogprobsBackward: (dh, dw, _d, _l, _de, _e, _h, _w, _f, _t, rows, vocab, hidden) =>
    dw !== 0 || rows! <= SKINNY
      ? logits(rows!, vocab!, hidden!, dh !== 0, dw !== 0)
      : stream(rows!, vocab!, hidden!, true),
  attentionBackward: (...args) => ({ delta: args[15]! * args[16]! * 4 }),
}

/** Bytes of scratch that a sequence of kernel calls leaves behind. */
export class ScratchModel {
  #slots = new Map<Slot, number>()

  call(kernel: string, args: readonly number[]): void {
    const needs = NEEDS[kernel]?.(...args)
    for (const [slot, bytes] of Object.entries(needs ?? {}) as [Slot, number][])
      this.#slots.set(slot, Math.max(bytes, this.#slots.get(slot) ?? 0))
  }

  get bytes(): number {
    let sum = 0
    for (const bytes of this.#slots.values()) sum += bytes
    return sum
  }

  save(): () => void {
    const was = new Map(this.#slots)
    return () => void (this.#slots = new Map(was))
  }
}
