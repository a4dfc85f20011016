/** Token ids of a text with, for each token, the half-open range of UTF-16 code units it came from. */
export interface Encoding {
  readonly ids: number[]
  readonly offsets: readonly (readonly [start: number, end: number])[]
}

/** Turns token ids into text piece by piece; bytes of an unfinished character are held back until they are whole. */
export interface StreamDecoder {
  /** Returns the text that became certain with this token (possibly empty). */
  push(id: number): string
  /** Returns whatever was held back. */
  end(): string
}

/** Ids of the special tokens a model names; `undefined` where it names none. */
export interface SpecialTokens {
  readonly bos?: number
  readonly eos?: number
  readonly pad?: number
  readonly unk?: number
}

/** Text to token ids and back. Both sources (tokenizer.json and GGUF metadata) give the same ids for the same model. */
export interface Tokenizer {
  /** Number of ids, added tokens included. */
  readonly vocabSize: number
  readonly special: SpecialTokens
  /** Ids that end a generation (eos, end-of-turn, ...). */
  readonly endOfGeneration: ReadonlySet<number>
  /** True where the model expects bos in front of a raw text. */
  readonly addBos: boolean
  /** The model's own jinja chat template, if it has one. */
  readonly chatTemplate: string | undefined
  /** sha256 (hex) of the definition, for caches and resume checks. */
  readonly fingerprint: string
  /** The tokenizer.json text and the tokenizer_config.json object that describe this tokenizer, for export. */
  readonly files: { readonly tokenizerJson: string; readonly tokenizerConfig: Readonly<Record<string, unknown>> }
  /** Text to ids. Special tokens written in the text are recognised; bos/eos are only added with `addSpecialTokens: true`. */
  encode(text: string, options?: { addSpecialTokens?: boolean }): number[]
  /** As `encode`, with the range of the text each token came from. Never adds special tokens. */
  encodeWithOffsets(text: string): Encoding
  decode(ids: readonly number[], options?: { skipSpecialTokens?: boolean }): string
  streamDecoder(options?: { skipSpecialTokens?: boolean }): StreamDecoder
  tokenToId(token: string): number | undefined
  idToToken(id: number): string | undefined
}
