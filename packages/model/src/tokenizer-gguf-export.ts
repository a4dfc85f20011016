import { ggufString, type GgufMetadata, type GgufValue } from "./gguf-types.ts"
import { detectPre, preNames } from "./internal/gguf-pre.ts"
import { isEndText } from "./internal/special-tokens.ts"
import { flatten, tokenizerError, type JsonNode, type TokenizerJson } from "./internal/tokenizer-json.ts"
import { ggufTokenType } from "./tokenizer-gguf.ts"
import { createTokenizer, HfTokenizer } from "./tokenizer-hf.ts"
import type { Tokenizer } from "./tokenizer.ts"

const mark = "\u2581"
const byteToken = /^<0x[0-9A-F]{2}>$/

const text = (value: string): GgufValue => ({ type: "string", value })
const id = (value: number): GgufValue => ({ type: "u32", value })
const flag = (value: boolean): GgufValue => ({ type: "bool", value })

/** Whether a definition is SentencePiece BPE as GGUF's kind `llama` has it; undefined where it is not, else whether a space is put in front. */
const sentencePiecePrefix = (json: TokenizerJson): boolean | undefined => {
  if (!json.model.byte_fallback) return undefined
  const isSpaces = (n: JsonNode): boolean =>
    n.type === "Replace" && (n["pattern"] as { String?: string } | undefined)?.String === " " && n["content"] === mark
  const normalizers = flatten(json.normalizer)
  const stages = flatten(json.pre_tokenizer)
  // Gemma 3 cuts at spaces after the normalizer has replaced them all, so that stage never acts.
  const idle = (n: JsonNode): boolean =>
    n.type === "Split" &&
    (n["pattern"] as { String?: string } | undefined)?.String === " " &&
    normalizers.some(isSpaces)
  if (stages.every(idle) && normalizers.some(isSpaces)) {
    const rest = normalizers.filter((n) => !isSpaces(n))
    if (rest.length === 0) return false
    if (rest.length === 1 && rest[0]!.type === "Prepend" && rest[0]!["prepend"] === mark) return true
    return undefined
  }
  if (stages.length === 1 && stages[0]!.type === "Metaspace" && normalizers.length === 0) {
    return stages[0]!["prepend_scheme"] !== "never"
  }
  return undefined
}

interface Row {
  token: string
  type: number
}

const rowsOf = (json: TokenizerJson, size: number, spaces: boolean): Row[] => {
  const rows: Row[] = Array.from({ length: size }, (_, i) => ({ token: `[PAD${i}]`, type: ggufTokenType.unused }))
  for (const [token, i] of Object.entries(json.model.vocab)) {
    const byte = json.model.byte_fallback && byteToken.test(token)
    rows[i] = { token, type: byte ? ggufTokenType.byte : ggufTokenType.normal }
  }
  for (const added of json.added_tokens) {
    // Control tokens are never given out as text; GGUF has no other mark for "special".
    const control = added.special || /^<\|.*\|>$/.test(added.content)
    rows[added.id] = control
      ? { token: added.content, type: ggufTokenType.control }
      : { token: spaces ? added.content.replaceAll(mark, " ") : added.content, type: ggufTokenType.userDefined }
  }
  if (spaces && json.model.unk_token !== null) {
    const unk = json.model.vocab[json.model.unk_token]
    if (unk !== undefined) rows[unk] = { token: json.model.unk_token, type: ggufTokenType.unknown }
  }
  return rows
}

/** Pieces score by the rank of the first merge that makes them: the same order of joining, whatever the original scores were. */
const scoresOf = (json: TokenizerJson, rows: readonly Row[]): number[] => {
  const rank = new Map<string, number>()
  for (const [i, [left, right]] of json.model.merges.entries()) {
    const piece = left + right
    if (!rank.has(piece)) rank.set(piece, i)
  }
  const last = json.model.merges.length
  return rows.map((row) => (row.type === ggufTokenType.normal ? -(rank.get(row.token) ?? last) : 0))
}

/** What {@link tokenizerToGgufMetadata} needs to know beyond the tokenizer. */
export interface TokenizerToGgufOptions {
  /** Value of `tokenizer.ggml.pre`; found from the tokenizer's definition where it is not given. */
  readonly pre?: string
  /** Rows of the embedding, in tokens; missing tokens are filled with unused `[PADn]` entries. */
  readonly vocabRows?: number
}

const withRows = (source: GgufMetadata, rows: number): GgufMetadata | undefined => {
  const tokens = source.get("tokenizer.ggml.tokens")
  return tokens?.type === "array" && tokens.value.length === rows ? source : undefined
}

/**
 * The `tokenizer.*` metadata of a GGUF file for a tokenizer. What was read from GGUF is given back as it was.
 *
 * **Errors**: `SLOTH_TOKENIZER_PRE_UNKNOWN` where no GGUF name has the tokenizer's way of cutting text, `SLOTH_TOKENIZER_ROWS` where it has more tokens
 * than the model has rows.
 *
 * **Source**: llama.cpp `gguf-py/gguf/vocab.py`, `conversion/base.py`; names by the pre-tokenizer's expressions, as Ollama does.
 */
export const tokenizerToGgufMetadata = (
  tokenizer: Tokenizer,
  options: TokenizerToGgufOptions = {},
): ReadonlyMap<string, GgufValue> => {
  const full =
    tokenizer instanceof HfTokenizer
      ? tokenizer
      : createTokenizer({
          tokenizerJson: tokenizer.files.tokenizerJson,
          tokenizerConfig: tokenizer.files.tokenizerConfig,
        })
  const json = full.definition
  const rows = options.vocabRows ?? tokenizer.vocabSize
  if (rows < tokenizer.vocabSize) {
    throw tokenizerError(
      "ROWS",
      `The tokenizer has ${tokenizer.vocabSize} tokens but the model only ${rows} embedding rows.`,
      "Export with the tokenizer that belongs to the model.",
      { tokens: tokenizer.vocabSize, rows },
    )
  }
  if (full.ggufSource !== undefined && options.pre === undefined) {
    const kept = withRows(full.ggufSource, rows)
    if (kept !== undefined) return kept
  }
  const out = new Map<string, GgufValue>()
  const prefix = sentencePiecePrefix(json)
  const table = rowsOf(json, rows, prefix !== undefined)
  if (prefix === undefined) {
    const pre =
      options.pre ??
      (full.ggufSource === undefined ? undefined : ggufString(full.ggufSource, "tokenizer.ggml.pre")) ??
      detectPre(flatten(json.pre_tokenizer), json.model.ignore_merges, flatten(json.normalizer))
    if (pre === undefined) {
      throw tokenizerError(
        "PRE_UNKNOWN",
        "The way this tokenizer cuts text has no name in GGUF that is known here.",
        `Pass the value of tokenizer.ggml.pre that llama.cpp uses for the base model. Known: ${preNames().join(", ")}.`,
        { known: preNames() },
      )
    }
    out.set("tokenizer.ggml.model", text("gpt2"))
    out.set("tokenizer.ggml.pre", text(pre))
  } else {
    out.set("tokenizer.ggml.model", text("llama"))
    out.set("tokenizer.ggml.pre", text("default"))
  }
  out.set("tokenizer.ggml.tokens", { type: "array", items: "string", value: table.map((r) => r.token) })
  if (prefix !== undefined) {
    out.set("tokenizer.ggml.scores", { type: "array", items: "f32", value: scoresOf(json, table) })
  }
  out.set("tokenizer.ggml.token_type", { type: "array", items: "i32", value: table.map((r) => r.type) })
  if (prefix === undefined) {
    const part = (piece: string): string => piece.replaceAll(" ", "\u0120")
    out.set("tokenizer.ggml.merges", {
      type: "array",
      items: "string",
      value: json.model.merges.map(([left, right]) => `${part(left)} ${part(right)}`),
    })
  }
  const { bos, eos, pad, unk } = tokenizer.special
  if (bos !== undefined) out.set("tokenizer.ggml.bos_token_id", id(bos))
  if (eos !== undefined) out.set("tokenizer.ggml.eos_token_id", id(eos))
  // Readers know the usual end tokens by their text; any other must be named.
  const turn = [...tokenizer.endOfGeneration].find((i) => i !== eos && !isEndText(tokenizer.idToToken(i) ?? ""))
  if (turn !== undefined) out.set("tokenizer.ggml.eot_token_id", id(turn))
  if (unk !== undefined) out.set("tokenizer.ggml.unknown_token_id", id(unk))
  if (pad !== undefined) out.set("tokenizer.ggml.padding_token_id", id(pad))
  out.set("tokenizer.ggml.add_bos_token", flag(tokenizer.addBos))
  out.set("tokenizer.ggml.add_eos_token", flag(full.addEos))
  out.set("tokenizer.ggml.add_space_prefix", flag(prefix ?? false))
  if (tokenizer.chatTemplate !== undefined) out.set("tokenizer.chat_template", text(tokenizer.chatTemplate))
  return out
}
