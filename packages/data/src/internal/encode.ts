import { SlothError } from "@sloth/core"
import type { Tokenizer } from "@sloth/model"
import type { EndOfTurn, TextSpan } from "../response-spans.ts"
import { describeOrigin } from "../rows.ts"
import type { TokensRow } from "../rows.ts"

/** Token ids int32 `[tokens]` with a mask uint8 `[tokens]`. */
export interface Sequence {
  readonly tokens: Int32Array
  readonly mask: Uint8Array
}

/** Tokenises a text as it is; a token is scored if any of its characters lies in a span. Spans are in order and do not overlap. */
export const encodeScored = (tokenizer: Tokenizer, text: string, spans: readonly TextSpan[]): Sequence => {
  const { ids, offsets } = tokenizer.encodeWithOffsets(text)
  const tokens = Int32Array.from(ids) // [tokens]
  const mask = new Uint8Array(ids.length) // [tokens]
  let k = 0
  for (let i = 0; i < ids.length; i++) {
    const [start, end] = offsets[i] as readonly [number, number]
    while (k < spans.length && (spans[k] as TextSpan).end <= start) k += 1
    const span = spans[k]
    if (span === undefined) break
    // A token of no characters (a byte of a character told before, a dummy prefix) counts by where it stands.
    if (end > span.start || (end === start && start >= span.start)) mask[i] = 1
  }
  return { tokens, mask }
}

/** Checks ids made elsewhere against the tokenizer. Errors: `SLOTH_DATA_TOKEN_RANGE`. */
export const encodeTokensRow = (tokenizer: Tokenizer, row: TokensRow): Sequence => {
  const tokens = Int32Array.from(row.tokens)
  const outside = row.tokens.find((id) => id >= tokenizer.vocabSize)
  if (outside !== undefined) {
    throw new SlothError("SLOTH_DATA_TOKEN_RANGE", {
      what: `${describeOrigin(row.origin)}: token id ${outside} is outside the vocabulary (${tokenizer.vocabSize} ids).`,
      why: "The ids were made with another tokenizer.",
      next: "Tokenise again with this model's tokenizer.",
      fields: { row: row.origin.index, line: row.origin.line, id: outside, vocab: tokenizer.vocabSize },
    })
  }
  return { tokens, mask: row.mask === undefined ? new Uint8Array(tokens.length).fill(1) : Uint8Array.from(row.mask) }
}

/** Texts of the special tokens, under the names that the chat template options have. */
export const specialTokenTexts = (
  tokenizer: Tokenizer,
): { bosToken?: string; eosToken?: string; padToken?: string; unkToken?: string } => {
  const text = (id: number | undefined): string | undefined => (id === undefined ? undefined : tokenizer.idToToken(id))
  const { bos, eos, pad, unk } = tokenizer.special
  return { bosToken: text(bos), eosToken: text(eos), padToken: text(pad), unkToken: text(unk) }
}

/**
 * Finds the end-of-turn token in the template's text after an answer: the first token that ends a generation, else the first special token
 * (a base model given a chat template does not list the template's own).
 */
export const endOfTurnFinder = (tokenizer: Tokenizer): EndOfTurn => {
  const found = new Map<string, number | undefined>()
  const isSpecial = (id: number): boolean =>
    tokenizer.decode([id], { skipSpecialTokens: true }) === "" && tokenizer.decode([id]) !== ""
  return (suffix) => {
    if (found.has(suffix)) return found.get(suffix)
    const { ids, offsets } = tokenizer.encodeWithOffsets(suffix)
    let at = ids.findIndex((id) => id === tokenizer.special.eos || tokenizer.endOfGeneration.has(id))
    if (at < 0) at = ids.findIndex(isSpecial)
    const end = at < 0 ? undefined : offsets[at]?.[1]
    // Tool calls make many different suffixes.
    if (found.size >= 2000) found.clear()
    found.set(suffix, end)
    return end
  }
}
