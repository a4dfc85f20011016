/**
 * The update of a GRPO step of SmolLM2-135M with the prompt shared by its completions and with a copy of it for each, in turn. Prints a line of JSON. Options: --prompt, --group,
 * --completion, --rounds, --threads.
 */
import { createCpuBackend } from "@sloth/kernels-cpu"
import { policyObjectiveLoss, sampledUnits, type SampledCompletion, type SampledUnit } from "@sloth/rl"
import { Engine } from "@sloth/tensor"
import { buildMicroBatch, recordedLogprobs, splitUnits, unitSize } from "@sloth/train"
import { attachGoldenLora } from "../../tests/support/smollm2.ts"
import { number } from "../lib/options.ts"
import { smollm2 } from "../lib/shapes.ts"

const prompt = Array.from({ length: number("prompt", 512) }, (_, t) => 100 + ((t * 131) % 40000))
const group = number("group", 8)
const length = number("completion", 128)
const rounds = number("rounds", 2)
const engine = new Engine(await createCpuBackend({ threads: number("threads", 2) }))
const { model } = await smollm2(engine)
attachGoldenLora(model, 0.02)
const samples = Array.from({ length: group }, (_, k) => ({
  tokens: Array.from({ length }, (_, t) => 100 + ((k * 7919 + t * 977) % 40000)),
  advantage: Math.sin(k + 1),
}))
const budget = prompt.length + group * length
const together = (all: readonly SampledCompletion[]): SampledUnit[] => sampledUnits(prompt, all, 0, budget)
const loss = policyObjectiveLoss({ loss: "dapo", beta: 0 })

/** Forward and backward over all units; what it took, the loss and the gradients. */
const pass = async (units: readonly SampledUnit[]) => {
  const started = performance.now()
  let total = 0
  const found: Float64Array[] = []
  const normaliser = units.reduce((n, unit) => n + unitSize(loss, unit), 0)
  for (const indices of splitUnits(units, { tokenBudget: 2048, packing: true })) {
    const batch = buildMicroBatch(indices.map((i) => units[i]!))
    const { logprobs, tape } = recordedLogprobs(model, batch, { policy: "keep" })
    const values = await logprobs.readFloats()
    for (const [u, { completions }] of batch.units.entries())
      for (const positions of completions)
        found.push(Float64Array.from(positions, (position) => values[batch.starts[u]! + position]!))
    const result = loss.compute({
      units: batch.units,
      starts: batch.starts,
      indices,
      logprobs: values,
      reference: undefined,
      entropy: undefined,
      normaliser,
      step: 1,
    })
    total += result.loss
    engine.scope(() => tape.backward([{ tensor: logprobs, gradient: engine.from(Float32Array.from(result.dlogp)) }]))
    tape.dispose()
    logprobs.dispose()
  }
  await engine.backend.synchronize()
  const seconds = (performance.now() - started) / 1000
  const gradients: Float32Array[] = []
  for (const { tensor } of model.trainables()) gradients.push(await tensor.grad!.readFloats())
  model.clearGradients()
  return { seconds, loss: total, gradients, logprobs: found }
}

// Old log-probs near those of the model, so that the loss is one of ratios: without them it would not depend on what is computed.
const first = await pass(together(samples))
const moved = samples.map((sample, k) => ({
  ...sample,
  old: first.logprobs[k]!.map((logprob, t) => logprob + 0.3 * Math.sin(t * 1.7 + k * 0.9)),
}))
const shared = together(moved)
const apart = moved.flatMap((sample) => sampledUnits(prompt, [sample], 0))
const times: { shared: number[]; apart: number[] } = { shared: [], apart: [] }
let [lossDifference, gradientDifference, worstTensor] = [0, 0, 0]
for (let round = 0; round < rounds; round++) {
  const [a, b] = [await pass(shared), await pass(apart)]
  times.shared.push(a.seconds)
  times.apart.push(b.seconds)
  lossDifference = Math.max(lossDifference, Math.abs(a.loss - b.loss))
  const all = { difference: 0, norm: 0 }
  for (const [i, gradient] of a.gradients.entries()) {
    let [difference, norm] = [0, 0]
    for (let j = 0; j < gradient.length; j++) {
      difference += (gradient[j]! - b.gradients[i]![j]!) ** 2
      norm += b.gradients[i]![j]! ** 2
    }
    worstTensor = Math.max(worstTensor, Math.sqrt(difference / norm))
    all.difference += difference
    all.norm += norm
  }
  gradientDifference = Math.max(gradientDifference, Math.sqrt(all.difference / all.norm))
}
console.log(JSON.stringify({ ...times, lossDifference, gradientDifference, worstTensor }))
process.exit(0)
