import { handleOf, shapeMismatch, type Tensor } from "../tensor.ts"
import { apply, F32_TOLERANCE, type Op } from "../op.ts"

// Inputs: x [rows, cols], w [cols]?. Extra: rstd [rows].
const rmsNormOp: Op<{ eps: number; offset: number }> = {
  name: "rmsNorm",
  saves: () => [true, true],
  recompute: true,
  forward: (engine, { eps, offset }, [x, w]) => {
    const cols = x!.shape.at(-1)!
    const rows = x!.size / cols
    const y = engine.empty(x!.shape)
    const rstd = engine.empty([rows])
    engine.backend.kernels.rmsNorm(y.handle, rstd.handle, x!.handle, handleOf(w), rows, cols, eps, offset)
    return { outputs: [y], extra: [rstd] }
  },
  backward: ({ engine, params, saved, gradients: [dy], sink }) => {
    const [x, w, rstd] = [saved(0)!, saved(1), saved(2)!]
    const cols = x.shape.at(-1)!
    const rows = x.size / cols
    const dx = sink.needs(0) ? sink.target(0, x.shape) : { tensor: engine.empty(x.shape), accumulate: 0 }
    const dw = sink.needs(1) ? sink.target(1, [cols]) : undefined
    // The kernel adds to dw, so a fresh one starts from zero.
    if (dw?.accumulate === 0) engine.backend.kernels.fill(dw.tensor.handle, 0, cols)
    engine.backend.kernels.rmsNormBackward(
      dx.tensor.handle,
      handleOf(dw?.tensor),
      dy!.handle,
      x.handle,
      handleOf(w),
      rstd.handle,
      rows,
      cols,
      params.offset,
      dx.accumulate,
    )
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** x / sqrt(mean(x²) + eps) · (w + offset) over the last dimension; w [cols] f32 or absent. Source: Zhang & Sennrich 2019. */
export const rmsNorm = (x: Tensor, w: Tensor | undefined, eps: number, offset = 0): Tensor => {
  if (w !== undefined && w.size !== x.shape.at(-1))
    throw shapeMismatch("rmsNorm", "x [rows, cols] and w [cols]", x.shape, w.shape)
  return apply(x.engine, rmsNormOp, { eps, offset }, [x, w])[0]!
}
