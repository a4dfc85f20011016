import { isSlothError, SlothError } from "@sloth/core"
import type { ChatTemplate, RenderOptions } from "../chat-template.ts"
import type { ChatMessage } from "../rows.ts"
import { freeMarkers } from "./span-shape.ts"

/** Where the end-of-turn token ends in the template's text after an answer; undefined if that text ends no turn. */
export type EndOfTurn = (suffix: string) => number | undefined

/** The scored range of one assistant message in the rendered text. */
export interface Turn {
  readonly message: number
  readonly start: number
  readonly end: number
  /** The template prints nothing that ends this turn. */
  readonly openEnded: boolean
}

const commonPrefix = (a: string, b: string): number => {
  const n = Math.min(a.length, b.length)
  let i = 0
  while (i < n && a.charCodeAt(i) === b.charCodeAt(i)) i += 1
  return i
}

/**
 * Finds the turns of all assistant messages in `text`, the render of `messages`, by comparing it with renders of beginnings of the
 * conversation and with renders in which one answer is replaced by a mark. Errors: `SLOTH_TEMPLATE_SPANS`.
 */
export const findTurns = (
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: RenderOptions,
  text: string,
  endOfTurn: EndOfTurn,
): Turn[] => {
  // A beginning of a conversation may be something that the template refuses; then it just is no evidence.
  const attempt = (part: readonly ChatMessage[], addGenerationPrompt: boolean): string | undefined => {
    try {
      return template.render(part, { ...options, addGenerationPrompt })
    } catch (error) {
      if (isSlothError(error) && error.code.startsWith("SLOTH_TEMPLATE_")) return undefined
      throw error
    }
  }
  const mark = freeMarkers(template.source + text + JSON.stringify([messages, options.tools ?? null])).join("")
  const turns: Turn[] = []
  let previousEnd = 0
  messages.forEach((message, i) => {
    if (message.role !== "assistant") return
    const withMark = (upTo: number): string | undefined =>
      attempt(
        messages.slice(0, upTo).map((m, j) => (j === i ? { ...m, content: mark } : m)),
        false,
      )
    const before = attempt(messages.slice(0, i), true)
    const after = i === messages.length - 1 ? text : attempt(messages.slice(0, i + 1), false)
    // A template may print only the tool calls of a message that has them; then its content is as good as empty.
    const isPrinted = typeof message.content === "string" && message.content !== ""
    const marked = isPrinted ? withMark(messages.length) : undefined
    const hasContent = isPrinted && !(marked !== undefined && !marked.includes(mark))
    const split = hasContent ? splitAt(marked, mark) : undefined
    const contentStart = split !== undefined && text.startsWith(split[0]) ? split[0].length : undefined

    // Start: where the generation prompt ends, if this beginning is a beginning of the text; else where the answer's text starts.
    let start = before !== undefined && text.startsWith(before) ? before.length : contentStart
    if (start === undefined) throw noSpan(i, "its beginning")
    if (contentStart !== undefined && before === attempt(messages.slice(0, i), false)) {
      // The template has no generation prompt: what stands before the answer, white space aside, is the header of the turn.
      if (text.slice(start, contentStart).trim() !== "") start = contentStart
    }

    // End of the answer's own text, and of what the template prints after it before the next turn.
    let contentEnd: number | undefined
    let limit: number | undefined
    if (split !== undefined && text.endsWith(split[1]) && text.length - split[1].length >= start) {
      contentEnd = text.length - split[1].length
    }
    if (hasContent && contentEnd === undefined) throw noSpan(i, "its end")
    if (after !== undefined && text.startsWith(after) && after.length >= (contentEnd ?? start)) limit = after.length
    else if (contentEnd !== undefined && split !== undefined) {
      const rest = splitAt(withMark(i + 1), mark)
      if (rest !== undefined) limit = contentEnd + commonPrefix(rest[1], split[1])
    } else if (after !== undefined) {
      // Nothing but the beginning of the conversation to go by, and it ends in another way than the text goes on.
      const common = commonPrefix(after, text)
      if (common > start) limit = common
    }
    if (limit === undefined) throw noSpan(i, "its end")

    // Without a mark the whole turn is the template's own text (a tool call, say), and its end is looked for in all of it.
    const from = contentEnd ?? start
    const ending = endOfTurn(text.slice(from, limit))
    const end = from + (ending ?? 0)
    if (start < previousEnd || end < start) throw noSpan(i, "its place among the others")
    if (end > start) turns.push({ message: i, start, end, openEnded: ending === undefined })
    previousEnd = end
  })
  return turns
}

/** The text before and after the mark, if it is printed exactly once. */
const splitAt = (text: string | undefined, mark: string): readonly [string, string] | undefined => {
  const parts = text?.split(mark)
  return parts?.length === 2 ? (parts as [string, string]) : undefined
}

const noSpan = (message: number, part: string): SlothError =>
  new SlothError("SLOTH_TEMPLATE_SPANS", {
    what: `In the text that the chat template makes, assistant message ${message + 1} cannot be found exactly (${part}).`,
    why: "The template drops it, prints it twice, or rewrites it depending on what comes later.",
    next: 'Mark the answers in the template with {% generation %} ... {% endgeneration %}, or score all text with mask "all".',
    fields: { message },
  })
