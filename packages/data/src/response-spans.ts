import { SlothError } from "@sloth/core"
import { chatTemplateOf } from "./chat-template.ts"
import type { ChatTemplate, RenderOptions } from "./chat-template.ts"
import { freeMarkers, shapeKey, SpanShapes } from "./internal/span-shape.ts"
import { inPrintableForm } from "./internal/tool-calls.ts"
import { findTurns } from "./internal/turn-spans.ts"
import type { EndOfTurn, Turn } from "./internal/turn-spans.ts"
import type { ChatMessage } from "./rows.ts"

export type { EndOfTurn } from "./internal/turn-spans.ts"

/** Which text of a conversation is scored: every assistant turn, the last one, or everything. */
export type MaskMode = "assistant" | "last-assistant" | "all"

/** A half-open range of UTF-16 code units of a rendered conversation. */
export interface TextSpan {
  readonly start: number
  readonly end: number
}

/** A rendered conversation with the ranges that are scored, in order and without overlap. */
export interface ScoredText {
  readonly text: string
  readonly spans: readonly TextSpan[]
}

/** Options of {@link responseSpans}. */
export interface SpanOptions extends Omit<RenderOptions, "addGenerationPrompt" | "tools"> {
  readonly mask?: MaskMode
  /**
   * Given the template's text between an answer and the next turn (such as `<|im_end|>\n`), says where the end-of-turn token ends in it;
   * undefined if there is none. The text up to its trailing white space then still belongs to the turn, as it does without this option.
   */
  readonly endOfTurn?: EndOfTurn
}

/** Finds the scored spans of many conversations of one template; what depends only on their shape is worked out once. */
export interface ResponseSpanFinder {
  /**
   * Renders a conversation and finds its scored spans.
   * Errors: those of `ChatTemplate.render`, `SLOTH_TEMPLATE_SPANS` if the template does not let them be found exactly, and
   * `SLOTH_TEMPLATE_TOOLS` if it does not print the tool calls of a message.
   */
  find(messages: readonly ChatMessage[], tools?: readonly unknown[]): ScoredText
  /** Number of answers found so far after which the template prints nothing that ends a turn. */
  readonly openEnded: number
}

const isAnswer = (message: ChatMessage): boolean => message.role === "assistant"
const isScored = (message: ChatMessage): boolean => isAnswer(message) && message["weight"] !== 0

/**
 * Makes a finder for one template. Spans come from the template, never from a search for role markers:
 * `{% generation %}` blocks where the template has them, else the difference of renders. A turn starts where the template's generation
 * prompt ends, so that what is learnt is what is generated later, and ends with the end-of-turn token.
 */
export const createResponseSpanFinder = (
  template: string | ChatTemplate,
  options: SpanOptions = {},
): ResponseSpanFinder => {
  const { mask = "assistant", endOfTurn, ...renderOptions } = options
  const compiled = chatTemplateOf(template)
  const shapes = new SpanShapes()
  let openEnded = 0
  const end: EndOfTurn =
    endOfTurn ??
    ((suffix) => {
      const trimmed = suffix.trimEnd().length
      return trimmed === 0 ? undefined : trimmed
    })
  const pick = (messages: readonly ChatMessage[], turns: readonly Turn[]): TextSpan[] => {
    const scored = new Set<number>()
    messages.forEach((message, i) => {
      if (isScored(message)) scored.add(i)
    })
    const last = messages.findLastIndex(isAnswer)
    const spans: TextSpan[] = []
    for (const turn of turns) {
      if (!scored.has(turn.message) || (mask === "last-assistant" && turn.message !== last)) continue
      if (turn.openEnded) openEnded += 1
      spans.push({ start: turn.start, end: turn.end })
    }
    return spans
  }
  const find = (messages: readonly ChatMessage[], tools: readonly unknown[] | undefined): ScoredText => {
    const render: RenderOptions = tools === undefined ? renderOptions : { ...renderOptions, tools }
    if (mask === "all") {
      const text = compiled.render(messages, render)
      return { text, spans: text === "" ? [] : [{ start: 0, end: text.length }] }
    }
    if (compiled.hasGenerationBlocks) return blockSpans(compiled, messages, render, mask)
    const text = compiled.render(messages, render)
    const key = shapeKey(messages, tools)
    const turns =
      shapes.turns(key, text, messages, () => {
        const masked = messages.map((message, i) =>
          typeof message.content === "string" && message.content !== ""
            ? { ...message, content: shapes.marker(i) }
            : message,
        )
        return { text: compiled.render(masked, render), find: (at) => findTurns(compiled, masked, render, at, end) }
      }) ?? findTurns(compiled, messages, render, text, end)
    return { text, spans: pick(messages, turns) }
  }
  return {
    get openEnded() {
      return openEnded
    },
    find: (messages, tools) =>
      messages.some((message) => Array.isArray(message["tool_calls"]))
        ? inPrintableForm(messages, (form) => find(form, tools))
        : find(messages, tools),
  }
}

/** Spans of `{% generation %}` blocks: the template is rendered with private-use characters in place of the tags. */
const blockSpans = (
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  render: RenderOptions,
  mask: MaskMode,
): ScoredText => {
  const text = template.render(messages, render)
  const [open, close] = freeMarkers(text + template.source)
  const marked = template.renderMarked(messages, render, open, close)
  const spans: TextSpan[] = []
  let plain = ""
  let at = 0
  let start: number | undefined
  for (let i = 0; i < marked.length; i++) {
    const mark = marked[i]
    if (mark !== open && mark !== close) continue
    plain += marked.slice(at, i)
    at = i + 1
    if (mark === open) start ??= plain.length
    else if (start !== undefined) {
      if (plain.length > start) spans.push({ start, end: plain.length })
      start = undefined
    }
  }
  plain += marked.slice(at)
  if (plain !== text || start !== undefined) {
    throw new SlothError("SLOTH_TEMPLATE_SPANS", {
      what: "The generation blocks of the chat template cannot be followed.",
      why: "The text printed inside a block is changed or cut afterwards (by a filter, or a loop left early).",
      next: 'Print the answer directly inside {% generation %} ... {% endgeneration %}, or use mask "all".',
    })
  }
  const answers = messages.filter(isAnswer)
  if (answers.every(isScored)) return { text, spans: mask === "last-assistant" ? spans.slice(-1) : spans }
  if (answers.length !== spans.length) {
    throw new SlothError("SLOTH_TEMPLATE_SPANS", {
      what: `Some assistant messages have weight 0, but the template's ${spans.length} generation blocks cannot be matched with ${answers.length} assistant messages.`,
      next: "Use a template with one generation block an assistant message, or remove the weights.",
      fields: { blocks: spans.length, answers: answers.length },
    })
  }
  const kept = spans.filter(
    (_, i) => isScored(answers[i] as ChatMessage) && (mask !== "last-assistant" || i === answers.length - 1),
  )
  return { text, spans: kept }
}

/**
 * Renders one conversation and finds its scored spans; for many, {@link createResponseSpanFinder} is faster.
 * Errors: those of `renderChat`, and `SLOTH_TEMPLATE_SPANS`.
 */
export const responseSpans = (
  template: string | ChatTemplate,
  messages: readonly ChatMessage[],
  options: SpanOptions & { readonly tools?: readonly unknown[] } = {},
): ScoredText => {
  const { tools, ...rest } = options
  return createResponseSpanFinder(template, rest).find(messages, tools)
}
