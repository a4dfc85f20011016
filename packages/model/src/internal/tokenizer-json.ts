import { SlothError } from "@sloth/core"

/** A normalizer, pre-tokenizer, post-processor or decoder as written in tokenizer.json. */
export interface JsonNode {
  readonly type: string
  readonly [key: string]: unknown
}

/** An entry of `added_tokens`. */
export interface AddedTokenJson {
  readonly id: number
  readonly content: string
  readonly single_word: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
  readonly normalized: boolean
  readonly special: boolean
}

/** The `model` part; only BPE, the model of causal language models, is run. */
export interface BpeJson {
  readonly type: "BPE"
  readonly dropout: number | null
  readonly unk_token: string | null
  readonly continuing_subword_prefix: string | null
  readonly end_of_word_suffix: string | null
  readonly fuse_unk: boolean
  readonly byte_fallback: boolean
  readonly ignore_merges: boolean
  readonly vocab: Readonly<Record<string, number>>
  readonly merges: readonly (readonly [string, string])[]
}

/** The parts of tokenizer.json that decide ids and text. */
export interface TokenizerJson {
  readonly version: string
  readonly truncation: null
  readonly padding: null
  readonly added_tokens: readonly AddedTokenJson[]
  readonly normalizer: JsonNode | null
  readonly pre_tokenizer: JsonNode | null
  readonly post_processor: JsonNode | null
  readonly decoder: JsonNode | null
  readonly model: BpeJson
}

/** Ids beyond this are no vocabulary; the limit keeps a damaged file from growing tables without end. */
export const maxVocab = 1 << 24

/** Makes a coded error about a wrong tokenizer.json. */
export const tokenizerError = (
  name: string,
  what: string,
  next: string,
  fields: Record<string, unknown> = {},
): SlothError => new SlothError(`SLOTH_TOKENIZER_${name}`, { what, next, fields })

const damaged = (what: string, fields?: Record<string, unknown>): SlothError =>
  tokenizerError("JSON", what, "Download or export the tokenizer.json again.", fields)

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const node = (value: unknown, name: string): JsonNode | null => {
  if (value === null || value === undefined) return null
  if (!isObject(value) || typeof value["type"] !== "string") throw damaged(`tokenizer.json: ${name} has no type.`)
  return value as JsonNode
}

/** The nodes of a Sequence, flattened; any other node alone. The lists of nodes have different names in each part. */
export const flatten = (value: JsonNode | null): JsonNode[] => {
  if (value === null) return []
  if (value.type !== "Sequence") return [value]
  const list = value["normalizers"] ?? value["pretokenizers"] ?? value["processors"] ?? value["decoders"]
  return Array.isArray(list) ? (list as JsonNode[]).flatMap(flatten) : []
}

const parseMerge = (merge: unknown, index: number): readonly [string, string] => {
  const pair: unknown = typeof merge === "string" ? merge.split(" ") : merge
  if (!Array.isArray(pair) || pair.length !== 2 || typeof pair[0] !== "string" || typeof pair[1] !== "string") {
    throw damaged(`tokenizer.json: merge ${index} is not a pair of tokens.`, { index })
  }
  return pair as unknown as readonly [string, string]
}

const parseModel = (raw: unknown): BpeJson => {
  if (!isObject(raw)) throw damaged("tokenizer.json has no model.")
  const type = raw["type"] ?? (Array.isArray(raw["merges"]) ? "BPE" : "unknown")
  if (type !== "BPE") {
    throw tokenizerError(
      "MODEL",
      `The tokenizer's model is ${JSON.stringify(type)}; only BPE (byte-level or with byte fallback) is supported.`,
      "Use a model whose tokenizer.json has a model of type BPE, as those of causal language models have.",
      { type },
    )
  }
  const { vocab, merges } = raw
  if (!isObject(vocab) || !Array.isArray(merges)) throw damaged("tokenizer.json: the model has no vocab or no merges.")
  for (const [token, id] of Object.entries(vocab)) {
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) >= maxVocab) {
      throw damaged(`tokenizer.json: the token ${JSON.stringify(token)} has the id ${String(id)}.`, { token })
    }
  }
  const text = (key: string): string | null => (typeof raw[key] === "string" ? raw[key] : null)
  return {
    type: "BPE",
    dropout: null,
    unk_token: text("unk_token"),
    continuing_subword_prefix: text("continuing_subword_prefix"),
    end_of_word_suffix: text("end_of_word_suffix"),
    fuse_unk: raw["fuse_unk"] === true,
    byte_fallback: raw["byte_fallback"] === true,
    ignore_merges: raw["ignore_merges"] === true,
    vocab: vocab as Record<string, number>,
    merges: merges.map(parseMerge),
  }
}

const parseAdded = (raw: unknown): AddedTokenJson => {
  const { id, content } = isObject(raw) ? raw : {}
  if (!isObject(raw) || !Number.isInteger(id) || (id as number) < 0 || (id as number) >= maxVocab) {
    throw damaged("tokenizer.json: an added token has no valid id.", { token: content })
  }
  if (typeof content !== "string" || content === "") {
    throw damaged(`tokenizer.json: the added token ${String(id)} has no content.`, { id })
  }
  const flag = (key: string): boolean => raw[key] === true
  return {
    id: id as number,
    content,
    single_word: flag("single_word"),
    lstrip: flag("lstrip"),
    rstrip: flag("rstrip"),
    // The library takes "normalized" as true where an added token that is not special does not say.
    normalized: raw["normalized"] === undefined ? raw["special"] !== true : flag("normalized"),
    special: flag("special"),
  }
}

/**
 * Added tokens get the id of the vocab, or the next free one; a file that says otherwise would mean other ids in every other program that reads it.
 */
const checkAddedIds = (added: readonly AddedTokenJson[], model: BpeJson): void => {
  let next = Object.keys(model.vocab).length
  for (const t of added) {
    const known = Object.hasOwn(model.vocab, t.content) ? model.vocab[t.content] : undefined
    if (t.id !== (known ?? next)) {
      throw damaged(
        `tokenizer.json: the added token ${JSON.stringify(t.content)} says id ${t.id} where ${known ?? next} is due.`,
        {
          token: t.content,
          id: t.id,
          expected: known ?? next,
        },
      )
    }
    next = Math.max(next, t.id + 1)
  }
}

/**
 * Checks the text of a tokenizer.json and brings old spellings (merges as text, no model type) into one form.
 * BPE dropout and fixed truncation or padding are left out: they would change the ids of a text from call to call.
 */
export const parseTokenizerJson = (text: string): TokenizerJson => {
  let raw: unknown
  try {
    raw = JSON.parse(text)
  } catch (cause) {
    throw new SlothError("SLOTH_TOKENIZER_JSON", {
      what: "tokenizer.json is not JSON.",
      next: "Download or export it again.",
      cause,
    })
  }
  if (!isObject(raw)) throw damaged("tokenizer.json is not an object.")
  const added = raw["added_tokens"] ?? []
  if (!Array.isArray(added)) throw damaged("tokenizer.json: added_tokens is not a list.")
  const model = parseModel(raw["model"])
  const tokens = added.map(parseAdded)
  checkAddedIds(tokens, model)
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: tokens,
    normalizer: node(raw["normalizer"], "normalizer"),
    pre_tokenizer: node(raw["pre_tokenizer"], "pre_tokenizer"),
    post_processor: node(raw["post_processor"], "post_processor"),
    decoder: node(raw["decoder"], "decoder"),
    model,
  }
}
