import type { AddedTokenJson } from "./tokenizer-json.ts"

/** A stretch of text: an added token, or plain text where `id` is undefined. */
export interface Segment {
  readonly id: number | undefined
  readonly start: number
  readonly end: number
}

interface Entry {
  readonly text: string
  readonly token: AddedTokenJson
}

const wordBefore = /[\p{L}\p{M}\p{N}\p{Pc}]$/u
const wordAfter = /^[\p{L}\p{M}\p{N}\p{Pc}]/u
const spacesBefore = /\p{White_Space}*$/u
const spacesAfter = /^\p{White_Space}*/u

/** Finds added tokens in a text, the leftmost first and of those the longest. */
export class AddedTokenMatcher {
  private readonly byFirst = new Map<number, Entry[]>()
  readonly isEmpty: boolean

  /** `textOf` gives the text to look for: a token marked `normalized` is looked for in normalized text. */
  constructor(tokens: readonly AddedTokenJson[], textOf: (token: AddedTokenJson) => string) {
    for (const token of tokens) {
      const text = textOf(token)
      if (text === "") continue
      const first = text.charCodeAt(0)
      const list = this.byFirst.get(first)
      if (list === undefined) this.byFirst.set(first, [{ text, token }])
      else list.push({ text, token })
    }
    for (const list of this.byFirst.values()) list.sort((a, b) => b.text.length - a.text.length)
    this.isEmpty = this.byFirst.size === 0
  }

  private matchAt(text: string, at: number): Entry | undefined {
    return this.byFirst.get(text.charCodeAt(at))?.find((e) => text.startsWith(e.text, at))
  }

  /** Splits a text into added tokens and the text between them. */
  split(text: string): Segment[] {
    const segments: Segment[] = []
    let from = 0
    for (let i = 0; !this.isEmpty && i < text.length;) {
      const hit = this.matchAt(text, i)
      if (hit === undefined) {
        i++
        continue
      }
      const { token } = hit
      let start = i
      let end = i + hit.text.length
      i = end
      if (token.single_word && (wordBefore.test(text.slice(0, start)) || wordAfter.test(text.slice(end)))) continue
      if (token.lstrip) start = Math.max(from, start - spacesBefore.exec(text.slice(0, start))![0].length)
      if (token.rstrip) end += spacesAfter.exec(text.slice(end))![0].length
      if (start > from) segments.push({ id: undefined, start: from, end: start })
      segments.push({ id: token.id, start, end })
      from = end
      i = Math.max(i, end)
    }
    if (from < text.length) segments.push({ id: undefined, start: from, end: text.length })
    return segments
  }
}
