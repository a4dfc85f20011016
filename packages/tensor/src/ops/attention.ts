import { handleOf, shapeMismatch, typeMismatch, Tensor } from "../tensor.ts"
import { SlothError } from "@sloth/core"
import { apply, F32_TOLERANCE, type Op } from "../op.ts"

// Inputs: x [tokens, heads · headDim], cos and sin [positions, rotary / 2], positions i32 [tokens]. Output: the same storage, rotated.
const ropeOp: Op<{ heads: number; headDim: number; rotary: number }> = {
  name: "rope",
  saves: () => [false, true, true, true],
  forward: (engine, { heads, headDim, rotary }, [x, cos, sin, positions]) => {
    const rows = x!.shape[0]!
    let rotated = x!
    // What is kept of a layer for a later pass stays as the layer made it.
    if (engine.rows?.mode === "record" && x!.storage.refs > 1) {
      rotated = engine.empty(x!.shape)
      engine.backend.kernels.copy(rotated.handle, x!.handle, x!.size * 4)
    }
    engine.backend.kernels.rope(
      rotated.handle,
      heads * headDim,
      cos!.handle,
      sin!.handle,
      positions!.handle,
      rows,
      heads,
      headDim,
      rotary,
      0,
    )
    return { outputs: [rotated === x ? engine.adopt(x.storage.retain(), x.shape, "f32") : rotated] }
  },
  backward: ({ engine, params: { heads, headDim, rotary }, saved, gradients: [d], sink }) => {
    let g = d!
    if (g.storage.refs > 1) {
      g = engine.empty(d!.shape)
      engine.backend.kernels.copy(g.handle, d!.handle, d!.size * 4)
    }
    engine.backend.kernels.rope(
      g.handle,
      heads * headDim,
      saved(1)!.handle,
      saved(2)!.handle,
      saved(3)!.handle,
      g.shape[0]!,
      heads,
      headDim,
      rotary,
      1,
    )
    sink.give(0, g)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/**
 * Rotary position embedding, in place: x must not be used again. x [tokens, heads · headDim] f32; tables [positions, rotary / 2]; positions i32 [tokens].
 * Channel pairs are (c, c + rotary / 2), as in Hugging Face checkpoints. Source: RoFormer, Su et al. 2021.
 */
export const rope = (
  x: Tensor,
  cos: Tensor,
  sin: Tensor,
  positions: Tensor,
  heads: number,
  headDim: number,
  rotary = headDim,
): Tensor => {
  if (x.shape.at(-1) !== heads * headDim) throw shapeMismatch("rope", `[tokens, ${heads * headDim}]`, x.shape)
  if (x.storage.saves > 0)
    throw new SlothError("SLOTH_TAPE_OVERWRITE", {
      what: "rope would overwrite a value that a backward rule still reads.",
      fields: { shape: x.shape },
    })
  return apply(x.engine, ropeOp, { heads, headDim, rotary }, [x, cos, sin, positions])[0]!
}

/** Shape and kind of an attention layer. */
export interface AttentionShape {
  readonly heads: number
  readonly kvHeads: number
  readonly headDim: number
  /** Factor of q · k; 1 / sqrt(headDim) unless the family says otherwise. */
  readonly scale: number
  /** Positions a row sees, its own included; 0 means all. */
  readonly window: number
  /** Soft cap of the scores; 0 means none. */
  readonly softcap: number
}

// Inputs: q [tokens, heads · headDim], k, v [tokens, kvHeads · headDim], segments i32 [count, 3], sinks [heads]?. Extra: out, lse [tokens, heads].
const attentionOp: Op<AttentionShape> = {
  name: "attention",
  saves: () => [true, true, true, true, true],
  forward: (engine, p, [q, k, v, segments, sinks]) => {
    const tokens = q!.shape[0]!
    const { memo } = engine
    if (memo?.mode === "replay") {
      const [out, lse] = memo.values.splice(0, 2) as [Tensor, Tensor]
      return { outputs: [out], extra: [out, lse] }
    }
    const out = engine.empty([tokens, p.heads * p.headDim])
    const lse = engine.empty([tokens, p.heads])
    const width = p.kvHeads * p.headDim
    engine.backend.kernels.attention(
      out.handle,
      lse.handle,
      q!.handle,
      p.heads * p.headDim,
      k!.handle,
      width,
      v!.handle,
      width,
      segments!.handle,
      segments!.shape[0]!,
      tokens,
      p.heads,
      p.kvHeads,
      p.headDim,
      p.scale,
      p.window,
      p.softcap,
      handleOf(sinks),
    )
    for (const t of memo === undefined ? [] : [out, lse])
      memo!.values.push(new Tensor(engine, t.storage.retain(), t.shape, t.dtype))
    return { outputs: [out], extra: [out, lse] }
  },
  backward: ({ engine, params: p, saved, gradients: [dout], sink }) => {
    const [q, k, v, segments, sinks, out, lse] = [
      saved(0)!,
      saved(1)!,
      saved(2)!,
      saved(3)!,
      saved(4),
      saved(5)!,
      saved(6)!,
    ]
    const tokens = q.shape[0]!
    const width = p.kvHeads * p.headDim
    const [dq, dk, dv] = [engine.empty(q.shape), engine.empty(k.shape), engine.empty(v.shape)]
    let dsinks: Tensor | undefined
    if (sink.needs(4)) {
      const target = sink.target(4, [p.heads])
      if (target.accumulate === 0) engine.backend.kernels.fill(target.tensor.handle, 0, p.heads)
      dsinks = target.tensor
    }
    engine.backend.kernels.attentionBackward(
      dq.handle,
      dk.handle,
      dv.handle,
      handleOf(dsinks),
      dout!.handle,
      out.handle,
      lse.handle,
      q.handle,
      p.heads * p.headDim,
      k.handle,
      width,
      v.handle,
      width,
      segments.handle,
      segments.shape[0]!,
      tokens,
      p.heads,
      p.kvHeads,
      p.headDim,
      p.scale,
      p.window,
      p.softcap,
      handleOf(sinks),
    )
    if (sink.needs(0)) sink.give(0, dq)
    if (sink.needs(1)) sink.give(1, dk)
    if (sink.needs(2)) sink.give(2, dv)
  },
  tolerance: { f32: F32_TOLERANCE },
}

/**
 * Softmax attention over a forest of segments, grouped heads. q [tokens, heads · headDim], k and v [tokens, kvHeads · headDim], segments i32 [count, 3]
 * (see {@link SequenceLayout}), result [tokens, heads · headDim]. Source: FlashAttention-2, Dao 2023; sinks: gpt-oss model card 2025.
 */
export const attention = (
  q: Tensor,
  k: Tensor,
  v: Tensor,
  segments: Tensor,
  shape: AttentionShape,
  sinks?: Tensor,
): Tensor => {
  if (
    q.shape.at(-1) !== shape.heads * shape.headDim ||
    k.shape.at(-1) !== shape.kvHeads * shape.headDim ||
    v.size !== k.size ||
    shape.heads % shape.kvHeads !== 0
  )
    throw shapeMismatch(
      "attention",
      `q [tokens, ${shape.heads * shape.headDim}] and k, v [tokens, ${shape.kvHeads * shape.headDim}]`,
      q.shape,
      k.shape,
    )
  if (segments.dtype !== "i32") throw typeMismatch("attention", "i32 segments", segments.dtype)
  return apply(q.engine, attentionOp, shape, [q, k, v, segments, sinks])[0]!
}
