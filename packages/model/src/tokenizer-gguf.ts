import { SlothError } from "@sloth/core"
import { ggufBoolean, ggufNumber, ggufNumbers, ggufString, ggufStrings, type GgufMetadata } from "./gguf-types.ts"
import { preNames as knownPreNames, preRule } from "./internal/gguf-pre.ts"
import {
  tokenizerError,
  type AddedTokenJson,
  type BpeJson,
  type JsonNode,
  type TokenizerJson,
} from "./internal/tokenizer-json.ts"
import { HfTokenizer } from "./tokenizer-hf.ts"

/** Kinds of tokens in `tokenizer.ggml.token_type`. */
export const ggufTokenType = {
  normal: 1,
  unknown: 2,
  control: 3,
  userDefined: 4,
  unused: 5,
  byte: 6,
} as const

/** The values of `tokenizer.ggml.pre` that {@link tokenizerFromGguf} understands. */
export const ggufPreNames = (): string[] => knownPreNames()

interface Vocabulary {
  readonly tokens: readonly string[]
  readonly types: readonly number[] | undefined
}

const readVocabulary = (metadata: GgufMetadata, path: string): Vocabulary => {
  const tokens = ggufStrings(metadata, "tokenizer.ggml.tokens")
  if (tokens === undefined || tokens.length === 0) {
    throw tokenizerError(
      "MISSING",
      `${path} has no tokenizer (tokenizer.ggml.tokens).`,
      "Use a complete model file; adapters and projector files have none.",
      { path },
    )
  }
  const types = ggufNumbers(metadata, "tokenizer.ggml.token_type")
  if (types !== undefined && types.length !== tokens.length) {
    throw tokenizerError(
      "GGUF",
      `${path} has ${tokens.length} tokens but ${types.length} token types.`,
      "The file is damaged; download or convert it again.",
      { path, tokens: tokens.length, types: types.length },
    )
  }
  return { tokens, types }
}

const vocabRecord = (tokens: readonly string[], path: string): Record<string, number> => {
  const vocab: Record<string, number> = Object.create(null) as Record<string, number>
  for (const [id, token] of tokens.entries()) {
    const text = token === "" ? `[EMPTY_${id}]` : token
    if (vocab[text] !== undefined) {
      throw tokenizerError(
        "GGUF",
        `${path}: the token ${JSON.stringify(text)} has the ids ${vocab[text]} and ${id}.`,
        "The file is damaged; convert it again.",
        { path, token: text, ids: [vocab[text], id] },
      )
    }
    vocab[text] = id
  }
  return vocab
}

/** Tokens that are found in the text before anything else. */
const addedTokens = (v: Vocabulary): AddedTokenJson[] => {
  const added: AddedTokenJson[] = []
  for (const [id, content] of v.tokens.entries()) {
    const type = v.types?.[id] ?? ggufTokenType.normal
    const special = type === ggufTokenType.control || type === ggufTokenType.unknown
    if ((!special && type !== ggufTokenType.userDefined) || content === "") continue
    added.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special })
  }
  return added
}

const baseModel: Omit<BpeJson, "vocab" | "merges"> = {
  type: "BPE",
  dropout: null,
  unk_token: null,
  continuing_subword_prefix: null,
  end_of_word_suffix: null,
  fuse_unk: false,
  byte_fallback: false,
  ignore_merges: false,
}

type Shape = Pick<TokenizerJson, "normalizer" | "pre_tokenizer" | "decoder" | "model"> & { readonly addBos: boolean }

/** Byte-level BPE: merges are in the file, the way text is cut is a name. */
const byteLevelShape = (metadata: GgufMetadata, v: Vocabulary, path: string): Shape => {
  const rule = preRule(ggufString(metadata, "tokenizer.ggml.pre"))
  const merges = ggufStrings(metadata, "tokenizer.ggml.merges")
  if (merges === undefined) {
    throw tokenizerError("GGUF", `${path} has a byte-level tokenizer without merges.`, "Convert it again.", { path })
  }
  return {
    normalizer: rule.nfc ? { type: "NFC" } : null,
    pre_tokenizer: rule.preTokenizer,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      ...baseModel,
      ignore_merges: rule.ignoreMerges,
      vocab: vocabRecord(v.tokens, path),
      // The separator is the first space after the first character: the left part may itself be a space character.
      merges: merges.map((m, i) => {
        const at = m.indexOf(" ", 1)
        if (at < 0)
          throw tokenizerError("GGUF", `${path}: merge ${i} has no second part.`, "Convert it again.", { path })
        return [m.slice(0, at), m.slice(at + 1)] as const
      }),
    },
    addBos: rule.addBos,
  }
}

const mark = "\u2581"

/**
 * Merges of a SentencePiece vocabulary, which joins the pair whose joined piece has the best score: every way to cut a piece into two pieces is a merge,
 * in the order of the scores.
 */
const mergesFromScores = (v: Vocabulary, scores: readonly number[]): (readonly [string, string])[] => {
  const joinable = new Map<string, number>()
  for (const [id, token] of v.tokens.entries()) {
    const type = v.types?.[id] ?? ggufTokenType.normal
    if (type === ggufTokenType.normal || type === ggufTokenType.userDefined) joinable.set(token, id)
  }
  const found: { left: string; right: string; leftId: number; rightId: number; score: number; id: number }[] = []
  for (const [token, id] of joinable) {
    let at = 0
    for (const c of token) {
      at += c.length
      if (at >= token.length) break
      const left = token.slice(0, at)
      const right = token.slice(at)
      const leftId = joinable.get(left)
      const rightId = joinable.get(right)
      if (leftId !== undefined && rightId !== undefined) {
        found.push({ left, right, leftId, rightId, score: scores[id] ?? 0, id })
      }
    }
  }
  found.sort((a, b) => b.score - a.score || a.id - b.id || a.leftId - b.leftId || a.rightId - b.rightId)
  return found.map((m) => [m.left, m.right] as const)
}

/** SentencePiece BPE: spaces become U+2581, bytes without a piece become byte tokens. */
const sentencePieceShape = (metadata: GgufMetadata, v: Vocabulary, path: string): Shape => {
  const scores = ggufNumbers(metadata, "tokenizer.ggml.scores")
  if (scores === undefined || scores.length !== v.tokens.length) {
    throw tokenizerError(
      "GGUF",
      `${path} has a SentencePiece tokenizer with ${scores?.length ?? 0} scores for ${v.tokens.length} tokens.`,
      "Convert it again.",
      { path },
    )
  }
  const prefix = ggufBoolean(metadata, "tokenizer.ggml.add_space_prefix") ?? true
  const unk = ggufNumber(metadata, "tokenizer.ggml.unknown_token_id") ?? 0
  const spaces: JsonNode = { type: "Replace", pattern: { String: " " }, content: mark }
  const decoders: JsonNode[] = [
    { type: "Replace", pattern: { String: mark }, content: " " },
    { type: "ByteFallback" },
    { type: "Fuse" },
  ]
  return {
    normalizer: prefix ? { type: "Sequence", normalizers: [{ type: "Prepend", prepend: mark }, spaces] } : spaces,
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: prefix ? [...decoders, { type: "Strip", content: " ", start: 1, stop: 0 }] : decoders,
    },
    model: {
      ...baseModel,
      unk_token: v.tokens[unk] ?? null,
      fuse_unk: true,
      byte_fallback: true,
      vocab: vocabRecord(v.tokens, path),
      merges: mergesFromScores(v, scores),
    },
    addBos: true,
  }
}

const postProcessor = (
  before: string | undefined,
  after: string | undefined,
  vocab: Readonly<Record<string, number>>,
): JsonNode | null => {
  if (before === undefined && after === undefined) return null
  const special = (id: string) => ({ SpecialToken: { id, type_id: 0 } })
  const both = [before, after].filter((t): t is string => t !== undefined)
  const around = (inner: object[]): object[] => [
    ...(before === undefined ? [] : [special(before)]),
    ...inner,
    ...(after === undefined ? [] : [special(after)]),
  ]
  return {
    type: "TemplateProcessing",
    single: around([{ Sequence: { id: "A", type_id: 0 } }]),
    pair: around([{ Sequence: { id: "A", type_id: 0 } }, { Sequence: { id: "B", type_id: 0 } }]),
    special_tokens: Object.fromEntries(both.map((t) => [t, { id: t, ids: [vocab[t]], tokens: [t] }])),
  }
}

/**
 * Makes the tokenizer that a GGUF file describes in its metadata. The ids are those of the tokenizer.json the file was converted from.
 *
 * **Errors**: `SLOTH_TOKENIZER_MISSING`, `SLOTH_TOKENIZER_GGUF` (arrays that contradict each other), `SLOTH_TOKENIZER_GGUF_MODEL` (a kind other than
 * `gpt2` and `llama`), `SLOTH_TOKENIZER_PRE` (unknown `tokenizer.ggml.pre`; names those known).
 *
 * **Source**: ggml `docs/gguf.md`, llama.cpp `src/llama-vocab.cpp`.
 */
export const tokenizerFromGguf = (metadata: GgufMetadata, path = "The GGUF file"): HfTokenizer => {
  const kind = ggufString(metadata, "tokenizer.ggml.model")
  const v = readVocabulary(metadata, path)
  if (kind !== "gpt2" && kind !== "llama") {
    throw new SlothError("SLOTH_TOKENIZER_GGUF_MODEL", {
      what: `${path} has a tokenizer of the kind ${JSON.stringify(kind)}.`,
      next: "The kinds gpt2 (byte-level BPE) and llama (SentencePiece BPE) are read. Use the model's safetensors release instead.",
      fields: { path, model: kind },
    })
  }
  const shape = kind === "gpt2" ? byteLevelShape(metadata, v, path) : sentencePieceShape(metadata, v, path)
  const tokenOf = (key: string): string | undefined => {
    const id = ggufNumber(metadata, `tokenizer.ggml.${key}_token_id`)
    return id === undefined ? undefined : v.tokens[id]
  }
  const bos = tokenOf("bos")
  const eos = tokenOf("eos")
  const addBos = (ggufBoolean(metadata, "tokenizer.ggml.add_bos_token") ?? shape.addBos) && bos !== undefined
  const addEos = (ggufBoolean(metadata, "tokenizer.ggml.add_eos_token") ?? false) && eos !== undefined
  const chatTemplate = ggufString(metadata, "tokenizer.chat_template")
  const config: Record<string, unknown> = { tokenizer_class: "PreTrainedTokenizerFast" }
  const name = (key: string, token: string | undefined): void => {
    if (token !== undefined) config[key] = token
  }
  name("bos_token", bos)
  name("eos_token", eos)
  name("unk_token", tokenOf("unknown"))
  name("pad_token", tokenOf("padding"))
  config["add_bos_token"] = addBos
  config["add_eos_token"] = addEos
  config["clean_up_tokenization_spaces"] = false
  const context = ggufNumber(metadata, `${ggufString(metadata, "general.architecture") ?? ""}.context_length`)
  if (context !== undefined) config["model_max_length"] = context
  name("chat_template", chatTemplate)
  const ends = ["eos", "eot", "eom"].flatMap((key) => {
    const id = ggufNumber(metadata, `tokenizer.ggml.${key}_token_id`)
    return id !== undefined && id < v.tokens.length ? [id] : []
  })
  return new HfTokenizer({
    json: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(v),
      normalizer: shape.normalizer,
      pre_tokenizer: shape.pre_tokenizer,
      post_processor: postProcessor(addBos ? bos : undefined, addEos ? eos : undefined, shape.model.vocab),
      decoder: shape.decoder,
      model: shape.model,
    },
    config,
    generation: { eos_token_id: ends },
    chatTemplate,
    gguf: new Map([...metadata].filter(([key]) => key.startsWith("tokenizer."))),
  })
}
