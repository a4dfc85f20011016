import type { ChatMessage } from "../rows.ts"
import type { Turn } from "./turn-spans.ts"

/** Two private-use characters that do not occur in the text. */
export const freeMarkers = (text: string): readonly [string, string] => {
  for (let code = 0xe000; code < 0xf8ff; code += 2) {
    const open = String.fromCharCode(code)
    const close = String.fromCharCode(code + 1)
    if (!text.includes(open) && !text.includes(close)) return [open, close]
  }
  // 3 200 pairs of characters, all in one conversation: not a text.
  throw new Error("the text uses every private-use character")
}

/** All of a conversation but the texts of its messages: conversations with equal keys differ in these texts only. */
export const shapeKey = (messages: readonly ChatMessage[], tools: readonly unknown[] | undefined): string =>
  JSON.stringify([
    messages.map((message) =>
      message.content === null || message.content === "" ? message : { ...message, content: 1 },
    ),
    tools ?? null,
  ])

interface Shape {
  /** Template text between the contents; one more than `contents`. */
  readonly literals: readonly string[]
  /** Message whose text stands between literal k and k + 1. */
  readonly contents: readonly number[]
  /** Turns in the render with marks. */
  readonly turns: readonly Turn[]
}

const open = "\ue000"
const close = "\ue001"
const markPattern = /\ue000(\d+)\ue001/g

/**
 * Remembers, for each shape of conversation, where the template puts the texts of the messages. A conversation then needs one render and a
 * comparison: if its text is exactly the shape's text with its own contents filled in (as they are, or trimmed), the shape's turns hold.
 */
export class SpanShapes {
  readonly #shapes = new Map<string, Shape | undefined>()

  marker(message: number): string {
    return `${open}${message}${close}`
  }

  /** The turns of a conversation, or undefined where its text does not follow its shape. */
  turns(
    key: string,
    text: string,
    messages: readonly ChatMessage[],
    build: () => { text: string; find: (text: string) => Turn[] },
  ): Turn[] | undefined {
    let shape = this.#shapes.get(key)
    if (shape === undefined && !this.#shapes.has(key)) {
      // Conversations with tool calls have a shape each: keep the memory of them bounded.
      if (this.#shapes.size >= 2000) this.#shapes.clear()
      shape = key.includes(open) ? undefined : buildShape(build)
      this.#shapes.set(key, shape)
    }
    return shape === undefined ? undefined : fill(shape, text, messages)
  }
}

const buildShape = (build: () => { text: string; find: (text: string) => Turn[] }): Shape | undefined => {
  try {
    const { text, find } = build()
    const turns = find(text)
    const parts = text.split(markPattern)
    const literals = parts.filter((_, i) => i % 2 === 0)
    const contents = parts.filter((_, i) => i % 2 === 1).map(Number)
    return literals.some((literal) => literal.includes(open)) ? undefined : { literals, contents, turns }
  } catch {
    // A template may refuse or rewrite the marks; the conversation is then worked out on its own, where errors are reported.
    return undefined
  }
}

const fill = (shape: Shape, text: string, messages: readonly ChatMessage[]): Turn[] | undefined => {
  const { literals, contents } = shape
  // Position in the shape's text and in this text after each content.
  const marks: number[] = []
  const shifts: number[] = []
  const first = literals[0] as string
  if (!text.startsWith(first)) return undefined
  let at = first.length
  let shapeAt = first.length
  for (let k = 0; k < contents.length; k++) {
    const message = contents[k] as number
    const content = messages[message]?.content ?? ""
    const next = literals[k + 1] as string
    const isLast = k === contents.length - 1
    const candidates = [content, content.trim(), content.trimEnd(), content.trimStart()]
    const found = candidates.find((candidate) => {
      if (!text.startsWith(candidate, at)) return false
      const after = at + candidate.length
      return text.startsWith(next, after) && (!isLast || after + next.length === text.length)
    })
    if (found === undefined) return undefined
    at += found.length
    shapeAt += String(message).length + 2
    marks.push(shapeAt)
    shifts.push(at - shapeAt)
    at += next.length
    shapeAt += next.length
  }
  if (at !== text.length) return undefined
  const move = (position: number): number => {
    let shift = 0
    for (let k = 0; k < marks.length && (marks[k] as number) <= position; k++) shift = shifts[k] as number
    return position + shift
  }
  return shape.turns.map((turn) => ({ ...turn, start: move(turn.start), end: move(turn.end) }))
}
