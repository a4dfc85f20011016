import type { Reward, RewardSample } from "@sloth/core"
import { finalAnswer, readNumber, wholeText, type AnswerFinder } from "./answers.ts"
import { defineReward, type DefinedReward } from "./define-reward.ts"

/** Options that rewards with a right answer have in common. */
export interface MatchOptions {
  /** Name of the reward. */
  readonly name?: string
  readonly weight?: number
  /** Column of the right answer; "answer" when absent. */
  readonly column?: string
  /** Finds the answer in the completion. */
  readonly find?: AnswerFinder
  /** Score of a right answer; 1 when absent. */
  readonly right?: number
  /** Score of a wrong one; 0 when absent. */
  readonly wrong?: number
}

/** The right answer of a row, as text. */
export const goldOf = (sample: Pick<RewardSample, "row">, column: string): string => String(sample.row[column])

const plain = (text: string): string => text.trim().replace(/\s+/g, " ")

/** Right where the answer is the one in the row, white space aside. `find` takes the whole completion when absent. */
export const exactMatch = (options: MatchOptions & { readonly ignoreCase?: boolean } = {}): DefinedReward => {
  const {
    name = "exact_match",
    column = "answer",
    find = wholeText,
    right = 1,
    wrong = 0,
    ignoreCase = false,
  } = options
  const form = (text: string): string => (ignoreCase ? plain(text).toLowerCase() : plain(text))
  return defineReward<Record<string, unknown>>({
    name,
    weight: options.weight,
    columns: [column],
    each: (sample) => {
      const found = find(sample.completion)
      return found !== undefined && form(found) === form(goldOf(sample, column)) ? right : wrong
    },
  })
}

/** The number in the row; GSM8K's whole solutions with "#### 42" at the end count as 42. */
const goldNumber = (sample: Pick<RewardSample, "row">, column: string): number | undefined => {
  const gold = goldOf(sample, column)
  return readNumber(gold) ?? readNumber(finalAnswer(gold) ?? "")
}

/** A reward of the number in the completion (undefined where there is none) and the one in the row; null where the row holds none. */
const numberReward = (
  options: MatchOptions,
  defaultName: string,
  score: (found: number | undefined, gold: number) => number,
): DefinedReward => {
  const { name = defaultName, column = "answer", find = finalAnswer } = options
  return defineReward<Record<string, unknown>>({
    name,
    weight: options.weight,
    columns: [column],
    each: (sample) => {
      const gold = goldNumber(sample, column)
      return gold === undefined ? null : score(readNumber(find(sample.completion) ?? ""), gold)
    },
  })
}

/** What a difference is measured by: the right number, or 1 near 0. */
const measure = (gold: number): number => Math.max(1, Math.abs(gold))

/** Right where the answer is the number in the row, within a tolerance; null where the row holds no number. */
export const numericMatch = (
  options: MatchOptions & {
    /** Largest difference, relative to the right number; 1e-9 when absent. */
    readonly tolerance?: number
  } = {},
): DefinedReward => {
  const { right = 1, wrong = 0, tolerance = 1e-9 } = options
  return numberReward(options, "numeric_match", (found, gold) =>
    found !== undefined && Math.abs(found - gold) <= tolerance * measure(gold) ? right : wrong,
  )
}

/**
 * From `right` for the number in the row down to `wrong` for one that is off by `reach` times it (by `reach` itself near 0); `none` where there is no number; null where
 * the row holds none.
 */
export const numberProximity = (
  options: MatchOptions & {
    /** Relative error at which nothing is left; 1 when absent. */
    readonly reach?: number
    /** Score without a number; `wrong` when absent. */
    readonly none?: number
  } = {},
): DefinedReward => {
  const { right = 1, wrong = 0, reach = 1, none = wrong } = options
  return numberReward(options, "number_proximity", (found, gold) =>
    found === undefined
      ? none
      : wrong + (right - wrong) * Math.max(0, 1 - Math.abs(found - gold) / (reach * measure(gold))),
  )
}

/** Scores an answer that is a whole number. */
export const integerAnswer = (options: Omit<MatchOptions, "column"> = {}): Reward => {
  const { name = "integer_answer", find = finalAnswer, right = 1, wrong = 0 } = options
  return defineReward({
    name,
    weight: options.weight,
    each: ({ completion }) => (/^[-+]?\d+$/.test(find(completion) ?? "") ? right : wrong),
  })
}
