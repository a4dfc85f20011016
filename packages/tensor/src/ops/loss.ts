import { handleOf, shapeMismatch, type Tensor } from "../tensor.ts"
import { apply, F32_TOLERANCE, type Op } from "../op.ts"
import { weightFormat } from "../weight-format.ts"

/** How hidden states become logits: softcap(logitScale · h · Wᵀ). */
export interface HeadShape {
  /** Soft cap of the logits; 0 means none. */
  readonly softcap: number
  readonly logitScale: number
}

// Inputs: h [rows, hidden], W [vocab, hidden], targets i32 [rows], coef f32 [rows]. The gradients are made in the forward pass.
const crossEntropyOp: Op<HeadShape> = {
  name: "linearCrossEntropy",
  saves: () => [false, false, false, false],
  forward: (engine, p, [h, w, targets, coef]) => {
    const [rows, hidden] = h!.shape as [number, number]
    const nll = engine.empty([rows])
    const recording = engine.tape !== undefined
    const dh = recording && h!.requiresGrad ? engine.empty(h!.shape) : undefined
    const dw = recording && w!.requiresGrad ? engine.zeros(w!.shape) : undefined
    engine.backend.kernels.linearCrossEntropy(
      nll.handle,
      handleOf(dh),
      handleOf(dw),
      h!.handle,
      w!.handle,
      weightFormat(w!.dtype).code,
      targets!.handle,
      coef!.handle,
      rows,
      w!.shape[0]!,
      hidden,
      p.softcap,
      p.logitScale,
    )
    return { outputs: [nll], extra: [dh, dw] }
  },
  backward: ({ engine, saved, upstream, sink }) => {
    for (const i of [0, 1]) {
      if (!sink.needs(i)) continue
      const made = saved(4 + i)!
      if (upstream !== 1) engine.backend.kernels.scale(made.handle, made.handle, upstream, made.size, 0)
      sink.give(i, made)
    }
  },
  tolerance: { f32: F32_TOLERANCE },
}

/**
 * nll[i] = -log softmax(logits[i])[targets[i]] in nats, f32 [rows], without a logits tensor. It is a root for `tape.backward` whose gradient is that of Σ coef · nll, made
 * in the same pass. h [rows, hidden], W [vocab, hidden] in any weight format, targets i32 [rows], coef f32 [rows].
 */
export const linearCrossEntropy = (h: Tensor, w: Tensor, targets: Tensor, coef: Tensor, head: HeadShape): Tensor => {
  if (h.shape.at(-1) !== w.shape[1] || targets.size !== h.shape[0] || coef.size !== h.shape[0])
    throw shapeMismatch(
      "linearCrossEntropy",
      "h [rows, hidden], W [vocab, hidden], targets [rows], coef [rows]",
      h.shape,
      w.shape,
      targets.shape,
      coef.shape,
    )
  return apply(h.engine, crossEntropyOp, head, [h, w, targets, coef])[0]!
}

// Inputs: h [rows, hidden], W [vocab, hidden], targets i32 [rows]. Outputs: logp [rows], entropy [rows]. Extra: lse [rows], entropy [rows], d logp / d h [rows, hidden].
// A log-prob's gradient by h is known as soon as the log-prob is, up to the factor that its loss will find: where W is not trained one pass over the vocabulary makes both,
// and a second one is needed only for a gradient by the entropies.
const logprobsOp: Op<HeadShape & { entropy: boolean }> = {
  name: "linearLogprobs",
  saves: () => [true, true, true],
  forward: (engine, p, [h, w, targets]) => {
    const [rows, hidden] = h!.shape as [number, number]
    const [logp, lse] = [engine.empty([rows]), engine.empty([rows])]
    const entropy = p.entropy ? engine.empty([rows]) : undefined
    const slope = engine.tape !== undefined && h!.requiresGrad && !w!.requiresGrad ? engine.empty(h!.shape) : undefined
    engine.backend.kernels.linearLogprobs(
      logp.handle,
      lse.handle,
      handleOf(entropy),
      handleOf(slope),
      h!.handle,
      w!.handle,
      weightFormat(w!.dtype).code,
      targets!.handle,
      rows,
      w!.shape[0]!,
      hidden,
      p.softcap,
      p.logitScale,
    )
    return { outputs: entropy === undefined ? [logp] : [logp, entropy], extra: [lse, entropy, slope] }
  },
  backward: ({ engine, params: p, saved, gradients, sink }) => {
    const slope = saved(5)
    if (slope !== undefined && gradients[1] === undefined) {
      const [rows, hidden] = slope.shape as [number, number]
      engine.backend.kernels.scaleRows(slope.handle, slope.handle, gradients[0]!.handle, rows, hidden, 0)
      sink.give(0, slope)
      return
    }
    const [h, w, targets, lse] = [saved(0)!, saved(1)!, saved(2)!, saved(3)!]
    const dentropy = gradients[1]
    const entropy = dentropy === undefined ? undefined : saved(4)!
    const [rows, hidden] = h.shape as [number, number]
    const dlogp = gradients[0] ?? engine.zeros([rows])
    const dh = engine.empty(h.shape)
    const dw = sink.needs(1) ? sink.target(1, w.shape) : undefined
    if (dw?.accumulate === 0) engine.backend.kernels.fill(dw.tensor.handle, 0, dw.tensor.size)
    engine.backend.kernels.linearLogprobsBackward(
      dh.handle,
      handleOf(dw?.tensor),
      dlogp.handle,
      lse.handle,
      handleOf(dentropy),
      handleOf(entropy),
      h.handle,
      w.handle,
      weightFormat(w.dtype).code,
      targets.handle,
      rows,
      w.shape[0]!,
      hidden,
      p.softcap,
      p.logitScale,
    )
    if (sink.needs(0)) sink.give(0, dh)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/**
 * log softmax(logits[i])[targets[i]] in nats, f32 [rows]; with `entropy` also the entropy of each row's distribution, nats. Both are differentiable in h and W.
 * Logits are never held for more than a block of rows.
 */
export const linearLogprobs = (
  h: Tensor,
  w: Tensor,
  targets: Tensor,
  head: HeadShape & { entropy?: boolean },
): { logprobs: Tensor; entropy: Tensor | undefined } => {
  if (h.shape.at(-1) !== w.shape[1] || targets.size !== h.shape[0])
    throw shapeMismatch(
      "linearLogprobs",
      "h [rows, hidden], W [vocab, hidden], targets [rows]",
      h.shape,
      w.shape,
      targets.shape,
    )
  const [logprobs, entropy] = apply(h.engine, logprobsOp, { entropy: false, ...head }, [h, w, targets])
  return { logprobs: logprobs!, entropy }
}
