import { shapeMismatch, typeMismatch, type Tensor } from "../tensor.ts"
import { apply, F32_TOLERANCE, type Op } from "../op.ts"
import { weightFormat } from "../weight-format.ts"

// Inputs: W [vocab, hidden], ids i32 [tokens].
const embeddingOp: Op<{ scale: number }> = {
  name: "embedding",
  saves: () => [false, true],
  forward: (engine, { scale }, [w, ids]) => {
    const [vocab, hidden] = w!.shape as [number, number]
    const out = engine.empty([ids!.size, hidden]) // [tokens, hidden]
    engine.backend.kernels.embedding(
      out.handle,
      w!.handle,
      weightFormat(w!.dtype).code,
      ids!.handle,
      ids!.size,
      vocab,
      hidden,
      scale,
    )
    return { outputs: [out] }
  },
  backward: ({ engine, params, saved, gradients: [d], sink }) => {
    if (!sink.needs(0)) return
    const ids = saved(1)!
    const [rows, hidden] = d!.shape as [number, number]
    const vocab = sink.shapeOf(0)![0]!
    const dw = sink.target(0, [vocab, hidden])
    if (dw.accumulate === 0) engine.backend.kernels.fill(dw.tensor.handle, 0, dw.tensor.size)
    engine.backend.kernels.embeddingBackward(dw.tensor.handle, d!.handle, ids.handle, rows, vocab, hidden, params.scale)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** scale · W[ids]: W [vocab, hidden] in any weight format, ids i32 [tokens], result f32 [tokens, hidden]. */
export const embedding = (w: Tensor, ids: Tensor, scale = 1): Tensor => {
  if (ids.dtype !== "i32") throw typeMismatch("embedding", "i32 ids", ids.dtype)
  return apply(w.engine, embeddingOp, { scale }, [w, ids])[0]!
}

// Inputs: x [rows, cols], index i32 [n].
const gatherOp: Op<{ rows: number }> = {
  name: "gatherRows",
  saves: () => [false, true],
  forward: (engine, _, [x, index]) => {
    const cols = x!.shape.at(-1)!
    const out = engine.empty([index!.size, cols])
    engine.backend.kernels.gatherRows(out.handle, x!.handle, index!.handle, index!.size, cols)
    return { outputs: [out] }
  },
  backward: ({ engine, params, saved, gradients: [d], sink }) => {
    const [n, cols] = d!.shape as [number, number]
    const dx = sink.target(0, [params.rows, cols])
    engine.backend.kernels.scatterRows(
      dx.tensor.handle,
      d!.handle,
      saved(1)!.handle,
      n,
      cols,
      params.rows,
      dx.accumulate,
    )
  },
  tolerance: { f32: F32_TOLERANCE },
}

// Inputs: x [n, cols], index i32 [n].
const scatterOp: Op<{ rows: number }> = {
  name: "scatterRows",
  saves: () => [false, true],
  forward: (engine, { rows }, [x, index]) => {
    const [n, cols] = x!.shape as [number, number]
    const out = engine.empty([rows, cols])
    engine.backend.kernels.scatterRows(out.handle, x!.handle, index!.handle, n, cols, rows, 0)
    return { outputs: [out] }
  },
  backward: ({ engine, saved, gradients: [d], sink }) => {
    const index = saved(1)!
    const cols = d!.shape[1]!
    const dx = engine.empty([index.size, cols])
    engine.backend.kernels.gatherRows(dx.handle, d!.handle, index.handle, index.size, cols)
    sink.give(0, dx)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** y [rows, cols] with y[index[i]] = x[i] and zeros elsewhere: x [n, cols] f32, index i32 [n] without repetition. The way back is a gather. */
export const scatterRows = (x: Tensor, index: Tensor, rows: number): Tensor => {
  if (x.shape.length !== 2 || x.shape[0] !== index.size)
    throw shapeMismatch("scatterRows", "x [n, cols] and index [n]", x.shape, index.shape)
  return apply(x.engine, scatterOp, { rows }, [x, index])[0]!
}

/** x[index]: x [rows, cols] f32, index i32 [n], result [n, cols]. */
export const gatherRows = (x: Tensor, index: Tensor): Tensor => {
  if (x.shape.length !== 2) throw shapeMismatch("gatherRows", "x [rows, cols]", x.shape)
  return apply(x.engine, gatherOp, { rows: x.shape[0]! }, [x, index])[0]!
}
