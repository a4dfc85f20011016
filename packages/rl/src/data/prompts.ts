import { createHash } from "node:crypto"
import { SlothError, isSlothError, type RewardMessage } from "@sloth/core"
import {
  describeOrigin,
  normaliseMessages,
  previewExample,
  renderChat,
  splitHeldOut,
  type ChatMessage,
  type RowOrigin,
} from "@sloth/data"
import { chatPrompt, templateTokens, textPrompt } from "@sloth/infer"
import type { Tokenizer } from "@sloth/model"
import type { PreferenceData, PreferenceOptions } from "./open.ts"
import { readSource } from "./source.ts"

/** A prompt that completions are sampled for, with everything its row says. */
export interface PromptExample {
  /** Token ids up to where the model speaks. */
  readonly tokens: readonly number[]
  /** As rewards see it: the text, or the conversation. */
  readonly prompt: string | readonly RewardMessage[]
  /** The row with every column. */
  readonly columns: Readonly<Record<string, unknown>>
  /** Row of the data set, from 0. */
  readonly row: number
}

type Columns = Readonly<Record<string, unknown>>

const fault = (origin: RowOrigin, what: string, next: string): SlothError =>
  new SlothError("SLOTH_RL_PROMPT", {
    what: `${describeOrigin(origin)}: ${what}`,
    next,
    fields: { row: origin.index, file: origin.file, line: origin.line },
  })

/** A list, also one written as JSON text, as tables hold it. */
const asList = (value: unknown): readonly unknown[] | undefined => {
  if (Array.isArray(value)) return value
  if (typeof value !== "string" || !/^\s*\[\s*\{/.test(value)) return undefined
  try {
    const parsed: unknown = JSON.parse(value)
    return Array.isArray(parsed) ? parsed : undefined
  } catch {
    return undefined
  }
}

/** What a row asks: its `prompt`, else its `messages` up to the last answer, else its `question`. */
const promptOf = (columns: Columns, origin: RowOrigin): string | readonly ChatMessage[] => {
  const name = ["prompt", "messages", "question"].find((key) => columns[key] !== undefined && columns[key] !== null)
  if (name === undefined)
    throw fault(origin, 'there is no "prompt".', "Give every row a prompt: a text, or a list of messages.")
  const value = columns[name]
  const list = asList(value)
  if (list !== undefined && list.length > 0) {
    // Conversations for training end with an answer, and are refused without one; here the answer is yet to come.
    const first = list[0] as Readonly<Record<string, unknown>>
    const answer = "from" in first ? { from: "gpt", value: "-" } : { role: "assistant", content: "-" }
    const messages = normaliseMessages([...list, answer] as unknown as readonly ChatMessage[], origin)
    const last = messages.findLastIndex((message) => message.role !== "assistant")
    if (last < 0) throw fault(origin, `"${name}" has nothing but answers.`, "Let a conversation end with a question.")
    return messages.slice(0, last + 1)
  }
  if (typeof value === "string" && value !== "") return value
  throw fault(origin, `"${name}" is neither a text nor a list of messages.`, "Mend or remove the row.")
}

/** A question becomes a conversation where the model has a chat template; the system prompt of a row comes first. */
const tokensOf = (
  tokenizer: Tokenizer,
  prompt: string | readonly ChatMessage[],
  columns: Columns,
  options: Pick<PreferenceOptions, "template" | "date" | "variables">,
): { readonly tokens: readonly number[]; readonly prompt: string | readonly ChatMessage[] } => {
  const template = options.template ?? tokenizer.chatTemplate
  const system = typeof columns["system"] === "string" ? [{ role: "system", content: columns["system"] }] : []
  if (typeof prompt === "string" && template === undefined) return { tokens: textPrompt(tokenizer, prompt), prompt }
  const messages = typeof prompt === "string" ? [...system, { role: "user", content: prompt }] : prompt
  const tools = asList(columns["tools"])
  if (template === undefined) return { tokens: chatPrompt(tokenizer, messages, template), prompt: messages }
  const text = renderChat(template, messages, {
    addGenerationPrompt: true,
    ...templateTokens(tokenizer),
    ...(tools === undefined || tools.length === 0 ? {} : { tools }),
    ...(options.date === undefined ? {} : { date: options.date }),
    ...(options.variables === undefined ? {} : { variables: options.variables }),
  })
  return { tokens: tokenizer.encode(text), prompt: messages }
}

const asReward = (prompt: string | readonly ChatMessage[]): string | readonly RewardMessage[] =>
  typeof prompt === "string" ? prompt : prompt.map(({ role, content }) => ({ role, content: content ?? "" }))

const count = (n: number): string => n.toLocaleString("en-US")

/**
 * Opens prompts to sample completions for, in files or given as objects: `prompt` (a text or messages), `messages` or `question`; all other columns go to the rewards. A
 * prompt of more than `maxLength` tokens is left out. Errors: those of `readRows`; SLOTH_RL_PROMPT, SLOTH_DATA_EMPTY, SLOTH_RL_NOTHING_LEFT.
 */
export const openPrompts = async (
  source: string | readonly string[] | readonly object[],
  options: PreferenceOptions,
): Promise<PreferenceData<PromptExample>> => {
  const { tokenizer, maxLength, onBadRow = "error" } = options
  const sources = await readSource(source, options)
  const examples: PromptExample[] = []
  const reasons: { origin: RowOrigin; reason: string }[] = []
  const hash = createHash("sha256")
  let [dropped, skipped, tokens, longest, conversations] = [0, 0, 0, 0, 0]
  for (const [index, { row, file, line }] of sources.entries()) {
    const origin: RowOrigin = {
      index,
      ...(file === undefined ? {} : { file }),
      ...(line === undefined ? {} : { line }),
    }
    try {
      const columns: Columns = typeof row === "string" ? { prompt: row } : (row as Columns)
      const made = tokensOf(tokenizer, promptOf(columns, origin), columns, options)
      if (maxLength !== undefined && made.tokens.length > maxLength) {
        dropped++
        continue
      }
      if (typeof made.prompt !== "string") conversations++
      tokens += made.tokens.length
      longest = Math.max(longest, made.tokens.length)
      hash.update(JSON.stringify([made.tokens, columns]))
      examples.push({ tokens: made.tokens, prompt: asReward(made.prompt), columns, row: index })
    } catch (error) {
      if (onBadRow !== "skip" || !isSlothError(error)) throw error
      skipped++
      if (reasons.length < 5) reasons.push({ origin, reason: error.what })
    }
  }
  if (examples.length === 0)
    throw new SlothError("SLOTH_RL_NOTHING_LEFT", {
      what: `None of ${sources.length} prompts can be used.`,
      why: [
        ...(dropped > 0 ? [`${dropped} have more than ${maxLength} tokens`] : []),
        ...(skipped > 0 ? [`${skipped} are faulty, the first: ${reasons[0]!.reason}`] : []),
      ].join("; "),
      next: "Raise maxLength, or mend the rows.",
      fields: { rows: sources.length, dropped, skipped, maxLength },
    })
  const { heldOut } = splitHeldOut(examples.length, options.heldOut ?? 0, options.seed ?? 0)
  const held = new Set(Array.from(heldOut, (i) => examples[i]!.row))
  const notes = [
    ...(dropped > 0 ? [`${count(dropped)} left out for want of room`] : []),
    ...(skipped > 0 ? [`${count(skipped)} left out as faulty`] : []),
  ]
  const columns = Object.keys(examples[0]!.columns).filter((key) => !["prompt", "messages", "question"].includes(key))
  return {
    preview: previewExample(
      { tokens: Int32Array.from(examples[0]!.tokens), mask: new Uint8Array(examples[0]!.tokens.length) },
      tokenizer,
    ),
    summary: [
      `${count(examples.length)} prompts of ${count(Math.round(tokens / examples.length))} tokens on average; the longest has ${count(longest)}`,
      ...reasons.map(({ reason }) => `left out: ${reason}`),
    ].join("\n"),
    examples: examples.filter(({ row }) => !held.has(row)),
    heldOut: examples.filter(({ row }) => held.has(row)),
    examplesHash: hash.digest("hex"),
    statement: `${[
      `Recognised ${count(sources.length)} ${sources.length === 1 ? "prompt" : "prompts"} (${conversations === 0 ? "texts" : conversations === examples.length ? "conversations" : "texts and conversations"})`,
      ...(columns.length === 0 ? [] : [`rewards see ${columns.map((column) => `"${column}"`).join(", ")}`]),
      ...notes,
    ].join("; ")}.`,
    report: {
      rows: sources.length,
      examples: examples.length,
      tokens,
      scoredTokens: 0,
      longest,
      truncated: 0,
      dropped,
      skipped,
      identical: 0,
      reasons,
    },
  }
}
