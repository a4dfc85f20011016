import { policyObjectiveLoss, type SampledCompletion, type SampledUnit } from "@sloth/rl"
import type { CausalLM } from "@sloth/model"
import { buildMicroBatch, recordedLogprobs, splitUnits, unitSize } from "@sloth/train"

const loss = policyObjectiveLoss({ loss: "dapo", beta: 0 })

/** Forward and backward of a policy loss over all units; what it took, the loss, the gradients in the order of the model's trainables, and log-probs a completion. */
export const groupPass = async (model: CausalLM, units: readonly SampledUnit[]) => {
  const { engine } = model
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

/** Old log-probs near those of the model, so that the loss is one of ratios: without them it would not depend on what is computed. */
export const withOldLogprobs = (
  samples: readonly SampledCompletion[],
  logprobs: readonly Float64Array[],
): SampledCompletion[] =>
  samples.map((sample, k) => ({
    ...sample,
    old: logprobs[k]!.map((logprob, t) => logprob + 0.3 * Math.sin(t * 1.7 + k * 0.9)),
  }))

/** How far gradients are from others: of all tensors together, and of the worst one, as parts of the others' norm. */
export const gradientDistance = (
  gradients: readonly Float32Array[],
  others: readonly Float32Array[],
): { all: number; worst: number } => {
  let worst = 0
  const all = { difference: 0, norm: 0 }
  for (const [i, gradient] of gradients.entries()) {
    let [difference, norm] = [0, 0]
    for (let j = 0; j < gradient.length; j++) {
      difference += (gradient[j]! - others[i]![j]!) ** 2
      norm += others[i]![j]! ** 2
    }
    worst = Math.max(worst, Math.sqrt(difference / norm))
    all.difference += difference
    all.norm += norm
  }
  return { all: Math.sqrt(all.difference / all.norm), worst }
}
