import type { Engine } from "./engine.ts"
import { apply, F32_TOLERANCE, type Op } from "./op.ts"
import { GradSlot } from "./tape.ts"
import type { Tensor } from "./tensor.ts"

// The anchor input makes the node recorded even when only weights inside the body train.
const checkpointOp: Op<{ body: (x: Tensor) => Tensor }> = {
  name: "checkpoint",
  saves: () => [true, false],
  forward: (engine, { body }, [x]) => ({ outputs: [engine.noGrad(() => engine.scope(() => body(x!)))] }),
  backward: ({ engine, params: { body }, saved, gradients: [d], sink }) => {
    const stored = saved(0)!
    const x = engine.adopt(stored.storage.retain(), stored.shape, stored.dtype)
    const slot = new GradSlot()
    if (sink.needs(0)) x.slot = slot
    const { result, tape } = engine.record(() => body(x))
    tape.backward([{ tensor: result, gradient: d! }])
    if (sink.needs(0) && slot.grad !== undefined) sink.give(0, slot.grad)
    slot.clear()
  },
  tolerance: { f32: F32_TOLERANCE },
}

/**
 * Runs `body(x)` without keeping its intermediate values; the backward pass runs it again. Exact: the second run repeats the first bit for bit.
 * `anchor` is any trainable tensor used inside, needed when x itself carries no gradient. Source: Chen et al. 2016.
 */
export const checkpoint = (engine: Engine, x: Tensor, body: (x: Tensor) => Tensor, anchor?: Tensor): Tensor =>
  engine.tape === undefined ? body(x) : apply(engine, checkpointOp, { body }, [x, anchor])[0]!
