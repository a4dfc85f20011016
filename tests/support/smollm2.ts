import { existsSync } from "node:fs"
import { join } from "node:path"
import { attachLora, openModelFiles, packedContext, type CausalLM, type ModelFiles, type Tokenizer } from "@sloth/model"
import { Generator } from "@sloth/infer"
import { llamaFamily } from "@sloth/model-llama"
import {
  gatherRows,
  linearCrossEntropy,
  linearLogprobs,
  SequenceLayout,
  type ActivationPolicy,
  type Tensor,
} from "@sloth/tensor"
import { floatsOf, goldenDir, goldenJson, relativeError } from "./golden.ts"
import type { Row } from "./tiny.ts"

/** The test model, if it is there. */
export const smollm2Path = [
  process.env["SLOTH_TEST_MODEL_GGUF"],
  join(import.meta.dirname, "../../.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"),
].find((p): p is string => p !== undefined && existsSync(p))

/** Why tests that need it are skipped. */
export const SMOLLM2_ABSENT =
  "SmolLM2-135M-Instruct.Q4_1.gguf is absent (.ci/run brings it; or set SLOTH_TEST_MODEL_GGUF)"

export const openSmollm2 = (): Promise<ModelFiles> => openModelFiles(smollm2Path!, [llamaFamily])

/** The fill formula of the golden files (tests/golden/README.md). */
export const fill = (name: string, n: number, scale: number): Float32Array => {
  let phase = 0
  for (const [k, byte] of new TextEncoder().encode(name).entries()) phase += (k + 1) * byte
  phase %= 9973
  return Float32Array.from({ length: n }, (_, i) => {
    const x = Math.sin((i + 1) * 12.9898 + phase) * 43758.5453
    return scale * (2 * (x - Math.floor(x)) - 1)
  })
}

/** Log-probs of every token after the first. */
export const logprobsOf = async (model: CausalLM, tokens: readonly number[]): Promise<Float32Array> => {
  const { engine } = model
  const lp = engine.noGrad(() =>
    engine.scope(() => {
      const ctx = packedContext(engine, SequenceLayout.fromLengths([tokens.length - 1]))
      const hidden = model.hidden(ctx, engine.from(Int32Array.from(tokens.slice(0, -1))))
      return linearLogprobs(hidden, model.head.weight.tensor, engine.from(Int32Array.from(tokens.slice(1))), model.head)
        .logprobs
    }),
  )
  const out = (await lp.readFloats()).slice()
  lp.dispose()
  return out
}

/** Largest difference of log-probs over the golden texts, in nats. */
export const logprobDifference = async (model: CausalLM, texts = 10): Promise<number> => {
  const golden = goldenJson<{ texts: { tokens: number[]; logprobs: (number | null)[] }[] }>("smollm2", "logprobs.json")
  let largest = 0
  for (const { tokens, logprobs } of golden.texts.slice(0, texts)) {
    const got = await logprobsOf(model, tokens)
    for (const [i, lp] of got.entries()) largest = Math.max(largest, Math.abs(lp - logprobs[i + 1]!))
  }
  return largest
}

/** How many of the golden prompts continue with exactly the golden 64 tokens. */
export const greedyAgreement = async (
  model: CausalLM,
  tokenizer: Tokenizer,
  prompts = 10,
): Promise<{ equal: number; of: number }> => {
  const golden = goldenJson<{ prompts: { tokens: number[]; greedy: number[] }[] }>(
    "smollm2",
    "greedy.json",
  ).prompts.slice(0, prompts)
  using generator = new Generator(model, tokenizer)
  let equal = 0
  for (const { tokens, greedy } of golden) {
    const [c] = await generator.generate([{ prompt: tokens, options: { maxTokens: 64, ignoreEnd: true } }])
    if (c!.tokens.join() === greedy.join()) equal++
  }
  return { equal, of: golden.length }
}

/** Attaches the golden LoRA. */
export const attachGoldenLora = (model: CausalLM, bScale: number): void => {
  attachLora(
    model,
    { rank: 16, alpha: 32, dropout: 0, targets: "all-linear", rankStabilized: false, modulesToSave: [] },
    0,
  )
  for (const { name, tensor } of model.trainables())
    tensor.write(
      name.endsWith("lora_A.weight")
        ? fill(name, tensor.size, 1 / Math.sqrt(tensor.shape[1]!))
        : bScale === 0
          ? new Float32Array(tensor.size)
          : fill(name, tensor.size, bScale),
    )
}

/** Token-mean loss of rows and its gradients, in micro-batches of `perPass` rows. */
export const passes = async (
  model: CausalLM,
  rows: readonly Row[],
  options: { policy?: ActivationPolicy; perPass?: number } = {},
): Promise<number> => {
  const { engine } = model
  const scored = rows.reduce((n, r) => n + r.mask.slice(1).reduce((a, b) => a + b, 0), 0)
  const per = options.perPass ?? rows.length
  let loss = 0
  for (let at = 0; at < rows.length; at += per) {
    const group = rows.slice(at, at + per)
    const picked: number[] = []
    const targets: number[] = []
    let start = 0
    for (const r of group) {
      for (let t = 1; t < r.tokens.length; t++)
        if (r.mask[t] === 1) {
          picked.push(start + t - 1)
          targets.push(r.tokens[t]!)
        }
      start += r.tokens.length
    }
    const nll: Tensor = engine.scope(() => {
      const layout = SequenceLayout.fromLengths(group.map((r) => r.tokens.length))
      const { result, tape } = engine.record(() => {
        const hidden = model.hidden(
          packedContext(engine, layout, { policy: options.policy }),
          engine.from(Int32Array.from(group.flatMap((r) => r.tokens))),
        )
        return linearCrossEntropy(
          gatherRows(hidden, engine.from(Int32Array.from(picked))),
          model.head.weight.tensor,
          engine.from(Int32Array.from(targets)),
          engine.from(new Float32Array(picked.length).fill(1 / scored)),
          model.head,
        )
      })
      tape.backward([{ tensor: result }])
      return result
    })
    for (const v of await nll.readFloats()) loss += v / scored
    nll.dispose()
  }
  return loss
}

/** Worst relative error of the golden LoRA gradients: whole tensors, sampled entries of all, norms of all; and of the loss. */
export const gradientDifference = async (
  model: CausalLM,
  options: { policy?: ActivationPolicy; perPass?: number } = {},
): Promise<{ loss: number; worst: number; tensors: number }> => {
  const golden = goldenJson<{ rows: Row[]; loss: number; full: string[]; tensors: { name: string; norm: number }[] }>(
    "smollm2",
    "lora-grad.json",
  )
  const files = floatsOf(join(goldenDir, "smollm2", "lora-grad.safetensors"))
  const loss = await passes(model, golden.rows, options)
  const byName = new Map(model.trainables().map((t) => [t.name, t.tensor]))
  const samples = files.get("samples")!.values
  let worst = 0
  for (const [i, { name, norm }] of golden.tensors.entries()) {
    const got = await byName.get(name)!.grad!.readFloats()
    worst = Math.max(worst, Math.abs(Math.sqrt(got.reduce((a, v) => a + v * v, 0)) / norm - 1))
    const picked = Float32Array.from({ length: 64 }, (_, k) => got[(k * 2654435761 + 12345) % got.length]!)
    worst = Math.max(worst, relativeError(picked, samples.subarray(i * 64, (i + 1) * 64)))
    if (golden.full.includes(name)) worst = Math.max(worst, relativeError(got, files.get(`grad.${name}`)!.values))
  }
  model.clearGradients()
  return { loss: Math.abs(loss - golden.loss), worst, tensors: golden.tensors.length }
}
