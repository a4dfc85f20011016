import { previewExample, type PreviewPiece } from "@sloth/data"
import type { Tokenizer } from "@sloth/model"
import type { ScoredText } from "../preference/completions-unit.ts"

/** Characters of a prompt that a preview shows at each end. */
const ENDS = 160

const shortened = (text: string): string =>
  text.length <= 2 * ENDS + 20 ? text : `${text.slice(0, ENDS)} [...] ${text.slice(-ENDS)}`

/**
 * Completions of one prompt for showing: the prompt once, shortened in its middle, then each completion under its name with its scored tokens marked. Special tokens
 * are shown.
 */
export const previewCompletions = (
  texts: readonly (readonly [name: string, text: ScoredText])[],
  tokenizer: Pick<Tokenizer, "streamDecoder">,
): PreviewPiece[] => {
  const part = ({ tokens, scored }: ScoredText, from: number, to = tokens.length): PreviewPiece[] =>
    previewExample({ tokens: tokens.subarray(from, to), mask: scored.subarray(from, to) }, tokenizer)
  const first = texts[0]![1]
  const prompt = part(first, 0, first.scored.indexOf(1))
  return [
    { text: shortened(prompt.map(({ text }) => text).join("")), scored: false },
    ...texts.flatMap(([name, text]) => [
      { text: `\n${name}: `, scored: false },
      // What a template prints after the answer is not scored, and only makes the list of completions longer.
      ...part(text, text.scored.indexOf(1), text.scored.lastIndexOf(1) + 1),
    ]),
  ]
}
