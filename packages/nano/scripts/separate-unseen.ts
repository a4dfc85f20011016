/**
 * Gives the ids that the pretraining text never uses rows of their own in the embedding of model/model.safetensors.
 *
 *   bun packages/nano/scripts/separate-unseen.ts            # once, after pretrain.ts
 *
 * The loss pushes all rows of such ids the same way at every step, so they end up equal to four digits: a LoRA, which leaves the embedding alone, could then never tell one
 * from another, and a model that learns a word of these ids answers with any of them. Normal noise puts them apart again, small beside the distance that keeps them from
 * being said.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { readSafetensors } from "@sloth/model"
import { createReferenceBackend, Engine, weightFormat } from "@sloth/tensor"
import { nanoFiles } from "../src/files.ts"
import { generateCorpus, nanoTokenizer, tokenRows } from "./token-rows.ts"

const { data, unseen } = JSON.parse(readFileSync(new URL("../pretrain.json", import.meta.url), "utf8")) as {
  data: { train: { rows: number; seed: number }; maxLength: number }
  unseen: { seed: number; deviation: number }
}
const used = new Set<number>()
for (const { tokens } of tokenRows(generateCorpus(data.train), nanoTokenizer(), data.maxLength, { count: 0 }))
  for (const token of tokens) used.add(token)

const path = join(nanoFiles().model, "model.safetensors")
const entry = readSafetensors(path).tensors.find((t) => t.name === "model.embed_tokens.weight")!
const [vocab, hidden] = entry.shape as [number, number]
const format = weightFormat(entry.dtype.toLowerCase())
const file = readFileSync(path)
const bytes = new Uint8Array(file.buffer, file.byteOffset + entry.offset, entry.bytes)
const rows = new Float32Array(vocab * hidden)
format.dequantizeRow(bytes, rows, rows.length)

const alike = (a: number, b: number): number => {
  let [dot, aa, bb] = [0, 0, 0]
  for (let k = 0; k < hidden; k++) {
    const [x, y] = [rows[a * hidden + k]!, rows[b * hidden + k]!]
    dot += x * y
    aa += x * x
    bb += y * y
  }
  return dot / Math.sqrt(aa * bb)
}
const lonely = Array.from({ length: vocab }, (_, id) => id).filter((id) => !used.has(id))
const [first, last] = [lonely[0]!, lonely.at(-1)!]
const before = alike(first, last)
if (before < 0.99) {
  console.error(
    `The rows of ${lonely.length} unused ids differ already (cosine ${before.toFixed(4)}): nothing was changed.`,
  )
  process.exit(1)
}
using engine = new Engine(createReferenceBackend())
using noise = engine.unscoped([vocab, hidden])
engine.backend.kernels.randomNormal(noise.handle, 0, unseen.deviation, noise.size, unseen.seed, 0)
const draw = await noise.readFloats()
for (const id of lonely) for (let k = id * hidden; k < (id + 1) * hidden; k++) rows[k]! += draw[k]!
format.quantizeRow!(rows, bytes, rows.length)
writeFileSync(path, file)
console.log(
  `${lonely.length} of ${vocab} ids are unused; cosine of the first and the last row ${before.toFixed(4)} -> ${alike(first, last).toFixed(4)}`,
)
