import { join } from "node:path"
import { createSloth, standardPlugins } from "@sloth/sloth"
import { nanoFiles } from "@sloth/nano"

const model = process.argv[2] ?? "nano"

await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })

const { run } = await sloth.train({
  model,
  data: nanoFiles().quickstart,
  steps: 30,
  batch: 8,
  maxLength: 256,
  learningRate: 3e-3,
})

// Every export is read back and compared with the model in memory before it counts as done.
const gguf = join(import.meta.dirname, "runs", "model.gguf")
for (const [format, to] of [
  ["gguf-f16", gguf],
  ["peft", join(import.meta.dirname, "runs", "adapter")],
] as const) {
  const report = await sloth.export({ model: run, format, to })
  const { tokens, largest } = report.verification
  console.log(`${format}: ${report.bytes} bytes, log-probs within ${largest.toExponential(1)} nats on ${tokens} tokens`)
}

// What was written is a model again: talk to the GGUF file. Each turn only computes what is new.
using chat = await sloth.chat({ model: gguf, maxTokens: 40 })
for (const question of ["What does a cow eat?", "And a horse?"]) {
  process.stdout.write(`> ${question}\n`)
  for await (const event of chat.send(question)) process.stdout.write(event.text)
  process.stdout.write("\n")
}
console.log(`${chat.messages.length} messages`)
