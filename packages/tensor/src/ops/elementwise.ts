import { shapeMismatch, type Tensor } from "../tensor.ts"
import { apply, F32_TOLERANCE, type Op } from "../op.ts"

const addOp: Op<null> = {
  name: "add",
  saves: () => [false, false],
  forward: (engine, _, [a, b]) => {
    const out = engine.empty(a!.shape)
    engine.backend.kernels.add(out.handle, a!.handle, b!.handle, out.size)
    return { outputs: [out] }
  },
  backward: ({ gradients: [d], sink }) => {
    if (sink.needs(0)) sink.give(0, d!)
    if (sink.needs(1)) sink.give(1, d!)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** a + b of equal shapes, f32; the residual connection. */
export const add = (a: Tensor, b: Tensor): Tensor => {
  if (a.size !== b.size) throw shapeMismatch("add", "equal shapes", a.shape, b.shape)
  return apply(a.engine, addOp, null, [a, b])[0]!
}

const mulOp: Op<null> = {
  name: "mul",
  saves: (_, [a, b]) => [b!.requiresGrad, a!.requiresGrad],
  forward: (engine, _, [a, b]) => {
    const out = engine.empty(a!.shape)
    engine.backend.kernels.mul(out.handle, a!.handle, b!.handle, out.size)
    return { outputs: [out] }
  },
  backward: ({ engine, saved, gradients: [d], sink }) => {
    for (const i of [0, 1]) {
      if (!sink.needs(i)) continue
      const product = engine.empty(d!.shape)
      engine.backend.kernels.mul(product.handle, d!.handle, saved(1 - i)!.handle, product.size)
      sink.give(i, product)
    }
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** a · b element by element, equal shapes, f32. */
export const mul = (a: Tensor, b: Tensor): Tensor => {
  if (a.size !== b.size) throw shapeMismatch("mul", "equal shapes", a.shape, b.shape)
  return apply(a.engine, mulOp, null, [a, b])[0]!
}

const scaleOp: Op<{ factor: number }> = {
  name: "scale",
  saves: () => [false],
  forward: (engine, { factor }, [x]) => {
    const out = engine.empty(x!.shape)
    engine.backend.kernels.scale(out.handle, x!.handle, factor, out.size, 0)
    return { outputs: [out] }
  },
  backward: ({ engine, params, gradients: [d], sink }) => {
    const { tensor, accumulate } = sink.target(0, d!.shape)
    engine.backend.kernels.scale(tensor.handle, d!.handle, params.factor, tensor.size, accumulate)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** factor · x, f32. */
export const scale = (x: Tensor, factor: number): Tensor => apply(x.engine, scaleOp, { factor }, [x])[0]!

/** Where the random bits of a dropout come from: equal addresses give equal masks on every backend. */
export interface RandomAddress {
  readonly seed: number
  readonly stream: number
  readonly step: number
  /** Number of x's first element (for {@link LowRank}: row) in the whole of which it is a piece; 0 when absent. */
  readonly first?: number
}

const dropoutOp: Op<RandomAddress & { p: number }> = {
  name: "dropout",
  saves: () => [true],
  recompute: true,
  forward: (engine, { p, seed, stream, step, first = 0 }, [x]) => {
    const out = engine.empty(x!.shape)
    engine.backend.kernels.dropout(out.handle, x!.handle, p, out.size, seed, stream, step, first)
    return { outputs: [out] }
  },
  backward: ({ engine, params: { p, seed, stream, step, first = 0 }, gradients: [d], sink }) => {
    const masked = engine.empty(d!.shape)
    engine.backend.kernels.dropout(masked.handle, d!.handle, p, masked.size, seed, stream, step, first)
    sink.give(0, masked)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** Inverted dropout with probability `p` in [0, 1). */
export const dropout = (x: Tensor, p: number, at: RandomAddress): Tensor =>
  p === 0 ? x : apply(x.engine, dropoutOp, { p, ...at }, [x])[0]!
