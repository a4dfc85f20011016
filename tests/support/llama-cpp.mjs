// Log-probs of token sequences by llama.cpp (node-llama-cpp). Usage: node llama-cpp.mjs <request.json>; runs in the folder that holds node-llama-cpp.
// Request: {model, lora?, texts: [[ids]], prompt?: text}. Answer on the last line: {logprobs: [[nats, first null]], prompt?: [ids]}.
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const { getLlama, LlamaLogLevel } = await import(
  pathToFileURL(createRequire(join(process.cwd(), "x.js")).resolve("node-llama-cpp")).href
)
const request = JSON.parse(readFileSync(process.argv[2], "utf8"))
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error })
const model = await llama.loadModel({ modelPath: request.model })
const longest = Math.max(8, ...request.texts.map((t) => t.length))
const context = await model.createContext({
  contextSize: longest + 8,
  batchSize: longest + 8,
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
const prompt = request.prompt === undefined ? undefined : model.tokenize(request.prompt, true)
console.log(JSON.stringify({ logprobs, prompt }))
process.exit(0)
