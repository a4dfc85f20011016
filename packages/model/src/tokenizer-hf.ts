import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { join } from "node:path"
import { fileError } from "@sloth/core"
import type { GgufMetadata } from "./gguf-types.ts"
import { AddedTokenMatcher } from "./internal/added-tokens.ts"
import { alignNormalized, pieceRanges, type Alignment } from "./internal/alignment.ts"
import { Bpe } from "./internal/bpe.ts"
import {
  nativeParts,
  withoutFirstPrefix,
  type NativeNormalizer,
  type NativePreTokenizer,
} from "./internal/native-tokenizers.ts"
import { endOfGenerationByText, namedTokens, specialIds, templateIds } from "./internal/special-tokens.ts"
import { byteLevelStream, windowStream } from "./internal/stream-decoder.ts"
import {
  flatten,
  parseTokenizerJson,
  tokenizerError,
  type AddedTokenJson,
  type TokenizerJson,
} from "./internal/tokenizer-json.ts"
import type { Encoding, SpecialTokens, StreamDecoder, Tokenizer } from "./tokenizer.ts"

/** What a tokenizer is made from: the texts and objects of a model's tokenizer files. */
export interface TokenizerSource {
  /** The text of tokenizer.json. */
  readonly tokenizerJson: string
  /** tokenizer_config.json. */
  readonly tokenizerConfig?: Readonly<Record<string, unknown>>
  /** generation_config.json: further ids that end a generation. */
  readonly generationConfig?: Readonly<Record<string, unknown>>
  /** The chat template, where it is not in the configuration. */
  readonly chatTemplate?: string
}

/** Everything a {@link HfTokenizer} is built from once its files have been checked. */
export interface TokenizerParts {
  readonly json: TokenizerJson
  /** The exact text to hand out for export; made from `json` where it is absent. */
  readonly jsonText?: string
  readonly config: Readonly<Record<string, unknown>>
  readonly generation: Readonly<Record<string, unknown>>
  readonly chatTemplate: string | undefined
  /** The `tokenizer.*` metadata this tokenizer was read from, if it was a GGUF file. */
  readonly gguf?: GgufMetadata
}

const unicodeForms = new Set(["NFC", "NFD", "NFKC", "NFKD"])
const ascii = /^[\0-\x7f]*$/
const loneSurrogate = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g

/**
 * A tokenizer on the tokenizers library (normalizers, pre-tokenizers, decoders) with a synchronous BPE step.
 * Made by {@link createTokenizer}, {@link loadTokenizerFolder} or `tokenizerFromGguf`.
 */
export class HfTokenizer implements Tokenizer {
  readonly vocabSize: number
  readonly special: SpecialTokens
  readonly endOfGeneration: ReadonlySet<number>
  readonly addBos: boolean
  /** True where eos is put after a raw text. */
  readonly addEos: boolean
  readonly chatTemplate: string | undefined
  /** The checked definition. */
  readonly definition: TokenizerJson
  /** `tokenizer.*` metadata of the GGUF file this came from; export gives it back unchanged. */
  readonly ggufSource: GgufMetadata | undefined

  private readonly parts: TokenizerParts
  private readonly vocab: ReadonlyMap<string, number>
  private readonly tokens: readonly (string | undefined)[]
  private readonly skippable: ReadonlySet<number>
  private readonly before: readonly number[]
  private readonly after: readonly number[]
  private readonly bpe: Bpe
  private readonly byteLevel: boolean
  private readonly rawMatcher: AddedTokenMatcher
  private readonly normalizedMatcher: AddedTokenMatcher
  private readonly normalizer: NativeNormalizer | undefined
  private readonly keepsAscii: boolean
  private readonly prepended: string
  private readonly clusterNormalizer: NativeNormalizer | undefined
  private readonly clusterCache = new Map<string, string>()
  private readonly preTokenizer: NativePreTokenizer | undefined
  private readonly laterPreTokenizer: NativePreTokenizer | undefined
  private readonly decodeTokens: (tokens: string[]) => string
  private readonly streamsBytes: boolean
  private hash: string | undefined
  private text: string | undefined

  constructor(parts: TokenizerParts) {
    const { json } = parts
    this.parts = parts
    this.definition = json
    this.ggufSource = parts.gguf
    this.chatTemplate = parts.chatTemplate

    const vocab = new Map(Object.entries(json.model.vocab))
    const tokens: (string | undefined)[] = []
    for (const [token, id] of vocab) tokens[id] = token
    const modelVocab = new Map(vocab)
    for (const t of json.added_tokens) {
      vocab.set(t.content, t.id)
      tokens[t.id] = t.content
    }
    this.vocab = vocab
    this.tokens = tokens
    this.vocabSize = tokens.length
    this.skippable = specialIds(json.added_tokens)

    const idOf = (token: string): number | undefined => this.vocab.get(token)
    const { special: named, ends } = namedTokens(idOf, parts.config, parts.generation)
    const template = templateIds(json, idOf)
    const first = template.before[0]
    // Without a configuration the one token that the post-processor puts in front is bos.
    const special = named.bos === undefined && first !== undefined ? { ...named, bos: first } : named
    this.special = special
    this.endOfGeneration = endOfGenerationByText(json.added_tokens, ends)
    const templateBos = special.bos !== undefined && template.before.includes(special.bos)
    // The Llama tokenizer classes follow the configuration where it differs from tokenizer.json.
    const asked = parts.config["add_bos_token"]
    this.addBos = typeof asked === "boolean" && special.bos !== undefined ? asked : templateBos
    const rest = template.before.filter((id) => id !== special.bos)
    this.before = this.addBos ? [special.bos!, ...rest] : rest
    this.after = template.after
    this.addEos = special.eos !== undefined && template.after.includes(special.eos)

    const stages = flatten(json.pre_tokenizer)
    this.byteLevel = stages.some((n) => n.type === "ByteLevel")
    this.bpe = new Bpe(json.model, modelVocab, this.byteLevel)
    const main = nativeParts(json.normalizer, json.pre_tokenizer, json.decoder)
    this.normalizer = main.normalizer
    this.preTokenizer = main.preTokenizer
    const later = withoutFirstPrefix(json.pre_tokenizer)
    this.laterPreTokenizer = stages.some((n) => n["prepend_scheme"] === "first")
      ? nativeParts(null, later, null).preTokenizer
      : main.preTokenizer
    const normalizers = flatten(json.normalizer)
    this.keepsAscii = normalizers.every((n) => unicodeForms.has(n.type))
    this.prepended = normalizers.map((n) => (n.type === "Prepend" ? String(n["prepend"]) : "")).join("")
    const perCluster = normalizers.filter((n) => n.type !== "Prepend")
    this.clusterNormalizer =
      this.prepended === ""
        ? main.normalizer
        : nativeParts({ type: "Sequence", normalizers: perCluster }, null, null).normalizer

    const { decoder } = main
    this.decodeTokens = decoder === undefined ? (list) => list.join(" ") : (list) => decoder.decode(list)
    const decoders = flatten(json.decoder)
    this.streamsBytes = decoders.length === 1 && decoders[0]!.type === "ByteLevel"

    // As in the library, a normalized added token is looked for, and decoded, in its normalized form.
    const normalizedText = (t: AddedTokenJson): string => main.normalizer?.normalizeString(t.content) ?? t.content
    for (const t of json.added_tokens) if (t.normalized) tokens[t.id] = normalizedText(t)
    this.rawMatcher = new AddedTokenMatcher(
      json.added_tokens.filter((t) => !t.normalized),
      (t) => t.content,
    )
    this.normalizedMatcher = new AddedTokenMatcher(
      json.added_tokens.filter((t) => t.normalized),
      normalizedText,
    )
  }

  get fingerprint(): string {
    if (this.hash === undefined) {
      const { tokenizerJson, tokenizerConfig } = this.files
      this.hash = createHash("sha256")
        .update(tokenizerJson)
        .update(JSON.stringify([tokenizerConfig, this.chatTemplate ?? null, [...this.endOfGeneration].sort()]))
        .digest("hex")
    }
    return this.hash
  }

  get files(): { readonly tokenizerJson: string; readonly tokenizerConfig: Readonly<Record<string, unknown>> } {
    this.text ??= this.parts.jsonText ?? JSON.stringify(this.definition)
    return { tokenizerJson: this.text, tokenizerConfig: this.parts.config }
  }

  encode(text: string, options?: { addSpecialTokens?: boolean }): number[] {
    const ids: number[] = options?.addSpecialTokens === true ? [...this.before] : []
    this.encodeInto(text, ids, undefined)
    if (options?.addSpecialTokens === true) ids.push(...this.after)
    return ids
  }

  encodeWithOffsets(text: string): Encoding {
    const ids: number[] = []
    const offsets: (readonly [number, number])[] = []
    this.encodeInto(text, ids, offsets)
    return { ids, offsets }
  }

  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string {
    const list: string[] = []
    for (const id of ids) {
      const token = this.tokens[id]
      if (token !== undefined && !(options?.skipSpecialTokens === true && this.skippable.has(id))) list.push(token)
    }
    return list.length === 0 ? "" : this.decodeTokens(list)
  }

  streamDecoder(options?: { skipSpecialTokens?: boolean }): StreamDecoder {
    const skip = options?.skipSpecialTokens === true
    const tokenOf = (id: number): string | undefined => (skip && this.skippable.has(id) ? undefined : this.tokens[id])
    return this.streamsBytes ? byteLevelStream(tokenOf) : windowStream(tokenOf, this.decodeTokens)
  }

  tokenToId(token: string): number | undefined {
    return this.vocab.get(token)
  }

  idToToken(id: number): string | undefined {
    return this.tokens[id]
  }

  private encodeInto(text: string, ids: number[], offsets: (readonly [number, number])[] | undefined): void {
    // A lone surrogate has no UTF-8; one unit replaces one unit, so offsets stay true.
    const clean = text.replace(loneSurrogate, "\ufffd")
    for (const segment of this.rawMatcher.split(clean)) {
      if (segment.id === undefined)
        this.encodePlain(clean.slice(segment.start, segment.end), segment.start, ids, offsets)
      else {
        ids.push(segment.id)
        offsets?.push([segment.start, segment.end])
      }
    }
  }

  /** Encodes text that has no raw added token in it; `base` is its place in the whole text. */
  private encodePlain(
    raw: string,
    base: number,
    ids: number[],
    offsets: (readonly [number, number])[] | undefined,
  ): void {
    let text = raw
    let alignment: Alignment | undefined
    if (this.normalizer !== undefined && !(this.keepsAscii && ascii.test(raw))) {
      text = this.normalizer.normalizeString(raw)
      if (offsets !== undefined && text !== raw) alignment = this.align(raw, text)
    }
    const place = (start: number, end: number): readonly [number, number] => {
      if (alignment === undefined) return [base + start, base + end]
      if (end > start) return [base + alignment.starts[start]!, base + alignment.ends[end - 1]!]
      const at = base + (alignment.starts[start] ?? raw.length)
      return [at, at]
    }
    for (const segment of this.normalizedMatcher.split(text)) {
      if (segment.id !== undefined) {
        ids.push(segment.id)
        offsets?.push(place(segment.start, segment.end))
        continue
      }
      const part = segment.start === 0 && segment.end === text.length ? text : text.slice(segment.start, segment.end)
      const tokenizer = base + segment.start === 0 ? this.preTokenizer : this.laterPreTokenizer
      this.encodePieces(
        part,
        tokenizer,
        ids,
        offsets && ((s, e) => offsets.push(place(segment.start + s, segment.start + e))),
      )
    }
  }

  private align(raw: string, normalized: string): Alignment {
    const { clusterNormalizer, clusterCache } = this
    return alignNormalized(raw, normalized, this.prepended, (text) => {
      let result = clusterCache.get(text)
      if (result === undefined) {
        result = clusterNormalizer?.normalizeString(text) ?? text
        if (clusterCache.size < 10_000) clusterCache.set(text, result)
      }
      return result
    })
  }

  private encodePieces(
    text: string,
    preTokenizer: NativePreTokenizer | undefined,
    ids: number[],
    place: ((start: number, end: number) => void) | undefined,
  ): void {
    if (preTokenizer === undefined) {
      this.encodePiece(text, text, 0, text.length, ids, place)
      return
    }
    // The library counts characters; strings here are indexed by UTF-16 unit.
    let char = 0
    let unit = 0
    const wide = place !== undefined && /[\ud800-\udbff]/.test(text)
    const unitAt = (target: number): number => {
      if (!wide) return target
      if (target < char) {
        char = 0
        unit = 0
      }
      for (; char < target; char++) unit += text.codePointAt(unit)! > 0xffff ? 2 : 1
      return unit
    }
    for (const [piece, [start, end]] of preTokenizer.preTokenizeString(text)) {
      if (place === undefined) for (const id of this.bpe.encode(piece).ids) ids.push(id)
      else {
        const from = unitAt(start)
        this.encodePiece(piece, text, from, unitAt(end), ids, place)
      }
    }
  }

  private encodePiece(
    piece: string,
    source: string,
    from: number,
    to: number,
    ids: number[],
    place: ((start: number, end: number) => void) | undefined,
  ): void {
    const result = this.bpe.encode(piece)
    for (const id of result.ids) ids.push(id)
    if (place === undefined) return
    if (result.ids.length === 1) place(from, to)
    else for (const [s, e] of pieceRanges(source, from, to, piece, this.byteLevel, result.units)) place(s, e)
  }
}

const templateOf = (config: Readonly<Record<string, unknown>>): string | undefined => {
  const value = config["chat_template"]
  if (typeof value === "string") return value
  if (!Array.isArray(value)) return undefined
  const named = value as { name?: unknown; template?: unknown }[]
  const chosen = named.find((t) => t.name === "default") ?? named[0]
  return typeof chosen?.template === "string" ? chosen.template : undefined
}

/**
 * Makes a tokenizer from the contents of a model's tokenizer files.
 *
 * **Errors**: `SLOTH_TOKENIZER_JSON`, `SLOTH_TOKENIZER_MODEL`, `SLOTH_TOKENIZER_NATIVE`.
 */
export const createTokenizer = (source: TokenizerSource): HfTokenizer => {
  const config = source.tokenizerConfig ?? {}
  return new HfTokenizer({
    json: parseTokenizerJson(source.tokenizerJson),
    jsonText: source.tokenizerJson,
    config,
    generation: source.generationConfig ?? {},
    chatTemplate: source.chatTemplate ?? templateOf(config),
  })
}

const readText = (path: string): string | undefined => {
  try {
    return fs.readFileSync(path, "utf8")
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined
    throw fileError(error, path, "read")
  }
}

const readObject = (path: string): Record<string, unknown> => {
  const text = readText(path)
  if (text === undefined) return {}
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw tokenizerError("JSON", `${path} is not a JSON object.`, "Download or export it again.", { path })
  }
  return value as Record<string, unknown>
}

/**
 * Loads the tokenizer of a model folder: tokenizer.json, and where they exist tokenizer_config.json, generation_config.json, chat_template.jinja
 * and chat_template.json.
 *
 * **Errors**: `SLOTH_TOKENIZER_MISSING`, those of {@link createTokenizer}, `SLOTH_FILE_*`.
 */
export const loadTokenizerFolder = (folder: string): HfTokenizer => {
  const tokenizerJson = readText(join(folder, "tokenizer.json"))
  if (tokenizerJson === undefined) {
    const others = ["tokenizer.model", "spiece.model", "vocab.json", "tekken.json"]
    const found = others.filter((name) => fs.existsSync(join(folder, name)))
    throw tokenizerError(
      "MISSING",
      `The folder ${folder} has no tokenizer.json${found.length > 0 ? ` (only ${found.join(", ")})` : ""}.`,
      "Get the model's tokenizer.json; models published for the tokenizers library have one.",
      { path: folder, found },
    )
  }
  const config = readObject(join(folder, "tokenizer_config.json"))
  const fromJson = readObject(join(folder, "chat_template.json"))["chat_template"]
  const chatTemplate =
    readText(join(folder, "chat_template.jinja")) ??
    templateOf(config) ??
    (typeof fromJson === "string" ? fromJson : undefined)
  return createTokenizer({
    tokenizerJson,
    tokenizerConfig: config,
    generationConfig: readObject(join(folder, "generation_config.json")),
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
  })
}
