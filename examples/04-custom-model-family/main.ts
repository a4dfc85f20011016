import { join } from "node:path"
import { nanoFiles } from "@sloth/nano"
import { createSloth, standardPlugins } from "@sloth/sloth"
import { makeModel } from "./make-model.ts"
import { qwen2 } from "./plugin.ts"

// Any Qwen2 or Qwen2.5 folder or GGUF file will do; without one a small untrained model is made.
const model = process.argv[2] ?? (await makeModel(join(import.meta.dirname, "runs", "small-qwen2")))

await using sloth = await createSloth({ plugins: [...standardPlugins(), qwen2()], cwd: import.meta.dirname })

const facts = await sloth.inspect(model)
if (facts.kind === "model")
  console.log(`family ${facts.family}, ${facts.parameters} parameters, targets ${facts.targets.join(", ")}`)

// Everything that works for the families of Sloth works for this one: full fine-tuning, then a LoRA on top of it.
const data = nanoFiles().quickstart
const common = { data, batch: 8, maxLength: 128 } as const
const first = await sloth.train({ ...common, model, full: true, steps: 60, learningRate: 3e-3 })
const second = await sloth.train({ ...common, model: first.run, steps: 10, learningRate: 1e-3 })
for (const [name, what] of [
  ["untrained", model],
  ["after full fine-tuning", first.run],
  ["after the LoRA on top", second.run],
] as const) {
  const { loss } = await sloth.evaluate({ model: what, rows: nanoFiles().quickstartHeldOut })
  console.log(`loss on rows it has not seen, ${name}: ${loss.toFixed(3)}`)
}

for (const format of ["gguf-f16", "safetensors-f32", "peft"] as const) {
  const { path, verification } = await sloth.export({ model: second.run, format })
  console.log(`${format}: within ${verification.largest.toExponential(1)} nats, ${path}`)
}
const answer = await sloth.generate({ model: second.run, prompt: "Who are you?", maxTokens: 40 })
console.log(answer.text)
