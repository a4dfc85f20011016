import type { Engine, Memo } from "./engine.ts"
import { apply, F32_TOLERANCE, type Op } from "./op.ts"
import { GradSlot } from "./tape.ts"
import type { Tensor } from "./tensor.ts"

/**
 * Rows that row-wise work on long texts runs over at a time: matrix products run at full speed from about a thousand rows, and more only cost memory. Values and gradients of
 * rows are the same bits as without pieces; a gradient of a weight is the sum of those of the pieces, so its additions are grouped otherwise.
 */
export const ROWS_AT_ONCE = 1536

/** Work whose row i of the result depends on row i of x alone, such as norms, projections and activations; `first` is the number of x's first row in the whole. */
export type RowWise = (x: Tensor, first: number) => Tensor

/**
 * Calls `work` for pieces of `atOnce` rows, in order; a rest of less than a quarter of that belongs to the last piece, because backends have other kernels for very few rows, with
 * other roundings.
 */
const inPieces = (rows: number, atOnce: number, work: (first: number, count: number) => void): void => {
  for (let first = 0, count = 0; first < rows; first += count) {
    const left = rows - first
    count = left < atOnce * 1.25 ? left : atOnce
    work(first, count)
  }
}

/** `work(x)` without a tape: what it makes in between never exists for more than `atOnce` rows. x [rows, any], result [rows, cols]. */
export const overRows = (engine: Engine, x: Tensor, work: RowWise, atOnce = ROWS_AT_ONCE): Tensor => {
  const rows = x.shape[0]!
  return engine.noGrad(() => {
    if (rows < atOnce * 1.25) return engine.scope(() => work(x, 0))
    return engine.scope(() => {
      let out = engine.scope(() => work(x.rows(0, atOnce), 0)) // [atOnce, cols]
      const whole = engine.empty([rows, ...out.shape.slice(1)])
      inPieces(rows, atOnce, (first, count) =>
        engine.scope(() => {
          if (first > 0) out = work(x.rows(first, count), first) // [count, cols]
          engine.backend.kernels.copy(whole.rows(first, count).handle, out.handle, out.size * 4)
          out.dispose()
        }),
      )
      return whole
    })
  })
}

/** Gradient of x for that of `work(x)`, both [rows, cols], in the pieces of {@link overRows}; gradients of weights inside gather in their slots. */
const overRowsBackward = (engine: Engine, x: Tensor, d: Tensor, work: RowWise, atOnce: number): Tensor | undefined => {
  const wanted = x.slot !== undefined
  const dx = wanted ? engine.empty(x.shape) : undefined
  inPieces(x.shape[0]!, atOnce, (first, count) =>
    engine.scope(() => {
      const piece = x.rows(first, count)
      const slot = new GradSlot()
      if (wanted) piece.slot = slot
      const { result, tape } = engine.record(() => engine.scope(() => work(piece, first)))
      // Kept until the end of the scope, so that no rule writes into the rows it is a window on.
      const gradient = d.rows(first, count)
      if (result.slot === undefined) return
      tape.backward([{ tensor: result, gradient }])
      if (dx === undefined) return
      engine.backend.kernels.copy(dx.rows(first, count).handle, slot.grad!.handle, piece.size * 4)
      slot.clear()
    }),
  )
  return dx
}

interface CheckpointParams {
  readonly body: (x: Tensor) => Tensor
  readonly tail: RowWise | undefined
  readonly atOnce: number
}

/** Runs `body` with a memo of results that are dear to make; frees those that nobody took. */
const remembering = <R>(engine: Engine, memo: Memo | undefined, body: () => R): R => {
  const before = engine.memo
  engine.memo = memo
  try {
    return body()
  } finally {
    engine.memo = before
  }
}

// The anchor input makes the node recorded even when only weights inside the body train.
const checkpointOp: Op<CheckpointParams> = {
  name: "checkpoint",
  saves: () => [true, false],
  spills: true,
  forward: (engine, { body, tail, atOnce }, [x]) => {
    const made: Tensor[] = []
    // Nothing is remembered for a pass that is not recorded.
    const memo: Memo | undefined =
      engine.tape !== undefined && engine.policy === "spill" ? { mode: "record", values: made } : undefined
    try {
      const output = engine.noGrad(() =>
        engine.scope(() => {
          const y = remembering(engine, memo, () => engine.scope(() => body(x!)))
          return tail === undefined ? y : overRows(engine, y, tail, atOnce)
        }),
      )
      return { outputs: [output], extra: made.map((t) => engine.adopt(t.storage.retain(), t.shape, t.dtype)) }
    } finally {
      for (const t of made) t.dispose()
    }
  },
  backward: ({ engine, params: { body, tail, atOnce }, saved, gradients: [d], sink }) => {
    const slot = new GradSlot()
    // Handed over: what the rules read of it, their tape keeps.
    const take = (i: number): Tensor | undefined => {
      const t = saved(i)
      if (t === undefined) return undefined
      const own = engine.adopt(t.storage.retain(), t.shape, t.dtype)
      t.dispose()
      return own
    }
    const values: Tensor[] = []
    for (let t = take(2); t !== undefined; t = take(2 + values.length)) values.push(t)
    const memo: Memo | undefined = values.length > 0 ? { mode: "replay", values: [...values] } : undefined
    const x = take(0)!
    if (sink.needs(0)) x.slot = slot
    let pieces = false
    // The scope leaves what the rules read to the tape, which frees each value when its rule has run.
    const { result, tape } = engine.record(() =>
      engine.scope(() => {
        const y = remembering(engine, memo, () => body(x))
        pieces = tail !== undefined && y.shape[0]! >= atOnce * 1.25
        return pieces || tail === undefined ? y : tail(y, 0)
      }),
    )
    for (const t of [x, ...values]) t.dispose()
    if (!pieces) tape.backward([{ tensor: result, gradient: d! }])
    else {
      const dy = overRowsBackward(engine, result, d!, tail!, atOnce)
      result.dispose()
      if (dy !== undefined) tape.backward([{ tensor: result, gradient: dy }])
    }
    if (sink.needs(0) && slot.grad !== undefined) sink.give(0, slot.grad)
    slot.clear()
  },
  tolerance: { f32: F32_TOLERANCE },
}

/**
 * Runs `tail(body(x))` without keeping intermediate values; the backward pass runs it again. Exact: the second run repeats the first bit for bit. `tail` may be left out; it
 * runs over `atOnce` rows at a time in both directions, and where there are pieces its second run is part of the backward pass of each.
 * `anchor` is any trainable tensor used inside, needed when x itself carries no gradient. Source: Chen et al. 2016.
 */
export const checkpoint = (
  engine: Engine,
  x: Tensor,
  body: (x: Tensor) => Tensor,
  {
    anchor,
    tail,
    atOnce = ROWS_AT_ONCE,
  }: {
    readonly anchor?: Tensor | undefined
    readonly tail?: RowWise | undefined
    readonly atOnce?: number | undefined
  } = {},
): Tensor =>
  engine.tape === undefined
    ? engine.scope(() => {
        const y = engine.scope(() => body(x))
        return tail === undefined ? y : overRows(engine, y, tail, atOnce)
      })
    : engine.scope(() => apply(engine, checkpointOp, { body, tail, atOnce }, [x, anchor])[0]!)
