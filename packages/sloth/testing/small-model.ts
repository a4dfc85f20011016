import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { writeSafetensors } from "@sloth/model"
import { nanoFiles } from "@sloth/nano"

/** A deterministic value in (-1, 1). */
const noise = (i: number): number => {
  const x = Math.sin((i + 1) * 12.9898) * 43758.5453
  return 2 * (x - Math.floor(x)) - 1
}

/**
 * Writes a small chat model with nano's tokenizer and chat template and untrained weights into a folder: what tests need that care for the way of things, not for answers.
 */
export const writeSmallModel = async (
  folder: string,
  size: { readonly hidden?: number; readonly layers?: number } = {},
): Promise<string> => {
  const { hidden = 32, layers = 2 } = size
  const nano = nanoFiles().model
  mkdirSync(folder, { recursive: true })
  for (const name of ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
    cpSync(join(nano, name), join(folder, name))
  const config = JSON.parse(readFileSync(join(nano, "config.json"), "utf8")) as Record<string, unknown> & {
    vocab_size: number
  }
  const intermediate = hidden * 2
  Object.assign(config, {
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: hidden / 4,
    torch_dtype: "float32",
  })
  writeFileSync(join(folder, "config.json"), JSON.stringify(config, null, 2))
  const shapes: [string, number[]][] = [
    ["model.embed_tokens.weight", [config.vocab_size, hidden]],
    ["model.norm.weight", [hidden]],
  ]
  for (let i = 0; i < layers; i++) {
    const p = `model.layers.${i}`
    shapes.push(
      [`${p}.input_layernorm.weight`, [hidden]],
      [`${p}.post_attention_layernorm.weight`, [hidden]],
      [`${p}.self_attn.q_proj.weight`, [hidden, hidden]],
      [`${p}.self_attn.k_proj.weight`, [hidden / 2, hidden]],
      [`${p}.self_attn.v_proj.weight`, [hidden / 2, hidden]],
      [`${p}.self_attn.o_proj.weight`, [hidden, hidden]],
      [`${p}.mlp.gate_proj.weight`, [intermediate, hidden]],
      [`${p}.mlp.up_proj.weight`, [intermediate, hidden]],
      [`${p}.mlp.down_proj.weight`, [hidden, intermediate]],
    )
  }
  let at = 0
  await writeSafetensors(
    join(folder, "model.safetensors"),
    shapes.map(([name, shape]) => {
      const n = shape.reduce((a, b) => a * b, 1)
      const values = Float32Array.from({ length: n }, (_, i) =>
        shape.length === 1 ? 1 : noise(at + i) * (name.includes("embed") ? 0.5 : 1 / Math.sqrt(shape[1]!)),
      )
      at += n
      return { name, dtype: "F32", shape, bytes: n * 4, data: new Uint8Array(values.buffer) }
    }),
  )
  return folder
}

/** Rows of conversations that a small model learns something from. */
export const smallRows = (count = 12): object[] =>
  Array.from({ length: count }, (_, i) => ({
    messages: [
      { role: "user", content: `What is ${i} + 1?` },
      { role: "assistant", content: `It is ${i + 1}.` },
    ],
  }))
