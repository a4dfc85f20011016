import type { KnownPrefix } from "@sloth/infer"
import {
  buildMicroBatch,
  hostOutputs,
  readReferenceLogprobs,
  splitUnits,
  type MicroBatch,
  type SourceContext,
} from "@sloth/train"
import type { PromptExample } from "../data/prompts.ts"
import { mean } from "../internal/math.ts"
import { pick } from "../preference/completions-unit.ts"
import { hasPairJudge, stepsOf, type GroupMethod } from "./group-method.ts"
import type { Sampled } from "./group-sampler.ts"
import { maskedCount } from "./importance.ts"
import { sampledUnits, type SampledCompletion, type SampledUnit } from "./sampled-unit.ts"
import type { SampledGroup, StoredRollout } from "./stored-rollout.ts"

/** Tokens that groups are cut to. */
export const budgetOf = ({ together }: Pick<GroupMethod, "together">, { split }: SourceContext): number =>
  together === true ? Number.POSITIVE_INFINITY : split.tokenBudget

/** The units of groups, cut to the run's token budget, with what is known of the groups' prompts. */
export const unitsOf = (
  groups: readonly SampledGroup[],
  stepTokens: number,
  tokenBudget: number,
  kept: ReadonlyMap<number, KnownPrefix> = new Map(),
): SampledUnit[] =>
  groups.flatMap(({ row, prompt, samples }, g) => {
    const prefix = kept.get(g)
    const known = prefix === undefined ? {} : { prefix }
    return sampledUnits(prompt, samples, row, tokenBudget).map((unit) => ({ ...unit, stepTokens, ...known }))
  })

/** Log-probs (and what else is read) of every completion of units, by the passes that training them makes: where nothing has changed since, the ratio is exactly 1. */
const outputsOf = async (
  units: readonly SampledUnit[],
  { split, signal }: SourceContext,
  kinds: number,
  read: (batch: MicroBatch) => Promise<readonly Float32Array[]>,
): Promise<Float64Array[][]> => {
  const found = new Map<SampledUnit, Float64Array[][]>()
  for (const indices of splitUnits(units, split)) {
    signal?.throwIfAborted()
    const batch = buildMicroBatch(indices.map((i) => units[i]!))
    const outputs = await read(batch)
    for (const [u, unit] of batch.units.entries())
      found.set(
        unit,
        outputs.map((values) => unit.completions.map((positions) => pick(values, batch.starts[u]!, positions))),
      )
  }
  return Array.from({ length: kinds }, (_, k) => units.flatMap((unit) => found.get(unit)![k]!))
}

/** Advantages and masks of a rollout, and the log-probs that its updates compare with: those of the weights as they are now. */
export const advanceRollout = async (
  step: number,
  slices: readonly (readonly PromptExample[])[],
  sampled: readonly Sampled[],
  scores: readonly (readonly (number | null)[])[],
  weights: readonly number[],
  method: GroupMethod,
  context: SourceContext,
) => {
  const {
    maskTruncated,
    numGenerations: count,
    reuse,
    needsKl,
    needsValues = false,
    temperature,
    replayBuffer = 0,
  } = method
  const plain = sampled.map(({ completion: { tokens, finishReason, logprobs, mask } }): SampledCompletion => ({
    tokens,
    advantage: 0,
    // Engines give log-probs before the temperature; with another temperature they are of another distribution.
    ...(temperature === 1 && logprobs.length === tokens.length ? { sampling: Float64Array.from(logprobs) } : {}),
    ...(mask === undefined ? {} : { mask }),
    ...(maskTruncated && finishReason === "length" ? { mask: new Uint8Array(tokens.length) } : {}),
  }))
  const group = (g: number, samples: readonly SampledCompletion[]): SampledGroup => {
    const { row, tokens } = sampled[g * count]!.example
    return { row, prompt: tokens, samples: samples.slice(g * count, (g + 1) * count) }
  }
  let at = 0
  const numbers = slices.map((examples) => examples.map(() => at++))
  const old: (Float64Array | undefined)[] = sampled.map(() => undefined)
  const kl: Float64Array[] = []
  const values: Float64Array[] = []
  // In the first and only update the policy is the one that is compared with: its ratio is 1 without having been computed. Groups that are kept meet later policies.
  if (stepsOf(method) > 1 || needsKl || needsValues || replayBuffer > 0)
    for (const groups of numbers) {
      const units = unitsOf(
        groups.map((g) => group(g, plain)),
        1,
        budgetOf(method, context),
      )
      const [policy, critic] = await outputsOf(units, context, 2, async (batch) => {
        const { logprobs, values: said } = await hostOutputs(
          context.model,
          batch,
          { values: needsValues },
          { temperature },
        )
        return [logprobs!, said ?? logprobs!]
      })
      const reference = needsKl
        ? await outputsOf(units, context, 1, async (batch) => [
            await readReferenceLogprobs(context.model, batch, context.reference, { temperature }),
          ])
        : undefined
      const start = (groups[0] ?? 0) * count
      for (const [i, logprobs] of policy!.entries()) {
        old[start + i] = logprobs
        if (needsValues) values[start + i] = critic![i]!
        if (reference !== undefined) kl[start + i] = logprobs.map((x, t) => x - reference[0]![i]![t]!)
      }
    }
  const result = method.advantages(
    scores,
    weights,
    Array.from({ length: sampled.length / count }, () => count),
    plain.map(({ tokens }) => tokens.length),
    needsKl ? kl : undefined,
    {
      masks: plain.map(({ mask }) => mask),
      finish: sampled.map(({ completion }) => completion.finishReason),
      values: needsValues ? values : undefined,
      judged: hasPairJudge(context.rewards),
    },
  )
  const samples = plain.map((sample, i): SampledCompletion => ({
    ...sample,
    advantage: result.advantages[i]!,
    ...(old[i] === undefined ? {} : { old: old[i] }),
    ...(result.returns === undefined ? {} : { value: values[i]!, returns: result.returns[i]! }),
  }))
  const tokens = samples.reduce((n, { mask, tokens: { length } }) => n + maskedCount(mask, length), 0)
  const rollout: StoredRollout = {
    step,
    slices: numbers.map((groups) => groups.map((g) => group(g, samples))),
    stepTokens: tokens / reuse.slices,
  }
  const meanKl: Record<string, number> = needsKl ? { kl: mean(kl.map((values) => mean(values))) } : {}
  return { ...result, metrics: { ...result.metrics, ...meanKl }, rollout }
}
