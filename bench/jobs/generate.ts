/** Prompt processing and decoding of SmolLM2-135M in a process of its own. Prints a line of JSON. Options: --batch, --prompt, --tokens, --runs, --precision, --threads. */
import { createCpuBackend } from "@sloth/kernels-cpu"
import { Generator } from "@sloth/infer"
import { Engine } from "@sloth/tensor"
import { openSmollm2 } from "../../tests/support/smollm2.ts"
import { peakResidentBytes } from "../lib/child.ts"
import { choice, number } from "../lib/options.ts"
import { tokenIds } from "../lib/rows.ts"

const batch = number("batch", 1)
const promptTokens = number("prompt", 512)
const maxTokens = number("tokens", 64)
const runs = number("runs", 1)
const backend = await createCpuBackend({
  threads: number("threads", 2),
  precision: choice("precision", ["f32", "bf16", "int8"]),
})
const engine = new Engine(backend)
const files = await openSmollm2()
const model = files.build(engine)
const prompt = tokenIds(0, promptTokens)
const prompts: number[] = []
const decodes: number[] = []
for (let run = 0; run <= runs; run++) {
  using generator = new Generator(model, files.tokenizer, { maxBatch: batch })
  const requests = Array.from({ length: batch }, (_, seed) => ({
    prompt,
    options: { maxTokens, ignoreEnd: true, temperature: batch > 1 ? 1 : 0, seed },
  }))
  const started = performance.now()
  let seen = 0
  let first = 0
  // Decoding counts from the moment every text has its first token; tokens that came before that moment do not count.
  let begun = 0
  let before = 0
  const having = new Set<number>()
  for await (const event of generator.stream(requests)) {
    if (event.type !== "token") continue
    seen++
    if (first === 0) first = performance.now()
    having.add(event.request)
    if (begun === 0 && having.size === batch) {
      begun = performance.now()
      before = seen
    }
  }
  if (run === 0) continue
  prompts.push(promptTokens / ((first - started) / 1000))
  decodes.push((seen - before) / ((performance.now() - begun) / 1000))
}
console.log(
  JSON.stringify({
    isa: backend.device.isa,
    batch,
    promptTokens,
    maxTokens,
    prompts,
    decodes,
    peakRssBytes: peakResidentBytes(),
  }),
)
process.exit(0)
