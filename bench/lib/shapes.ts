import { CausalLM, type ModelFiles } from "@sloth/model"
import { llamaFamily, type LlamaConfig } from "@sloth/model-llama"
import { bytesFor, ModuleBuilder, weightFormat, type Engine, type WeightProvider } from "@sloth/tensor"
import { openSmollm2, smollm2Path } from "../../tests/support/smollm2.ts"

/** A model whose shape is measured. */
export interface ShapeName {
  readonly name: string
  readonly config: Readonly<Record<string, unknown>>
}

const llama = (name: string, c: Record<string, unknown>): ShapeName => ({
  name,
  config: {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
    ...c,
  },
})

/** The shapes that are measured. Source: the config.json of each model; Qwen2.5's projection biases are left out. */
export const SHAPES = {
  "smollm2-135m": llama("SmolLM2-135M", {
    vocab_size: 49152,
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    max_position_embeddings: 8192,
    rope_theta: 100000,
  }),
  "qwen2.5-0.5b": llama("Qwen2.5-0.5B", {
    vocab_size: 151936,
    hidden_size: 896,
    intermediate_size: 4864,
    num_hidden_layers: 24,
    num_attention_heads: 14,
    num_key_value_heads: 2,
    max_position_embeddings: 32768,
    rope_theta: 1000000,
  }),
  "llama-3.2-1b": llama("Llama-3.2-1B", {
    vocab_size: 128256,
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 16,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 64,
    max_position_embeddings: 131072,
    rope_theta: 500000,
  }),
} as const satisfies Readonly<Record<string, ShapeName>>

export type ShapeId = keyof typeof SHAPES

/** A weight matrix of a model: rows times columns, and how often a layer has it. */
export interface MatrixShape {
  readonly part: string
  readonly out: number
  readonly inner: number
}

/** The distinct matrices of a layer. */
export const matricesOf = (id: ShapeId): MatrixShape[] => {
  const c = llamaFamily.fromHuggingFace(SHAPES[id].config)
  const q = c.heads * c.headDim
  const kv = c.kvHeads * c.headDim
  return [
    { part: "q,o", out: q, inner: c.hidden },
    { part: "k,v", out: kv, inner: c.hidden },
    { part: "gate,up", out: c.intermediate, inner: c.hidden },
    { part: "down", out: c.hidden, inner: c.intermediate },
  ]
}

/** Weights of a format filled with reproducible noise of the size that trained weights have; vectors are ones. */
const noise = (engine: Engine, formatId: string): WeightProvider => ({
  weight(_name, shape, kind) {
    const n = shape.reduce((a, b) => a * b, 1)
    if (kind === "vector") {
      const ones = engine.keep(engine.empty(shape))
      engine.backend.kernels.fill(ones.handle, 1, n)
      return ones
    }
    const format = weightFormat(formatId)
    const cols = shape.at(-1)!
    const std = 1 / Math.sqrt(cols)
    const t = engine.unscoped(shape, formatId)
    // Quantised row group by row group, so that no f32 copy of the matrix exists.
    const rows = Math.max(1, Math.min(n / cols, Math.floor((1 << 22) / cols)))
    const { kernels, memory } = engine.backend
    const group = engine.unscoped([rows, cols])
    kernels.randomNormal(group.handle, 0, std, rows * cols, 7, cols)
    for (let row = 0; row < n / cols; row += rows) {
      const count = Math.min(rows, n / cols - row)
      const view = memory.view(t.handle, bytesFor(format, row * cols), bytesFor(format, count * cols))
      kernels.quantize(view, group.handle, format.code, count, cols)
      memory.free(view)
    }
    group.dispose()
    return t
  },
})

/** A model of a shape with random weights in a format. */
export const randomModel = (engine: Engine, id: ShapeId, format: string): CausalLM<LlamaConfig> =>
  new CausalLM(
    llamaFamily,
    llamaFamily.fromHuggingFace(SHAPES[id].config),
    new ModuleBuilder(engine, noise(engine, format)),
  )

/** SmolLM2's file where it is present, otherwise its shape with random weights. */
export const smollm2 = async (engine: Engine): Promise<{ model: CausalLM; files: ModelFiles | undefined }> => {
  if (smollm2Path === undefined) return { model: randomModel(engine, "smollm2-135m", "q4_1"), files: undefined }
  const files = await openSmollm2()
  return { model: files.build(engine), files }
}
