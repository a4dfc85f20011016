import type { Reward } from "@sloth/core"
import { taggedAnswer } from "./answers.ts"
import { defineReward, type DefinedReward } from "./define-reward.ts"
import { exactMatch, integerAnswer } from "./match.ts"

/** Options of rewards that look at the form of a completion. */
export interface FormatOptions {
  readonly name?: string
  readonly weight?: number
  /** Score of the right form; 1 when absent. */
  readonly right?: number
  /** Score of any other; 0 when absent. */
  readonly wrong?: number
}

/** Scores completions in which a regular expression finds something. Keep to expressions that cannot backtrack for long: the model writes the text. */
export const regexMatch = (pattern: RegExp, options: FormatOptions = {}): DefinedReward => {
  const { name = "regex_match", weight, right = 1, wrong = 0 } = options
  // A global or sticky expression would remember where it stood.
  const stateless = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, ""))
  return defineReward({ name, weight, each: ({ completion }) => (stateless.test(completion) ? right : wrong) })
}

const escaped = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
const count = (text: string, part: string): number => text.split(part).length - 1

/** Each tag once, opened and closed, in this order, with nothing between and around them but what `between` allows. */
const sections = (tags: readonly string[], inner: (tag: string) => string, between: string, end: string): RegExp =>
  new RegExp(`^${tags.map((tag) => `<${escaped(tag)}>${inner(tag)}</${escaped(tag)}>`).join(between)}${end}$`)

/** Any text that does not hold another of the tag. */
const body = (tag: string): string => `(?:(?!</?${escaped(tag)}>)[\\s\\S])*`

/** Tags in order, each once, with white space as one likes between and around them. */
export const softFormat = (
  options: FormatOptions & {
    /** ["reasoning", "answer"] when absent. */
    readonly tags?: readonly string[]
  } = {},
): DefinedReward => {
  const { tags = ["reasoning", "answer"], name = "soft_format" } = options
  const pattern = sections(tags, body, "\\s*", "\\s*")
  const { weight, right = 1, wrong = 0 } = options
  return defineReward({
    name,
    weight,
    each: ({ completion }) => (pattern.test(completion.trimStart()) ? right : wrong),
  })
}

/** Tags in order, each on a line of its own, and nothing else. */
export const strictFormat = (
  options: FormatOptions & {
    /** ["reasoning", "answer"] when absent. */
    readonly tags?: readonly string[]
  } = {},
): DefinedReward => {
  const { tags = ["reasoning", "answer"], name = "strict_format", ...rest } = options
  return regexMatch(
    sections(tags, (tag) => `\\n${body(tag)}\\n`, "\\n", "\\n?"),
    { name, ...rest },
  )
}

/** Starts with `<think>`, has one of it, and closes it. Source: TRL 1.13, `think_format_reward`. */
export const thinkFormat = (options: FormatOptions = {}): DefinedReward => {
  const { name = "think_format", weight, right = 1, wrong = 0 } = options
  return defineReward({
    name,
    weight,
    each: ({ completion }) =>
      completion.startsWith("<think>") && count(completion, "<think>") === 1 && completion.includes("</think>")
        ? right
        : wrong,
  })
}

/**
 * An equal share of `right` for every opening and closing tag that occurs exactly once, less `trailing` for each character after the last closing tag. It leads a model
 * towards a format step by step. Source: the XML count of W. Brown's GSM8K rewards.
 */
export const xmlCount = (
  options: Omit<FormatOptions, "wrong"> & {
    /** ["reasoning", "answer"] when absent. */
    readonly tags?: readonly string[]
    /** Taken off for each character after the last closing tag; 0.001 when absent. */
    readonly trailing?: number
  } = {},
): DefinedReward => {
  const { tags = ["reasoning", "answer"], name = "xml_count", weight, right = 0.5, trailing = 0.001 } = options
  const parts = tags.flatMap((tag) => [`<${tag}>`, `</${tag}>`])
  const last = parts.at(-1)!
  return defineReward({
    name,
    weight,
    each: ({ completion }) => {
      const once = parts.filter((part) => count(completion, part) === 1).length
      const at = completion.lastIndexOf(last)
      const after = at < 0 ? 0 : completion.slice(at + last.length).trimEnd().length
      return (right * once) / parts.length - trailing * after
    },
  })
}

/**
 * The five rewards of the well-known GSM8K recipe: right answer 2, whole number 0.5, strict and soft format 0.5 each, XML count up to 0.5. Rows have `answer`.
 * Source: W. Brown's GSM8K rewards; unlike there, text in tags may have several lines.
 */
export const gsm8kRewards = (): Reward[] => [
  exactMatch({ name: "correctness", find: taggedAnswer(), right: 2 }),
  integerAnswer({ name: "integer", find: taggedAnswer(), right: 0.5 }),
  strictFormat({ right: 0.5 }),
  softFormat({ right: 0.5 }),
  xmlCount(),
]
