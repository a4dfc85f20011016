import { SlothError } from "@sloth/core"
import { handleOf, shapeMismatch, type Tensor } from "../tensor.ts"
import { takeInto } from "../known-rows.ts"
import { apply, F32_TOLERANCE, type Op } from "../op.ts"
import { weightFormat } from "../weight-format.ts"
import type { RandomAddress } from "./elementwise.ts"

type Dropout = RandomAddress & { readonly p: number }

/** The low-rank part of a linear layer: s · (drop(x) · Aᵀ) · Bᵀ with A [rank, in] and B [out, rank], f32. */
export interface LowRank {
  readonly a: Tensor
  readonly b: Tensor
  /** alpha / rank, or alpha / sqrt(rank) for rsLoRA. */
  readonly scale: number
  /** Probability of dropping an input of A, with the address of its random bits. */
  readonly dropout?: Dropout
}

interface LinearParams {
  readonly scale: number
  readonly drop: Dropout | undefined
}

/** out = x with the mask of the rows that it is, f32 [tokens, in]. */
const dropInto = (out: Tensor, x: Tensor, { p, seed, stream, step, first = 0 }: Dropout): void =>
  x.engine.backend.kernels.dropout(out.handle, x.handle, p, x.size, seed, stream, step, first * x.shape.at(-1)!)

// Inputs: x [tokens, in], W [out, in], bias [out]?, A [rank, in]?, B [out, rank]?. Extra: t = s · drop(x) · Aᵀ [tokens, rank].
const linearOp: Op<LinearParams> = {
  name: "linear",
  saves: (_, [x, w, , a, b]) => {
    const trains = x!.requiresGrad || w!.requiresGrad || a?.requiresGrad === true
    return [
      w!.requiresGrad || a?.requiresGrad === true,
      x!.requiresGrad,
      false,
      a !== undefined && trains,
      b !== undefined && trains,
    ]
  },
  forward: (engine, { scale, drop }, [x, w, bias, a, b]) => {
    const kernels = engine.backend.kernels
    const [out, inner] = w!.shape as [number, number]
    const tokens = x!.size / inner
    const rank = a?.shape[0] ?? 0
    const t = a === undefined ? undefined : engine.empty([tokens, rank])
    const lower = (x: Tensor, t: Tensor): void => {
      let dropped = x
      if (drop !== undefined) {
        dropped = engine.empty(x.shape)
        dropInto(dropped, x, drop)
      }
      kernels.matmul(t.handle, dropped.handle, a!.handle, t.shape[0]!, rank, inner, 0, 1, scale, 0) // [tokens, rank]
      if (dropped !== x) dropped.dispose()
    }
    const product = (x: Tensor, t: Tensor | undefined, y: Tensor): void =>
      kernels.linear(
        y.handle,
        x.handle,
        w!.handle,
        weightFormat(w!.dtype).code,
        y.shape[0]!,
        out,
        inner,
        handleOf(bias),
        handleOf(t),
        handleOf(b),
        rank,
        0,
      )
    const memo = engine.rows
    let y: Tensor | undefined
    let rest: ReturnType<typeof takeInto>
    if (memo?.mode === "take" && drop === undefined) {
      y = engine.empty([tokens, out])
      rest = takeInto(memo, w!, y, t)
    }
    if (rest === undefined) {
      if (t !== undefined) lower(x!, t)
      product(x!, t, (y ??= engine.empty([tokens, out])))
    } else
      for (const { first, count } of rest)
        engine.scope(() => {
          const [own, low] = [x!.rows(first, count), t?.rows(first, count)]
          if (low !== undefined) lower(own, low)
          product(own, low, y!.rows(first, count))
        })
    if (memo?.mode === "record" && tokens === memo.rows && drop === undefined) memo.into.put(w!, y!, t)
    return { outputs: [y!], extra: [b?.requiresGrad === true ? t : undefined] }
  },
  backward: ({ engine, params: { scale, drop }, saved, gradients: [dy], sink }) => {
    const kernels = engine.backend.kernels
    const [x, w, , a, b, t] = [saved(0), saved(1), undefined, saved(3), saved(4), saved(5)]
    const [tokens, out] = dy!.shape as [number, number]
    const rank = a?.shape[0] ?? 0
    const trainsA = sink.needs(3)
    if (sink.needs(2)) {
      const bias = sink.target(2, [out])
      kernels.sumRows(bias.tensor.handle, dy!.handle, tokens, out, bias.accumulate)
    }
    let dt: Tensor | undefined
    if (a !== undefined && b !== undefined && (trainsA || sink.needs(0))) {
      dt = engine.empty([tokens, rank])
      kernels.matmul(dt.handle, dy!.handle, b.handle, tokens, rank, out, 0, 0, scale, 0) // s · dy · B: [tokens, rank]
    }
    if (sink.needs(4)) {
      const db = sink.target(4, [out, rank])
      kernels.matmul(db.tensor.handle, dy!.handle, t!.handle, out, rank, tokens, 1, 0, 1, db.accumulate) // dyᵀ · t: [out, rank]
    }
    if (trainsA) {
      let dropped = x!
      const inner = a!.shape[1]!
      if (drop !== undefined) {
        dropped = engine.empty(x!.shape)
        dropInto(dropped, x!, drop)
      }
      const da = sink.target(3, [rank, inner])
      kernels.matmul(da.tensor.handle, dt!.handle, dropped.handle, rank, inner, tokens, 1, 0, 1, da.accumulate) // dtᵀ · x: [rank, in]
      if (dropped !== x) dropped.dispose()
    }
    if (sink.needs(1)) {
      const inner = x!.size / tokens
      const dw = sink.target(1, [out, inner])
      kernels.matmul(dw.tensor.handle, dy!.handle, x!.handle, out, inner, tokens, 1, 0, 1, dw.accumulate) // dyᵀ · x: [out, in]
    }
    if (sink.needs(0)) {
      const inner = w!.shape[1]!
      const dx = sink.target(0, [tokens, inner])
      const code = weightFormat(w!.dtype).code
      if (dt !== undefined && drop !== undefined) {
        // The mask applies to the low-rank path alone, so its product cannot ride along.
        const low = engine.empty([tokens, inner])
        kernels.matmul(low.handle, dt.handle, a!.handle, tokens, inner, rank, 0, 0, 1, 0) // [tokens, in]
        dropInto(low, low, drop)
        kernels.linearBackwardInput(
          dx.tensor.handle,
          dy!.handle,
          w!.handle,
          code,
          tokens,
          out,
          inner,
          0,
          0,
          0,
          dx.accumulate,
        )
        kernels.add(dx.tensor.handle, dx.tensor.handle, low.handle, low.size)
      } else
        kernels.linearBackwardInput(
          dx.tensor.handle,
          dy!.handle,
          w!.handle,
          code,
          tokens,
          out,
          inner,
          handleOf(dt),
          handleOf(a),
          rank,
          dx.accumulate,
        )
    }
  },
  tolerance: { f32: F32_TOLERANCE },
}

/**
 * y = x · Wᵀ + bias + s · (x · Aᵀ) · Bᵀ, the low-rank part and the bias optional. x [tokens, in] f32, W [out, in] in any weight format, y [tokens, out].
 * The gradient of W is only formed when W is trainable (and then f32). Source: LoRA, Hu et al. 2021, equation 3.
 */
export const linear = (x: Tensor, w: Tensor, bias?: Tensor, low?: LowRank): Tensor => {
  const inner = w.shape[1]!
  if (w.shape.length !== 2 || x.shape.at(-1) !== inner)
    throw shapeMismatch("linear", "x [tokens, in] and W [out, in]", x.shape, w.shape)
  if (
    low !== undefined &&
    (low.a.shape[1] !== inner || low.b.shape[0] !== w.shape[0] || low.a.shape[0] !== low.b.shape[1])
  )
    throw shapeMismatch("linear", `A [rank, ${inner}] and B [${w.shape[0]}, rank]`, low.a.shape, low.b.shape)
  const drop = low?.dropout !== undefined && low.dropout.p > 0 ? low.dropout : undefined
  return apply(x.engine, linearOp, { scale: low?.scale ?? 0, drop }, [x, w, bias, low?.a, low?.b])[0]!
}

/** One layer of {@link linearGroup}. */
export interface GroupedLinear {
  /** [out, in] in any weight format. */
  readonly weight: Tensor
  readonly bias: Tensor | undefined
  /** Without dropout. */
  readonly low: LowRank | undefined
}

/**
 * `linear` of up to three layers that share their input, in one kernel call and without a tape: every y_i is [tokens, out_i]. Threads are called together once for all of
 * them, which small layers feel.
 */
export const linearGroup = (x: Tensor, layers: readonly GroupedLinear[]): Tensor[] => {
  const { engine } = x
  const inner = x.shape.at(-1)!
  const tokens = x.size / inner
  if (layers.length < 1 || layers.length > 3)
    throw new SlothError("SLOTH_TENSOR_SHAPE", {
      what: `linearGroup takes one to three layers, not ${layers.length}.`,
      fields: { layers: layers.length },
    })
  const args: number[] = []
  const outputs = layers.map(({ weight, bias, low }) => {
    const out = weight.shape[0]!
    if (weight.shape[1] !== inner)
      throw shapeMismatch("linearGroup", "x [tokens, in] and every W [out, in]", x.shape, weight.shape)
    const y = engine.empty([tokens, out])
    args.push(y.handle, weight.handle, weightFormat(weight.dtype).code, out, handleOf(bias))
    args.push(handleOf(low?.a), handleOf(low?.b), low?.a.shape[0] ?? 0, low?.scale ?? 0)
    return y
  })
  while (args.length < 27) args.push(0)
  ;(engine.backend.kernels.linearGroup as (...args: number[]) => void)(x.handle, tokens, inner, ...args)
  return outputs
}
