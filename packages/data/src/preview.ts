import type { Tokenizer } from "@sloth/model"
import type { Example } from "./example.ts"

/** A stretch of an example's text that is scored as a whole or not at all. */
export interface PreviewPiece {
  readonly text: string
  readonly scored: boolean
}

/**
 * Decodes an example into stretches of scored and unscored text, special tokens shown, for highlighting in a terminal.
 * A character made of several tokens belongs to the token that completes it.
 */
export const previewExample = (
  example: Pick<Example, "tokens" | "mask">,
  tokenizer: Pick<Tokenizer, "streamDecoder">,
): PreviewPiece[] => {
  const decoder = tokenizer.streamDecoder({ skipSpecialTokens: false })
  const pieces: { text: string; scored: boolean }[] = []
  const add = (text: string, scored: boolean): void => {
    if (text === "") return
    const last = pieces.at(-1)
    if (last?.scored === scored) last.text += text
    else pieces.push({ text, scored })
  }
  let scored = false
  example.tokens.forEach((id, i) => {
    scored = example.mask[i] === 1
    add(decoder.push(id), scored)
  })
  add(decoder.end(), scored)
  return pieces
}
