import { isComparable, isEquivalent } from "../internal/math-answer/equivalent.ts"
import { parseAnswer, type MathAnswer } from "../internal/math-answer/parse.ts"
import { finalAnswer } from "./answers.ts"
import { defineReward, type DefinedReward } from "./define-reward.ts"
import { goldOf, type MatchOptions } from "./match.ts"

/** True where two answers, LaTeX or plain, are the same mathematics; undefined where the first cannot be read. */
export const sameMathematics = async (
  gold: string,
  answer: string,
  options: { readonly tolerance?: number } = {},
): Promise<boolean | undefined> => {
  const right = await parseAnswer(gold)
  if (right === undefined || !isComparable(right)) return undefined
  const found = await parseAnswer(answer)
  return found !== undefined && isEquivalent(right, found, { tolerance: options.tolerance ?? 1e-9 })
}

/**
 * Right where the answer is mathematically the one in the row: fractions, roots, percentages, mixed numbers, units, sets, tuples, intervals, equations, and expressions in
 * symbols (compared at a dozen points). Null where the row's answer cannot be read. LaTeX is parsed by the Compute Engine; values are computed in doubles within the size
 * of the expression, so that no answer can keep the trainer busy.
 */
export const mathEquivalence = (
  options: MatchOptions & {
    /** Largest relative difference of numbers that are not both whole; 1e-9 when absent. */
    readonly tolerance?: number
  } = {},
): DefinedReward => {
  const {
    name = "math_equivalence",
    column = "answer",
    find = finalAnswer,
    right = 1,
    wrong = 0,
    tolerance = 1e-9,
  } = options
  const golds = new Map<string, MathAnswer | undefined>()
  const goldAnswer = async (text: string): Promise<MathAnswer | undefined> => {
    if (!golds.has(text)) {
      if (golds.size >= 10_000) golds.clear()
      // A whole solution in the row ends with its answer.
      const parsed = (await parseAnswer(text)) ?? (await parseAnswer(finalAnswer(text) ?? ""))
      golds.set(text, parsed !== undefined && isComparable(parsed) ? parsed : undefined)
    }
    return golds.get(text)
  }
  return defineReward<Record<string, unknown>>({
    name,
    weight: options.weight,
    columns: [column],
    each: async (sample) => {
      const gold = await goldAnswer(goldOf(sample, column))
      if (gold === undefined) return null
      const text = find(sample.completion)
      const answer = text === undefined ? undefined : await parseAnswer(text)
      return answer !== undefined && isEquivalent(gold, answer, { tolerance }) ? right : wrong
    },
  })
}
