/**
 * How exact the update of a GRPO step is with the prompt shared by its completions and with a copy of it for each: the distance of the gradients of both from those in f64, of a random
 * model small enough for that (30 layers, hidden 96). Prints a line of JSON. Options: --prompt, --group, --completion, --threads.
 */
import { createCpuBackend } from "@sloth/kernels-cpu"
import { CausalLM } from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { sampledUnits } from "@sloth/rl"
import { createReferenceBackend, Engine, ModuleBuilder } from "@sloth/tensor"
import { attachGoldenLora } from "../../tests/support/smollm2.ts"
import { gradientDistance, groupPass, withOldLogprobs } from "../lib/group-pass.ts"
import { number } from "../lib/options.ts"

const VOCAB = 512
const config = llamaFamily.fromHuggingFace({
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
  vocab_size: VOCAB,
  hidden_size: 96,
  intermediate_size: 256,
  num_hidden_layers: 30,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  max_position_embeddings: 8192,
  rope_theta: 100000,
})

/** The same model on any backend: matrices of noise of the size that trained ones have, vectors of ones. */
const build = (engine: Engine): CausalLM => {
  let state = 1
  const uniform = (): number => (state = (state * 48271) % 2147483647) / 2147483647
  const builder = new ModuleBuilder(engine, {
    weight(_name, shape, kind) {
      const n = shape.reduce((a, b) => a * b, 1)
      const spread = Math.sqrt(12 / shape.at(-1)!)
      const values =
        kind === "vector"
          ? new Float32Array(n).fill(1)
          : Float32Array.from({ length: n }, () => (uniform() - 0.5) * spread)
      return engine.keep(engine.from(values, shape))
    },
  })
  const model = new CausalLM(llamaFamily, config, builder)
  attachGoldenLora(model, 0.02)
  return model
}

const tokens = (length: number, seed: number): number[] => Array.from({ length }, (_, t) => (seed + t * 131) % VOCAB)
const prompt = tokens(number("prompt", 64), 100)
const samples = Array.from({ length: number("group", 8) }, (_, k) => ({
  tokens: tokens(number("completion", 16), 7919 * k),
  advantage: Math.sin(k + 1),
}))
const native = build(new Engine(await createCpuBackend({ threads: number("threads", 2) })))
const exact = build(new Engine(createReferenceBackend({ float64: true })))
const budget = prompt.length + samples.reduce((n, s) => n + s.tokens.length, 0)
const first = await groupPass(native, sampledUnits(prompt, samples, 0, budget))
const moved = withOldLogprobs(samples, first.logprobs)
const shared = sampledUnits(prompt, moved, 0, budget)
const apart = moved.flatMap((sample) => sampledUnits(prompt, [sample], 0))
const [a, b, c] = [await groupPass(native, shared), await groupPass(native, apart), await groupPass(exact, apart)]
console.log(
  JSON.stringify({
    sharedFromApart: gradientDistance(a.gradients, b.gradients),
    sharedFromExact: gradientDistance(a.gradients, c.gradients),
    apartFromExact: gradientDistance(b.gradients, c.gradients),
  }),
)
process.exit(0)
