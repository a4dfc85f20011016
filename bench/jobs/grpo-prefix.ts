/**
 * The update of a GRPO step of SmolLM2-135M with the prompt shared by its completions and with a copy of it for each, in turn. Prints a line of JSON. Options: --prompt, --group,
 * --completion, --rounds, --threads.
 */
import { createCpuBackend } from "@sloth/kernels-cpu"
import { policyObjectiveLoss, sampledUnits, type SampledUnit } from "@sloth/rl"
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
const shared = sampledUnits(prompt, samples, 0, budget)
const apart = samples.flatMap((sample) => sampledUnits(prompt, [sample], 0))
const loss = policyObjectiveLoss({ loss: "dapo", beta: 0 })

/** Forward and backward over all units; what it took, the loss and the gradients. */
const pass = async (units: readonly SampledUnit[]) => {
  const started = performance.now()
  let total = 0
  const normaliser = units.reduce((n, unit) => n + unitSize(loss, unit), 0)
  for (const indices of splitUnits(units, { tokenBudget: 2048, packing: true })) {
    const batch = buildMicroBatch(indices.map((i) => units[i]!))
    const { logprobs, tape } = recordedLogprobs(model, batch, { policy: "keep" })
    const result = loss.compute({
      units: batch.units,
      starts: batch.starts,
      indices,
      logprobs: await logprobs.readFloats(),
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
  return { seconds, loss: total, gradients }
}

await pass(shared)
const times: { shared: number[]; apart: number[] } = { shared: [], apart: [] }
let [lossDifference, gradientDifference] = [0, 0]
for (let round = 0; round < rounds; round++) {
  const [a, b] = [await pass(shared), await pass(apart)]
  times.shared.push(a.seconds)
  times.apart.push(b.seconds)
  lossDifference = Math.max(lossDifference, Math.abs(a.loss - b.loss))
  let [difference, norm] = [0, 0]
  for (const [i, gradient] of a.gradients.entries())
    for (let j = 0; j < gradient.length; j++) {
      difference += (gradient[j]! - b.gradients[i]![j]!) ** 2
      norm += b.gradients[i]![j]! ** 2
    }
  gradientDifference = Math.max(gradientDifference, Math.sqrt(difference / norm))
}
console.log(JSON.stringify({ ...times, lossDifference, gradientDifference }))
process.exit(0)
