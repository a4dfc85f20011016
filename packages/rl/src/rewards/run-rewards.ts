import { isSlothError, SlothError, type Reward, type RewardSample } from "@sloth/core"
import { LimitedCode } from "../internal/limited-code.ts"
import { mean, standardDeviation } from "../internal/math.ts"
import type { DefinedReward } from "./define-reward.ts"

/** Options of {@link runRewards}. */
export interface RunRewardsOptions {
  /** What a reward that fails does: end the step (the default), or count as null, noted among the problems. */
  readonly onError?: "throw" | "null"
  /** Longest time for a reward to score a batch; 60 when absent. A function that computes longer without a pause is interrupted; see `endStuckProcess` for what cannot be. */
  readonly timeoutSeconds?: number
  /** How many times that long the thread may stand still between calls before `endStuckProcess` acts; 1 when absent. More where other work shares the thread, such as training. */
  readonly patience?: number
  readonly signal?: AbortSignal
}

/** Something a reward did wrong. */
export interface RewardProblem {
  readonly reward: string
  readonly error: SlothError
  /** Completions that have no score because of it. */
  readonly samples: readonly number[]
}

/** Scores of all rewards. */
export interface RewardRun {
  /** One list a reward, in order: one score a completion, null where there is none. */
  readonly scores: readonly (readonly (number | null)[])[]
  /** `rewards/<name>/mean` and `/std` over completions with a score, and what rewards noted, as `rewards/<name>/<figure>`. */
  readonly metrics: Readonly<Record<string, number>>
  readonly problems: readonly RewardProblem[]
  /** Seconds each reward took, in order. */
  readonly seconds: readonly number[]
}

/**
 * Scores completions with all rewards: those that are not async one after the other, the others at the same time.
 * Errors, unless `onError` is "null": SLOTH_REWARD_THREW, SLOTH_REWARD_LENGTH, SLOTH_REWARD_NOT_A_NUMBER, SLOTH_REWARD_TIMEOUT; SLOTH_REWARD_NAMES always.
 */
export const runRewards = async (
  rewards: readonly Reward[],
  samples: readonly RewardSample[],
  options: RunRewardsOptions = {},
): Promise<RewardRun> => {
  const { onError = "throw", timeoutSeconds = 60, patience = 1, signal } = options
  const names = rewards.map((reward) => reward.name)
  const twice = names.find((name, i) => names.indexOf(name) !== i)
  if (twice !== undefined)
    throw new SlothError("SLOTH_REWARD_NAMES", {
      what: `Two rewards are named "${twice}".`,
      next: "Give each its own name: their figures are told apart by it.",
      fields: { names },
    })
  signal?.throwIfAborted()
  const problems: RewardProblem[] = []
  const noted = new Map<string, number[]>()
  const stop = new AbortController()
  const abort = (): void => stop.abort(signal?.reason)
  signal?.addEventListener("abort", abort, { once: true })
  try {
    const runs = rewards.map((reward) => scoreOne(reward, samples, { timeoutSeconds, patience }, stop.signal, noted))
    const done = await Promise.all(
      runs.map(async (run, k) => {
        const { scores, seconds, problem } = await run
        if (problem !== undefined) {
          signal?.throwIfAborted()
          if (onError === "throw") throw problem.error
          problems.push({ ...problem, reward: names[k]! })
        }
        return { scores, seconds }
      }),
    )
    const metrics: Record<string, number> = {}
    for (const [k, { scores }] of done.entries()) {
      const values = scores.filter((score) => score !== null)
      if (values.length === 0) continue
      metrics[`rewards/${names[k]}/mean`] = mean(values)
      metrics[`rewards/${names[k]}/std`] = values.length < 2 ? 0 : standardDeviation(values)
    }
    for (const [name, values] of noted) metrics[name] = mean(values)
    return { scores: done.map((d) => d.scores), seconds: done.map((d) => d.seconds), metrics, problems }
  } finally {
    signal?.removeEventListener("abort", abort)
    // Whatever still runs need not.
    stop.abort()
  }
}

interface Scored {
  readonly scores: readonly (number | null)[]
  readonly seconds: number
  readonly problem?: Omit<RewardProblem, "reward">
}

/** Starts one reward at once, so that those that are not async run in order. */
const scoreOne = (
  reward: Reward,
  samples: readonly RewardSample[],
  limits: { readonly timeoutSeconds: number; readonly patience: number },
  signal: AbortSignal,
  noted: Map<string, number[]>,
): Promise<Scored> => {
  const started = performance.now()
  const elapsed = (): number => (performance.now() - started) / 1000
  const all = samples.map((_, i) => i)
  const failed = (error: SlothError): Scored => ({
    scores: samples.map(() => null),
    seconds: elapsed(),
    problem: { error, samples: all },
  })
  const own = new AbortController()
  const forward = (): void => own.abort(signal.reason)
  signal.addEventListener("abort", forward, { once: true })
  const context = {
    signal: own.signal,
    metric: (name: string, value: number): void => {
      if (own.signal.aborted || !Number.isFinite(value)) return
      const key = `rewards/${reward.name}/${name}`
      noted.set(key, [...(noted.get(key) ?? []), value])
    },
  }
  const stopped = new Promise<never>((_, reject) =>
    own.signal.addEventListener("abort", () => signal.aborted && reject(signal.reason), { once: true }),
  )
  stopped.catch(() => undefined)
  const late = (): SlothError =>
    new SlothError("SLOTH_REWARD_TIMEOUT", {
      what: `The reward "${reward.name}" has not scored ${samples.length} completions in ${limits.timeoutSeconds} s.`,
      next: "Make it faster, raise the limit, or let failing rewards count as null.",
      fields: { reward: reward.name, timeoutSeconds: limits.timeoutSeconds },
    })
  const code = new LimitedCode({
    what: `reward "${reward.name}"`,
    seconds: limits.timeoutSeconds,
    late,
    patience: limits.patience,
  })
  const wrong = (cause: unknown): Scored => {
    if (isSlothError(cause) && cause.code === "SLOTH_REWARD_TIMEOUT") {
      own.abort()
      return failed(cause)
    }
    return failed(
      new SlothError("SLOTH_REWARD_THREW", {
        what: `The reward "${reward.name}" failed: ${cause instanceof Error ? cause.message : String(cause)}`,
        next: "Mend it, or let failing rewards count as null.",
        fields: { reward: reward.name },
        cause,
      }),
    )
  }
  let result: ReturnType<Reward["score"]>
  try {
    result = code.call(() => (reward as DefinedReward).score(samples, context))
  } catch (error) {
    result = Promise.reject(error)
  }
  const scored = code
    .within(Promise.resolve(result))
    .then((scores) => checked(reward.name, scores, samples.length, elapsed()), wrong)
  return Promise.race([scored, stopped]).finally(() => {
    code[Symbol.dispose]()
    signal.removeEventListener("abort", forward)
  })
}

const checked = (name: string, scores: readonly (number | null)[], count: number, seconds: number): Scored => {
  if (!Array.isArray(scores) || scores.length !== count) {
    const error = new SlothError("SLOTH_REWARD_LENGTH", {
      what: `The reward "${name}" gave ${Array.isArray(scores) ? `${scores.length} scores` : `a ${typeof scores}`} for ${count} completions.`,
      next: "It must return one number, or null, a completion, in order.",
      fields: { reward: name, scores: Array.isArray(scores) ? scores.length : undefined, completions: count },
    })
    return {
      scores: Array.from({ length: count }, () => null),
      seconds,
      problem: { error, samples: Array.from({ length: count }, (_, i) => i) },
    }
  }
  const given: readonly unknown[] = scores
  // A boolean would pass as a number further on; what was meant is not for us to guess.
  const wrong = given.flatMap((score, i) => (score === null || Number.isFinite(score) ? [] : [i]))
  if (wrong.length === 0) return { scores, seconds }
  const error = new SlothError("SLOTH_REWARD_NOT_A_NUMBER", {
    what: `The reward "${name}" gave ${String(given[wrong[0]!])} for completion ${wrong[0]}${wrong.length > 1 ? ` and ${wrong.length - 1} more that are no numbers` : ""}.`,
    next: "Return a finite number, or null where there is nothing to say.",
    fields: { reward: name, samples: wrong },
  })
  return {
    scores: scores.map((score, i) => (wrong.includes(i) ? null : score)),
    seconds,
    problem: { error, samples: wrong },
  }
}
