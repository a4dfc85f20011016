import { SlothError, type Reward } from "@sloth/core"
import type { KvCacheFormat } from "@sloth/infer"
import type { Reuse } from "@sloth/train"
import type { Advantages } from "./advantages.ts"

/** What the source of sampled groups has to know of its method. */
export interface GroupMethod {
  readonly name: string
  readonly numGenerations: number
  readonly maxCompletionLength: number
  readonly temperature: number
  readonly topP: number
  readonly topK: number
  readonly minP: number
  readonly repetitionPenalty: number
  readonly stop: readonly string[]
  readonly rolloutBatch: number
  readonly kvCache: KvCacheFormat
  readonly rewardWeights?: readonly number[]
  readonly onRewardError: "stop" | "null"
  readonly rewardTimeout: number
  readonly maskTruncated: boolean
  /** Rounds of other prompts in place of groups that teach nothing. */
  readonly dynamicSampling: number
  /** Most optimizer steps by which the weights that sample a rollout may be behind those that begin to train on it; a rollout is made when it is needed when absent. */
  readonly maxStaleness?: number
  /** Groups of earlier rollouts that are kept to take the place of those that teach nothing; none when absent. */
  readonly replayBuffer?: number
  /** True for methods that compare the completions of a prompt with each other: they are never cut apart. */
  readonly together?: boolean
  /** Who says the second completion of each pair: the reference, or its geometric mixture with the policy (its share in the logits); the policy, as all others, when absent. */
  readonly opponent?: "reference" | { readonly mixture: number }
  readonly reuse: Reuse
  /** True where advantages need each token's KL divergence from the reference. */
  readonly needsKl: boolean
  /** True where advantages need what a critic says of every token. */
  readonly needsValues?: boolean
  /** Advantages of a rollout: one a completion, or one a token. `kl` has old - reference of every token, where it is needed. */
  advantages(
    scores: readonly (readonly (number | null)[])[],
    weights: readonly number[],
    groupSizes: readonly number[],
    lengths: readonly number[],
    kl: readonly Float64Array[] | undefined,
    sampled: SampledFacts,
  ): Omit<Advantages, "advantages"> & {
    readonly advantages: readonly (number | Float64Array)[]
    /** What a critic should have said of every token, where there is one. */
    readonly returns?: readonly Float64Array[]
  }
}

/** What is known of completions besides their rewards. */
export interface SampledFacts {
  /** 0 for tokens that do not count; all count when absent. */
  readonly masks: readonly (Uint8Array | undefined)[]
  readonly finish: readonly string[]
  /** What the critic says before every token, where there is one. */
  readonly values: readonly Float64Array[] | undefined
  /** True where scores are a judge's preferences between the two completions of each prompt. */
  readonly judged?: boolean
}

/** True where a judge of pairs stands in the place of rewards. */
export const hasPairJudge = (rewards: readonly Reward[]): boolean => rewards.some(({ pairs }) => pairs === true)

/** Why what samples for an evaluation takes no judge of pairs. `next` says what to do instead. */
export const judgesPairsError = (method: string, next: string): SlothError =>
  new SlothError("SLOTH_RL_JUDGE", {
    what: "Evaluation scores the completions of a prompt one by one, and a judge of pairs only says which of two is the better one.",
    next,
    fields: { method },
  })

/** Optimizer steps that a rollout of the method feeds. */
export const stepsOf = ({ reuse: { slices, times } }: Pick<GroupMethod, "reuse">): number => slices * times

/** Checks that there are rewards, and a weight for each. Errors: SLOTH_RL_NO_REWARD, SLOTH_RL_SETTINGS, SLOTH_RL_JUDGE, SLOTH_REWARD_NAMES. */
export const checkRewards = (
  method: Pick<GroupMethod, "name" | "rewardWeights"> & {
    /** True for methods that compare two completions of each prompt. */
    readonly pairs?: boolean
    readonly missingEndPenalty?: number
  },
  rewards: readonly Reward[],
): void => {
  const judge = rewards.find(({ pairs }) => pairs === true)
  if (judge !== undefined) {
    const { pairs = false, missingEndPenalty = 0, rewardWeights } = method
    const wrong = !pairs
      ? `the method "${method.name}" learns from scores`
      : rewards.length > 1
        ? "it stands alone, and there are other rewards"
        : (rewardWeights ?? [judge.weight ?? 1]).some((weight) => weight !== 1)
          ? "a preference has no weight"
          : missingEndPenalty !== 0
            ? "missingEndPenalty is taken off rewards, and a judge gives none"
            : undefined
    if (wrong !== undefined)
      throw new SlothError("SLOTH_RL_JUDGE", {
        what: `The judge "${judge.name}" says which of two completions is the better one: ${wrong}.`,
        next: pairs
          ? "Leave one of the two out; nash_md and xpo have `beta` for how strongly a preference counts."
          : "Take a method of pairs (online_dpo, xpo, nash_md), or a judge that scores one completion: llmJudge.",
        fields: { judge: judge.name, method: method.name },
      })
  }
  if (rewards.length === 0)
    throw new SlothError("SLOTH_RL_NO_REWARD", {
      what: `The method "${method.name}" has no reward to learn from.`,
      next: "Name one or more with --reward (a file, or a name of the library), or rewards: [...] in code.",
    })
  const names = rewards.map(({ name }) => name)
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined)
    throw new SlothError("SLOTH_REWARD_NAMES", {
      what: `Two rewards are named "${twice}".`,
      next: "Give each its own name: their figures are told apart by it.",
      fields: { names },
    })
  if (method.rewardWeights !== undefined && method.rewardWeights.length !== rewards.length)
    throw new SlothError("SLOTH_RL_SETTINGS", {
      what: `There are ${rewards.length} rewards and ${method.rewardWeights.length} rewardWeights.`,
      next: "Give one weight a reward, in order.",
      fields: { rewards: rewards.map(({ name }) => name), weights: method.rewardWeights },
    })
}
