import type { PromptExample } from "../data/prompts.ts"
import { mean, standardDeviation } from "../internal/math.ts"
import { groupAdvantages } from "./advantages.ts"
import { checkRewards, hasPairJudge, judgesPairsError } from "./group-method.ts"
import { GroupSampler, type SamplingContext, type SamplingMethod } from "./group-sampler.ts"
import { finite, lengths, sampleRecords } from "./rollout-figures.ts"

/** How {@link evaluateSampling} samples. */
export interface EvaluateSamplingOptions {
  /** The method's settings, decoded: sampling, time-outs, weights of rewards. */
  readonly settings: SamplingMethod & { readonly rewardWeights?: readonly number[] }
  /** Name of the method, for messages. */
  readonly method: string
  /** Completions of each prompt. */
  readonly samples: number
  readonly seed: number
}

/** What a model earns on prompts. */
export interface SamplingEvaluation {
  /** Completions, in order of prompt and index, as `samples.jsonl` has them; `step` is 0. */
  readonly records: ReturnType<typeof sampleRecords>
  /**
   * `reward` (mean of the weighted sums), `reward_error` (its standard error over prompts), `reward_std` (over completions), `reward_best` (mean over prompts of the best of each),
   * `rewards/<name>/mean` and `/std`, lengths, `completions/clipped_ratio`.
   */
  readonly metrics: Readonly<Record<string, number>>
}

/**
 * Samples completions of prompts with a model and says what rewards give them, with spread. Nothing is trained; the same seed samples the same.
 * Errors: SLOTH_RL_NO_REWARD, SLOTH_RL_SETTINGS, SLOTH_RL_JUDGE for a judge of pairs, those of rewards and of the engine.
 */
export const evaluateSampling = async (
  examples: readonly PromptExample[],
  context: SamplingContext,
  { settings, method, samples: count, seed }: EvaluateSamplingOptions,
): Promise<SamplingEvaluation> => {
  const { rewards } = context
  const { rewardWeights } = settings
  if (hasPairJudge(rewards))
    throw judgesPairsError(method, "Name a reward with --reward, or llmJudge in a file of rewards.")
  checkRewards({ name: method, ...(rewardWeights === undefined ? {} : { rewardWeights }) }, rewards)
  const weights = rewardWeights ?? rewards.map(({ weight }) => weight ?? 1)
  await using sampler = await GroupSampler.open(
    { ...settings, numGenerations: count },
    examples.map(({ tokens }) => tokens.length),
    context,
  )
  const sampled = await sampler.sample(examples, count, seed, 0)
  const run = await sampler.judge(sampled)
  const { rewards: totals, advantages } = groupAdvantages(
    run.scores,
    examples.map(() => count),
    { scale: "none", aggregation: "sum_then_normalize", weights },
  )
  const known = Array.from(totals).filter((x) => !Number.isNaN(x))
  const groups = examples
    .map((_, g) => Array.from(totals.subarray(g * count, (g + 1) * count)).filter((x) => !Number.isNaN(x)))
    .filter((group) => group.length > 0)
  const means = groups.map((group) => mean(group))
  return {
    records: sampleRecords(0, count, sampled, {
      rewards,
      scores: run.scores,
      totals,
      advantages: Array.from(advantages),
    }),
    metrics: finite({
      ...(known.length === 0
        ? {}
        : {
            reward: mean(known),
            reward_std: standardDeviation(known),
            // Completions of a prompt are alike, so that prompts are what counts as independent.
            reward_error: means.length < 2 ? Number.NaN : standardDeviation(means) / Math.sqrt(means.length),
            reward_best: mean(groups.map((group) => group.reduce((a, b) => Math.max(a, b)))),
          }),
      scored: known.length,
      ...run.metrics,
      ...lengths(sampled),
      "completions/clipped_ratio": mean(
        sampled.map(({ completion }) => (completion.finishReason === "length" ? 1 : 0)),
      ),
    }),
  }
}
