import { SlothError, type Awaitable, type Reward, type RewardSample } from "@sloth/core"

/** A completion to be judged, with the columns of its row typed. */
export interface SampleOf<Row> extends Omit<RewardSample, "row"> {
  readonly row: Readonly<Row> & Readonly<Record<string, unknown>>
}

/** What a reward may use while it scores. */
export interface RewardContext {
  /** Aborted when the score is no longer wanted: the run stops, or the time is up. */
  readonly signal: AbortSignal
  /** Notes a figure; the step's event shows the mean of all that were noted under a name. */
  metric(name: string, value: number): void
}

/** A reward that can note figures. It fits the `rewards` slot of a plugin. */
export interface DefinedReward extends Reward {
  score(samples: readonly RewardSample[], context?: RewardContext): Awaitable<readonly (number | null)[]>
}

/** What {@link defineReward} takes: `score` for all completions at once, or `each` for one. */
export type RewardDefinition<Row> = {
  readonly name: string
  /** Factor in the sum of rewards; 1 when absent. */
  readonly weight?: number
  /** Columns that every row must have. */
  readonly columns?: readonly (keyof Row & string)[]
} & (
  | {
      /** One score a completion, in order; null where there is nothing to say. */
      score(samples: readonly SampleOf<Row>[], context: RewardContext): Awaitable<readonly (number | null)[]>
    }
  | {
      /** The score of one completion; null where there is nothing to say. */
      each(sample: SampleOf<Row>, context: RewardContext): Awaitable<number | null>
    }
)

const never = new AbortController().signal

/** The context of a reward that is called by itself. */
export const plainContext: RewardContext = { signal: never, metric: () => undefined }

/**
 * Defines a reward. `Row` says which columns it reads: `defineReward<{ answer: string }>({ columns: ["answer"], ... })`.
 * Errors, when it scores: SLOTH_REWARD_COLUMN for a row without a column.
 */
export const defineReward = <Row = Record<string, unknown>>(definition: RewardDefinition<Row>): DefinedReward => {
  const { name, weight, columns = [] } = definition
  if (typeof name !== "string" || name === "" || (weight !== undefined && !Number.isFinite(weight)))
    throw new SlothError("SLOTH_REWARD_DEFINITION", {
      what:
        typeof name !== "string" || name === ""
          ? "A reward has no name."
          : `The weight of the reward "${name}" is ${weight}.`,
      next: "Give a name, and a finite weight.",
      fields: { name, weight },
    })
  return Object.freeze({
    name,
    ...(weight === undefined ? {} : { weight }),
    score: (samples: readonly RewardSample[], context: RewardContext = plainContext) => {
      for (const [index, { row }] of samples.entries()) {
        const missing = columns.filter((column) => row[column] === undefined || row[column] === null)
        if (missing.length > 0)
          throw new SlothError("SLOTH_REWARD_COLUMN", {
            what: `The reward "${name}" reads the column "${missing[0]}", which the row of completion ${index} does not have.`,
            why: `Its columns are ${Object.keys(row)
              .map((column) => `"${column}"`)
              .join(", ")}.`,
            next: "Add the column, or name the right one in the reward's options.",
            fields: { reward: name, missing, columns: Object.keys(row), sample: index },
          })
      }
      const typed = samples as readonly SampleOf<Row>[]
      if ("score" in definition) return definition.score(typed, context)
      const scores = typed.map((sample) => definition.each(sample, context))
      return scores.some((score) => score instanceof Promise)
        ? Promise.all(scores)
        : (scores as readonly (number | null)[])
    },
  })
}
