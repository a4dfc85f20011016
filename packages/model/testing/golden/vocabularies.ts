import * as fs from "node:fs"
import { join } from "node:path"
import type { GgufValue } from "../../src/gguf-types.ts"

/** Contents of vocabularies.json. */
export interface Vocabularies {
  readonly texts: readonly string[]
  readonly byteLevel: {
    readonly special: readonly string[]
    readonly tokens: readonly string[]
    readonly merges: readonly string[]
  }
  readonly sentencePiece: {
    readonly tokens: readonly string[]
    readonly scores: readonly number[]
    readonly types: readonly number[]
    /** Texts without the names of control tokens, and what SentencePiece itself makes of them. */
    readonly plain: readonly string[]
    readonly ids: readonly (readonly number[])[]
  }
}

let loaded: Vocabularies | undefined

/** The two small vocabularies and the texts to cut. */
export const vocabularies = (): Vocabularies =>
  (loaded ??= JSON.parse(fs.readFileSync(join(import.meta.dirname, "vocabularies.json"), "utf8")) as Vocabularies)

const text = (value: string): GgufValue => ({ type: "string", value })
const u32 = (value: number): GgufValue => ({ type: "u32", value })
const flag = (value: boolean): GgufValue => ({ type: "bool", value })

/** GGUF metadata of the byte-level vocabulary under a pre-tokenizer name. */
export const byteLevelMetadata = (pre: string): Map<string, GgufValue> => {
  const { special, tokens, merges } = vocabularies().byteLevel
  return new Map<string, GgufValue>([
    ["general.architecture", text("llama")],
    ["tokenizer.ggml.model", text("gpt2")],
    ["tokenizer.ggml.pre", text(pre)],
    ["tokenizer.ggml.tokens", { type: "array", items: "string", value: tokens }],
    [
      "tokenizer.ggml.token_type",
      { type: "array", items: "i32", value: tokens.map((t) => (special.includes(t) ? 3 : 1)) },
    ],
    ["tokenizer.ggml.merges", { type: "array", items: "string", value: merges }],
    ["tokenizer.ggml.bos_token_id", u32(0)],
    ["tokenizer.ggml.eos_token_id", u32(2)],
    ["tokenizer.ggml.add_bos_token", flag(false)],
  ])
}

/** GGUF metadata of the SentencePiece vocabulary. */
export const sentencePieceMetadata = (addSpacePrefix: boolean): Map<string, GgufValue> => {
  const { tokens, scores, types } = vocabularies().sentencePiece
  return new Map<string, GgufValue>([
    ["general.architecture", text("llama")],
    ["tokenizer.ggml.model", text("llama")],
    ["tokenizer.ggml.tokens", { type: "array", items: "string", value: tokens }],
    ["tokenizer.ggml.scores", { type: "array", items: "f32", value: scores }],
    ["tokenizer.ggml.token_type", { type: "array", items: "i32", value: types }],
    ["tokenizer.ggml.bos_token_id", u32(1)],
    ["tokenizer.ggml.eos_token_id", u32(2)],
    ["tokenizer.ggml.unknown_token_id", u32(0)],
    ["tokenizer.ggml.add_bos_token", flag(false)],
    ["tokenizer.ggml.add_space_prefix", flag(addSpacePrefix)],
  ])
}
