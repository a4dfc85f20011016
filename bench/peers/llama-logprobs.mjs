// Log-probs of token sequences by llama.cpp (node-llama-cpp) with keys and values in f32; runs in the folder that holds it. Usage: node llama-logprobs.mjs <request.json>
// Request: {model, lora?, texts: [[ids]], threads}. Prints {logprobs: [[nats, first null]]}.
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const entry = createRequire(join(process.cwd(), "x.js")).resolve("node-llama-cpp")
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href)
const request = JSON.parse(readFileSync(process.argv[2], "utf8"))
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: request.threads })
const model = await llama.loadModel({ modelPath: request.model })
const longest = Math.max(8, ...request.texts.map((t) => t.length))
const context = await model.createContext({
  contextSize: longest + 8,
  batchSize: longest + 8,
  threads: request.threads,
  flashAttention: false,
  // Keys and values are 16-bit otherwise, which is what would be measured then.
  experimentalKvCacheKeyType: "F32",
  experimentalKvCacheValueType: "F32",
  ...(request.lora ? { lora: { adapters: [{ filePath: request.lora, scale: 1 }] } } : {}),
})
const sequence = context.getSequence()
const logprobs = []
for (const text of request.texts) {
  await sequence.clearHistory()
  const out = await sequence.controlledEvaluate(text.map((id) => [id, { generateNext: { probabilities: true } }]))
  logprobs.push(text.map((id, i) => (i === 0 ? null : Math.log(out[i - 1].next.probabilities.get(id) ?? 0))))
}
console.log(JSON.stringify({ logprobs }))
process.exit(0)
