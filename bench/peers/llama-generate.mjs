// Prompt processing and decoding by llama.cpp (node-llama-cpp); runs in the folder that holds it. Usage: node llama-generate.mjs <model.gguf> <prompt tokens> <tokens> <runs> <threads>
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { pathToFileURL } from "node:url"

const entry = createRequire(join(process.cwd(), "x.js")).resolve("node-llama-cpp")
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(entry).href)
const path = process.argv[2]
const [promptTokens, tokens, runs, threads] = process.argv.slice(3).map(Number)
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error, maxThreads: threads })
const model = await llama.loadModel({ modelPath: path })
const context = await model.createContext({ contextSize: promptTokens + tokens + 16, batchSize: promptTokens, threads })
const sequence = context.getSequence()
// The same ids as bench/lib/rows.ts.
const prompt = Array.from({ length: promptTokens }, (_, k) => ((k * k * 31 + k * 101) % (49152 - 20)) + 17)
const prompts = []
const decodes = []
for (let run = 0; run <= runs; run++) {
  await sequence.clearHistory()
  const started = performance.now()
  let first = 0
  let n = 0
  for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    if (n === 0) first = performance.now()
    if (++n >= tokens) break
  }
  if (run === 0) continue
  prompts.push(promptTokens / ((first - started) / 1000))
  decodes.push((n - 1) / ((performance.now() - first) / 1000))
}
let peakRssBytes = process.resourceUsage().maxRSS * 1024
try {
  peakRssBytes = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024
} catch {}
console.log(JSON.stringify({ promptTokens, maxTokens: tokens, prompts, decodes, peakRssBytes }))
process.exit(0)
