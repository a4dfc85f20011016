import { join } from "node:path"
import type { CausalLM } from "@sloth/model"
import { groupAdvantages, policyObjectiveLoss, sampledUnits, type PolicyObjectiveSettings } from "@sloth/rl"
import { buildMicroBatch, readLogprobs, recordedLogprobs, unitSize } from "@sloth/train"
import { floatsOf, goldenDir, goldenJson, relativeError } from "./golden.ts"

interface Trl {
  readonly loss_type: PolicyObjectiveSettings["loss"]
  readonly importance_sampling_level?: "token" | "sequence"
  readonly scale_rewards?: "none"
  readonly beta?: number
  readonly epsilon_high?: number
  readonly delta?: number
  readonly temperature?: number
  readonly entropy_coef?: number
  readonly top_entropy_quantile?: number
}

interface Case {
  readonly trl: Trl
  /** How far old log-probs were moved away from the policy's. */
  readonly shift: number
  readonly advantages: readonly number[]
  readonly loss: number
  readonly logprobs: readonly (readonly number[])[]
  readonly norms: Readonly<Record<string, number>>
}

interface Golden {
  readonly rows: readonly { readonly prompt: number[]; readonly completion: number[]; readonly want: number }[]
  readonly group: number
  readonly maxCompletionLength: number
  readonly [name: `case:${string}`]: Case
}

/** Rewards as the script has them: the share of even tokens, and half of minus the length by ten, which has nothing to say on the first prompt. */
const rewardsOf = ({ rows }: Golden): (number | null)[][] => [
  rows.map(({ completion }) => completion.filter((id) => id % 2 === 0).length / completion.length),
  rows.map(({ completion, want }) => (want === 0 ? null : -completion.length / 10)),
]

/** Entries of a tensor's gradient that the golden file of a large model keeps. */
const SAMPLES = 64

/** What a step differs by from TRL's. */
export interface GrpoDifference {
  readonly name: string
  /** Largest difference of an advantage. */
  readonly advantages: number
  /** Relative to the loss, or to 1 where that is larger. */
  readonly loss: number
  readonly logprobs: number
  /** Worst relative error of the gradient of a LoRA tensor. */
  readonly gradient: number
  readonly tensors: number
}

/** Makes the steps of the golden file of a model, in `folder`, over the same completions. */
export const grpoDifferences = async (
  model: CausalLM,
  folder: "tiny" | "smollm2" = "tiny",
): Promise<GrpoDifference[]> => {
  const golden = goldenJson<Golden>(folder, "grpo.json")
  const tensors = floatsOf(join(goldenDir, folder, "grpo.safetensors"))
  const { engine } = model
  const out: GrpoDifference[] = []
  // TRL mixes the completions of all prompts; groups stand together here.
  const prompts = [...new Set(golden.rows.map(({ prompt }) => prompt.join()))]
  const order = prompts.flatMap((key) => golden.rows.flatMap(({ prompt }, i) => (prompt.join() === key ? [i] : [])))
  for (const key of Object.keys(golden).filter((name) => name.startsWith("case:"))) {
    const name = key.slice("case:".length)
    const { trl, shift, ...wanted } = golden[key as `case:${string}`]!
    const scores = rewardsOf(golden).map((column) => order.map((i) => column[i]!))
    const { advantages } = groupAdvantages(
      scores,
      prompts.map(() => golden.group),
      { scale: trl.scale_rewards ?? "group", aggregation: "sum_then_normalize", weights: [1, 0.5] },
    )
    const loss = policyObjectiveLoss({
      loss: trl.loss_type,
      importance: trl.importance_sampling_level ?? "token",
      epsilonHigh: trl.epsilon_high ?? 0.2,
      ...(trl.delta === undefined ? {} : { delta: trl.delta }),
      beta: trl.beta ?? 0,
      maxCompletionLength: golden.maxCompletionLength,
      entropyCoef: trl.entropy_coef ?? 0,
      topEntropy: trl.top_entropy_quantile ?? 1,
      ...(trl.temperature === undefined ? {} : { temperature: trl.temperature }),
    })
    const units = prompts.flatMap((_, p) =>
      sampledUnits(
        golden.rows[order[p * golden.group]!]!.prompt,
        order.slice(p * golden.group, (p + 1) * golden.group).map((i, k) => ({
          tokens: golden.rows[i]!.completion,
          advantage: advantages[p * golden.group + k]!,
          ...(shift === 0
            ? {}
            : {
                old: Float64Array.from(
                  wanted.logprobs[i]!,
                  (logprob, t) => logprob + shift * Math.sin(t * 1.7 + i * 0.9),
                ),
              }),
        })),
        p,
      ),
    )
    const batch = buildMicroBatch(units)
    const temperature = trl.temperature === undefined ? {} : { temperature: trl.temperature }
    const reference =
      loss.reference === true
        ? (await readLogprobs(model, batch, { adapters: false, ...temperature })).logprobs
        : undefined
    const { logprobs, entropy, tape } = recordedLogprobs(model, batch, {
      policy: "keep",
      entropy: true,
      ...temperature,
    })
    const values = await logprobs.readFloats()
    const result = loss.compute({
      units,
      starts: batch.starts,
      indices: units.map((_, i) => i),
      logprobs: values,
      reference,
      entropy: await entropy!.readFloats(),
      normaliser: units.reduce((n, unit) => n + unitSize(loss, unit), 0),
      step: 1,
    })
    const { dentropy } = result
    engine.scope(() =>
      tape.backward([
        { tensor: logprobs, gradient: engine.from(Float32Array.from(result.dlogp)) },
        ...(dentropy === undefined ? [] : [{ tensor: entropy!, gradient: engine.from(Float32Array.from(dentropy)) }]),
      ]),
    )
    tape.dispose()
    logprobs.dispose()
    entropy!.dispose()
    let gradient = 0
    const found = model.trainables()
    // The whole of a tensor, or samples of it, and its norm.
    const samples = tensors.get(`${name}.samples`)?.values
    const places = new Map(Object.keys(wanted.norms).map((tensor, i) => [tensor, i]))
    for (const { name: tensor, tensor: parameter } of found) {
      const got = await parameter.grad!.readFloats()
      const norm = Math.sqrt(got.reduce((n, x) => n + x * x, 0))
      gradient = Math.max(gradient, Math.abs(norm / wanted.norms[tensor]! - 1))
      const whole = tensors.get(`${name}.${tensor}`)?.values
      if (whole !== undefined) gradient = Math.max(gradient, relativeError(got, whole))
      if (samples === undefined) continue
      const at = places.get(tensor)! * SAMPLES
      const picked = Float32Array.from({ length: SAMPLES }, (_, k) => got[(k * 2654435761 + 12345) % got.length]!)
      gradient = Math.max(gradient, relativeError(picked, samples.subarray(at, at + SAMPLES)))
    }
    model.clearGradients()
    let worst = 0
    let at = 0
    for (const [u, unit] of units.entries())
      for (const positions of unit.completions) {
        const row = wanted.logprobs[order[at++]!]!
        for (const [t, position] of positions.entries())
          worst = Math.max(worst, Math.abs(values[batch.starts[u]! + position]! - row[t]!))
      }
    out.push({
      name,
      advantages: Math.max(...order.map((i, k) => Math.abs(advantages[k]! - wanted.advantages[i]!))),
      loss: Math.abs(result.loss - wanted.loss) / Math.max(1, Math.abs(wanted.loss)),
      logprobs: worst,
      gradient,
      tensors: found.length,
    })
  }
  return out
}
