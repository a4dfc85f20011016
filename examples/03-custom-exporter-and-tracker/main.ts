import { readFileSync } from "node:fs"
import { join } from "node:path"
import { createSloth, standardPlugins } from "@sloth/sloth"
import { nanoFiles } from "@sloth/nano"
import { garden } from "./plugin.ts"

const model = process.argv[2] ?? "nano"

await using sloth = await createSloth({
  plugins: [...standardPlugins(), garden({ system: "You are a slow and friendly animal." })],
  cwd: import.meta.dirname,
})

const { run } = await sloth.train({
  model,
  data: nanoFiles().quickstart,
  steps: 10,
  batch: 4,
  maxLength: 128,
  trackers: ["csv"],
})
console.log(readFileSync(join(run, "losses.csv"), "utf8").split("\n").slice(0, 4).join("\n"))

// "ollama" is a format like any other now: its name is part of the type.
const report = await sloth.export({ model: run, format: "ollama" })
console.log(readFileSync(join(report.path, "Modelfile"), "utf8").trim())
console.log(report.hint)
