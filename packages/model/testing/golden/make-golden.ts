/**
 * Makes golden.json: what llama.cpp makes of the texts of vocabularies.json, for every pre-tokenizer name and for the SentencePiece vocabulary.
 *
 * Run by hand with the folder of an installed node-llama-cpp (3.22.1 was used): bun make-golden.ts /path/to/node_modules/node-llama-cpp [model.gguf]
 */
import { createHash } from "node:crypto"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { ggufPreNames, readGguf, writeGguf, type GgufValue } from "../../src/index.ts"
import { byteLevelMetadata, sentencePieceMetadata, vocabularies } from "./vocabularies.ts"

interface Model {
  tokenize(text: string, special: boolean): Iterable<number>
  dispose(): Promise<void>
}
const [, , library, realModel] = process.argv
const { getLlama } = (await import(pathToFileURL(join(library!, "dist/index.js")).href)) as {
  getLlama(o: object): Promise<{ loadModel(o: object): Promise<Model> }>
}
const llama = await getLlama({ gpu: false, build: "never", logLevel: "error" })
const folder = fs.mkdtempSync(join(tmpdir(), "golden-"))

const idsOf = async (path: string, texts: readonly string[]): Promise<number[][]> => {
  const model = await llama.loadModel({ modelPath: path, vocabOnly: true })
  const ids = texts.map((t) => [...model.tokenize(t, true)])
  await model.dispose()
  return ids
}
const idsWith = async (metadata: Iterable<readonly [string, GgufValue]>, texts: readonly string[]) => {
  const path = join(folder, "vocab.gguf")
  const shape = { context_length: 64, embedding_length: 64, block_count: 1, feed_forward_length: 64 }
  const hyper: [string, GgufValue][] = Object.entries({ ...shape, "attention.head_count": 1 }).map(([key, value]) => [
    `llama.${key}`,
    { type: "u32", value },
  ])
  hyper.push(["llama.attention.layer_norm_rms_epsilon", { type: "f32", value: 1e-5 }])
  await writeGguf(path, [...metadata, ...hyper], [])
  return idsOf(path, texts)
}
const digest = (ids: readonly number[]): string => createHash("sha256").update(ids.join(",")).digest("hex").slice(0, 8)

const { texts, sentencePiece } = vocabularies()
const pre: Record<string, string[]> = {}
for (const name of ggufPreNames()) {
  try {
    pre[name] = (await idsWith(byteLevelMetadata(name), texts)).map(digest)
  } catch (error) {
    console.error(name, String(error))
  }
}
const spm: Record<string, string[]> = {}
for (const prefix of [true, false]) {
  spm[String(prefix)] = (await idsWith(sentencePieceMetadata(prefix), sentencePiece.plain)).map(digest)
}
const real = realModel === undefined ? [] : await idsOf(realModel, texts)
const tokens = realModel === undefined ? undefined : readGguf(realModel).metadata.get("tokenizer.ggml.tokens")
fs.writeFileSync(
  join(import.meta.dirname, "golden.json"),
  `${JSON.stringify({ nodeLlamaCpp: "3.22.1", pre, sentencePiece: spm, smollm2: { tokens: tokens?.type === "array" ? tokens.value.length : 0, ids: real } })}\n`,
)
fs.rmSync(folder, { recursive: true })
process.exit(0)
