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
    /** Renders the first messages with marks in place of the contents of these ones. */
    const withMarks = (upTo: number, ...marked: number[]): string | undefined =>
      attempt(
        messages.slice(0, upTo).map((m, j) => (marked.includes(j) ? { ...m, content: mark } : m)),
        false,
      )
    const marked = withMarks(messages.length, i)
    const split = splitAt(marked, mark)
    // A template may print only the tool calls of a message that has them; then its content is as good as empty.
    const hasContent = typeof message.content === "string" && message.content !== "" && marked?.includes(mark) !== false
    const contentStart = hasContent && split !== undefined && text.startsWith(split[0]) ? split[0].length : undefined
    let contentEnd: number | undefined
    if (hasContent && split !== undefined && text.endsWith(split[1])) contentEnd = text.length - split[1].length

    // Start: where the generation prompt ends.
    const before = attempt(messages.slice(0, i), true)
    const plain = attempt(messages.slice(0, i), false)
    let start: number | undefined
    if (before !== undefined && text.startsWith(before)) {
      start = before.length
      // A template without a generation prompt: what stands before the answer, white space aside, is the header of the turn.
      if (contentStart !== undefined && before === plain && text.slice(start, contentStart).trim() !== "") {
        start = contentStart
      }
    } else if (contentStart !== undefined) {
      // The conversation so far is rendered in another way when more follows. The generation prompt then is what it adds to the render
      // without one, and it stands somewhere in the template's own text between the message before and this answer.
      const prompt =
        before !== undefined && plain !== undefined && before.startsWith(plain) ? before.slice(plain.length) : ""
      const gap = withMarks(messages.length, i - 1, i)?.split(mark)
      const header = gap?.length === 3 ? (gap[1] as string) : ""
      const at = prompt === "" ? -1 : header.lastIndexOf(prompt)
      const isHere = at >= 0 && text.slice(0, contentStart).endsWith(header)
      start = isHere ? contentStart - (header.length - at - prompt.length) : contentStart
    }
    if (start === undefined) throw noSpan(i, "its beginning")
    if (hasContent && (contentEnd === undefined || contentEnd < start)) throw noSpan(i, "its end")

    // Limit: the end of what the template prints for this message, its closing text included.
    const after = i === messages.length - 1 ? text : attempt(messages.slice(0, i + 1), false)
    let limit: number | undefined
    if (after !== undefined && text.startsWith(after) && after.length >= (contentEnd ?? start)) limit = after.length
    else if (split !== undefined) {
      const rest = splitAt(withMarks(i + 1, i), mark)
      const tail = rest === undefined ? undefined : split[1].slice(commonPrefix(rest[1], split[1]))
      if (tail !== undefined && text.endsWith(tail)) limit = text.length - tail.length
    }
    if (limit === undefined || limit < (contentEnd ?? start)) throw noSpan(i, "its end")

    // Without content the whole turn is the template's own text (a tool call, say), and its end is looked for in all of it.
    const from = contentEnd ?? start
    const suffix = text.slice(from, limit)
    const ending = endOfTurn(suffix)
    const end = from + (ending ?? suffix.trimEnd().length)
    if (start < previousEnd) throw noSpan(i, "its place among the others")
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
