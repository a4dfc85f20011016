import type { ModelBody } from "@sloth/model"
import { add, gatedActivation, type ForwardContext, type ModuleBuilder, type Tensor } from "@sloth/tensor"
import type { Qwen2Config } from "./config.ts"

const buildLayer = (c: Qwen2Config, m: ModuleBuilder, index: number) => {
  const path = `model.layers.${index}`
  const width = c.kvHeads * c.headDim
  return {
    index,
    inputNorm: m.rmsNorm(`${path}.input_layernorm`, c.hidden, c.rmsNormEps),
    // The one difference to Llama: these three have biases.
    q: m.linear(`${path}.self_attn.q_proj`, c.hidden, c.heads * c.headDim, { bias: true }),
    k: m.linear(`${path}.self_attn.k_proj`, c.hidden, width, { bias: true }),
    v: m.linear(`${path}.self_attn.v_proj`, c.hidden, width, { bias: true }),
    o: m.linear(`${path}.self_attn.o_proj`, c.heads * c.headDim, c.hidden),
    mlpNorm: m.rmsNorm(`${path}.post_attention_layernorm`, c.hidden, c.rmsNormEps),
    gate: m.linear(`${path}.mlp.gate_proj`, c.hidden, c.intermediate),
    up: m.linear(`${path}.mlp.up_proj`, c.hidden, c.intermediate),
    down: m.linear(`${path}.mlp.down_proj`, c.intermediate, c.hidden),
  }
}

type Layer = ReturnType<typeof buildLayer>

/** Any trainable tensor of a layer: it makes a block that is computed again record itself where its input carries no gradient. */
const anchorOf = (layer: Layer): Tensor | undefined => {
  const { q, k, v, o, gate, up, down, inputNorm, mlpNorm } = layer
  return [q, k, v, o, gate, up, down]
    .flatMap((l) => [...Object.values(l.adapter?.tensors ?? {}), l.weight.tensor, ...(l.bias ? [l.bias.tensor] : [])])
    .concat(inputNorm.weight.tensor, mlpNorm.weight.tensor)
    .find((tensor) => tensor.requiresGrad)
}

/** Builds the modules. Names are those of Hugging Face, which is how weights, adapters and exports find them. */
export const build = (c: Qwen2Config, m: ModuleBuilder): ModelBody => {
  const embed = m.embedding("model.embed_tokens", c.vocab, c.hidden)
  const layers = Array.from({ length: c.layers }, (_, i) => buildLayer(c, m, i))
  const norm = m.rmsNorm("model.norm", c.hidden, c.rmsNormEps)
  const head = c.tied ? embed.weight : m.linear("lm_head", c.hidden, c.vocab).weight
  const rotary = m.rotary({ theta: c.ropeTheta, rotary: c.headDim, maxPositions: c.maxPositions, scaling: undefined })
  const shape = {
    heads: c.heads,
    kvHeads: c.kvHeads,
    headDim: c.headDim,
    scale: 1 / Math.sqrt(c.headDim),
    window: 0,
    softcap: 0,
  }
  const forwardLayer = (ctx: ForwardContext, layer: Layer, x: Tensor): Tensor => {
    const normed = layer.inputNorm.forward(x) // [tokens, hidden]
    const q = rotary.forward(ctx, layer.q.forward(ctx, normed), c.heads, c.headDim) // [tokens, heads · headDim]
    const k = rotary.forward(ctx, layer.k.forward(ctx, normed), c.kvHeads, c.headDim) // [tokens, kvHeads · headDim]
    const v = layer.v.forward(ctx, normed) // [tokens, kvHeads · headDim]
    const attended = ctx.attend(layer.index, q, k, v, shape) // [tokens, heads · headDim]
    const middle = add(x, layer.o.forward(ctx, attended)) // [tokens, hidden]
    const input = layer.mlpNorm.forward(middle)
    const h = gatedActivation(layer.gate.forward(ctx, input), layer.up.forward(ctx, input), "silu") // [tokens, intermediate]
    return add(middle, layer.down.forward(ctx, h)) // [tokens, hidden]
  }
  return {
    forward: (ctx, tokens) => {
      let x = embed.forward(tokens) // [tokens, hidden]
      for (const layer of layers)
        x = ctx.block(layer.index, x, (input) => forwardLayer(ctx, layer, input), anchorOf(layer))
      return norm.forward(x)
    },
    head: { weight: head, softcap: 0, logitScale: 1 },
    cache: layers.map(() => ({ kvHeads: c.kvHeads, headDim: c.headDim })),
  }
}
