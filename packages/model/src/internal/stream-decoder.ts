import type { StreamDecoder } from "../tokenizer.ts"
import { tokenBytes } from "./byte-level.ts"

/** Streams a byte-level vocabulary: bytes are joined and a character is given out when it is whole. */
export const byteLevelStream = (tokenOf: (id: number) => string | undefined): StreamDecoder => {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  return {
    push(id) {
      const token = tokenOf(id)
      return token === undefined ? "" : decoder.decode(tokenBytes(token), { stream: true })
    },
    end: () => decoder.decode(),
  }
}

const replacement = "\ufffd"

/** Tokens that stay in the window after their text was given out, so that spacing at the seam is decoded as in the whole text. */
const keptTokens = 8

/**
 * Streams through any decoder by decoding a sliding window and giving out what is new. Text that ends in a replacement character is held back:
 * the next byte token may complete it.
 */
export const windowStream = (
  tokenOf: (id: number) => string | undefined,
  decode: (tokens: string[]) => string,
): StreamDecoder => {
  let window: string[] = []
  let given = ""
  return {
    push(id) {
      const token = tokenOf(id)
      if (token === undefined) return ""
      window.push(token)
      const text = decode(window)
      if (text.endsWith(replacement)) return ""
      const fresh = text.slice(given.length)
      given = text
      // Cutting at the window's start is safe only where the rest decodes to the end of the same text.
      if (window.length > 4 * keptTokens) {
        const rest = window.slice(-keptTokens)
        const restText = decode(rest)
        if (given.endsWith(restText)) {
          window = rest
          given = restText
        }
      }
      return fresh
    },
    end() {
      const fresh = decode(window).slice(given.length)
      window = []
      given = ""
      return fresh
    },
  }
}
