import type { ModelBody } from "@sloth/model"
import {
  add,
  forwardTogether,
  gatedActivation,
  gatherRows,
  scatterRows,
  type AttentionShape,
  type ForwardContext,
  type ModuleBuilder,
  type Tensor,
} from "@sloth/tensor"
import type { LlamaConfig } from "./config.ts"

const buildLayer = (config: LlamaConfig, m: ModuleBuilder, index: number) => {
  const path = `model.layers.${index}`
  const { hidden, heads, kvHeads, headDim, intermediate, rmsNormEps } = config
  const inputNorm = m.rmsNorm(`${path}.input_layernorm`, hidden, rmsNormEps)
  const bias = { bias: config.attentionBias }
  const q = m.linear(`${path}.self_attn.q_proj`, hidden, heads * headDim, bias)
  const k = m.linear(`${path}.self_attn.k_proj`, hidden, kvHeads * headDim, bias)
  const v = m.linear(`${path}.self_attn.v_proj`, hidden, kvHeads * headDim, bias)
  const o = m.linear(`${path}.self_attn.o_proj`, heads * headDim, hidden, bias)
  const mlpNorm = m.rmsNorm(`${path}.post_attention_layernorm`, hidden, rmsNormEps)
  const mlpBias = { bias: config.mlpBias }
  const gate = m.linear(`${path}.mlp.gate_proj`, hidden, intermediate, mlpBias)
  const up = m.linear(`${path}.mlp.up_proj`, hidden, intermediate, mlpBias)
  const down = m.linear(`${path}.mlp.down_proj`, intermediate, hidden, mlpBias)
  const shape: AttentionShape = {
    heads,
    kvHeads,
    headDim,
    scale: 1 / Math.sqrt(headDim),
    window: config.slidingWindow,
    softcap: 0,
  }
  const rotates = !config.withoutRope.includes(index)
  return { index, inputNorm, q, k, v, o, mlpNorm, gate, up, down, shape, rotates }
}

/** Builds the modules of a Llama: pre-norm blocks of grouped-head attention with rotary positions and a SwiGLU MLP. Source: Touvron et al. 2023. */
export const build = (config: LlamaConfig, m: ModuleBuilder): ModelBody => {
  const embed = m.embedding("model.embed_tokens", config.vocab, config.hidden)
  const layers = Array.from({ length: config.layers }, (_, i) => buildLayer(config, m, i))
  const norm = m.rmsNorm("model.norm", config.hidden, config.rmsNormEps)
  const headWeight = config.tied ? embed.weight : m.linear("lm_head", config.hidden, config.vocab).weight
  const rotary = m.rotary(config.rope)
  const { heads, kvHeads, headDim } = config

  // With `read` only those rows go on after the keys and values: nobody asks what the last layer makes of the others.
  const attend = (
    ctx: ForwardContext,
    layer: (typeof layers)[number],
    x: Tensor,
    read?: ForwardContext["read"],
  ): Tensor => {
    const tokens = x.shape[0]!
    // q [tokens or read, heads · headDim], k and v [tokens, kvHeads · headDim]
    let [q, k, v] = ctx.engine.scope(() => {
      const normed = layer.inputNorm.forward(x) // [tokens, hidden]
      return read === undefined
        ? forwardTogether(ctx, normed, [layer.q, layer.k, layer.v])
        : [
            layer.q.forward(ctx, gatherRows(normed, read.rows)),
            layer.k.forward(ctx, normed),
            layer.v.forward(ctx, normed),
          ]
    }) as [Tensor, Tensor, Tensor]
    if (layer.rotates) {
      q = rotary.forward(read === undefined ? ctx : { ...ctx, positions: read.positions }, q, heads, headDim)
      k = rotary.forward(ctx, k, kvHeads, headDim)
    }
    // Attention wants a query a row; those of rows that are not read are zero, and so is what comes back to them.
    if (read !== undefined) q = scatterRows(q, read.rows, tokens) // [tokens, heads · headDim]
    let attended = ctx.attend(layer.index, q, k, v, layer.shape) // [tokens, heads · headDim]
    let residual = x
    if (read !== undefined) {
      attended = gatherRows(attended, read.rows) // [read, heads · headDim]
      residual = gatherRows(x, read.rows) // [read, hidden]
    }
    return add(residual, forwardTogether(ctx, attended, [layer.o])[0]!) // [tokens or read, hidden]
  }
  const feedForward = (ctx: ForwardContext, layer: (typeof layers)[number], middle: Tensor): Tensor => {
    const [gate, up] = forwardTogether(ctx, layer.mlpNorm.forward(middle), [layer.gate, layer.up]) // [tokens, intermediate]
    const h = gatedActivation(gate!, up!, "silu") // [tokens, intermediate]
    return add(middle, forwardTogether(ctx, h, [layer.down])[0]!) // [tokens, hidden]
  }
  // Any trainable tensor of a layer: it makes a checkpointed block record itself even where its input carries no gradient.
  const anchor = (layer: (typeof layers)[number]): Tensor | undefined => {
    for (const l of [layer.q, layer.k, layer.v, layer.o, layer.gate, layer.up, layer.down]) {
      for (const t of Object.values(l.adapter?.tensors ?? {})) if (t.requiresGrad) return t
      if (l.weight.tensor.requiresGrad) return l.weight.tensor
    }
    return [layer.inputNorm.weight.tensor, layer.mlpNorm.weight.tensor].find((t) => t.requiresGrad)
  }

  return {
    forward: (ctx, tokens) => {
      let x = embed.forward(tokens) // [tokens, hidden]
      for (const layer of layers) {
        const input = x
        x = ctx.block(
          layer.index,
          input,
          (rows) => attend(ctx, layer, rows, layer.index === config.layers - 1 ? ctx.read : undefined),
          anchor(layer),
          (own, middle) => feedForward(own, layer, middle),
        )
        // What the backward pass reads, its tape holds.
        input.dispose()
      }
      const hidden = norm.forward(x)
      x.dispose()
      return hidden
    },
    head: { weight: headWeight, softcap: 0, logitScale: 1 },
    cache: layers.map(() => ({ kvHeads, headDim })),
  }
}
