import { shapeMismatch, type Tensor } from "../tensor.ts"
import { apply, F32_TOLERANCE, type Op } from "../op.ts"

/** Activation of a gated MLP. */
export type Activation = "silu" | "gelu-tanh" | "gelu"
const CODES: Record<Activation, number> = { silu: 0, "gelu-tanh": 1, gelu: 2 }

const gatedOp: Op<{ code: number }> = {
  name: "gatedActivation",
  saves: () => [true, true],
  recompute: true,
  forward: (engine, { code }, [gate, up]) => {
    const h = engine.empty(gate!.shape)
    engine.backend.kernels.gatedActivation(h.handle, gate!.handle, up!.handle, code, h.size)
    return { outputs: [h] }
  },
  backward: ({ engine, params, saved, gradients: [dh], sink }) => {
    const [gate, up] = [saved(0)!, saved(1)!]
    const dgate = engine.empty(gate.shape)
    const dup = engine.empty(up.shape)
    engine.backend.kernels.gatedActivationBackward(
      dgate.handle,
      dup.handle,
      dh!.handle,
      gate.handle,
      up.handle,
      params.code,
      gate.size,
    )
    if (sink.needs(0)) sink.give(0, dgate)
    if (sink.needs(1)) sink.give(1, dup)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/** act(gate) · up, equal shapes, f32. Source: GLU variants, Shazeer 2020. */
export const gatedActivation = (gate: Tensor, up: Tensor, activation: Activation): Tensor => {
  if (gate.size !== up.size) throw shapeMismatch("gatedActivation", "equal shapes", gate.shape, up.shape)
  return apply(gate.engine, gatedOp, { code: CODES[activation] }, [gate, up])[0]!
}
