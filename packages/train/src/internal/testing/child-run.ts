// One part of a run in a process of its own: `child-run.ts <folder> <backend>`; starts the run or resumes it, and prints a line an event.
import { writeSync } from "node:fs"
import { isRunDirectory } from "@sloth/core"
import { Engine } from "@sloth/tensor"
import { train } from "../../train.ts"
import { backends } from "./backends.ts"
import { countingExamples, randomFiles } from "./tiny.ts"

const [folder, kind] = process.argv.slice(2) as [string, string]
const backend = await backends.find((b) => b.name === kind)!.create()
const resume = isRunDirectory(folder)
using engine = new Engine(backend)
await train({
  engine,
  model: randomFiles(),
  data: { examples: countingExamples(24), heldOut: countingExamples(5) },
  measure: false,
  run: folder,
  resume,
  ...(resume
    ? {}
    : {
        config: {
          batch: 4,
          steps: 40,
          rank: 4,
          learningRate: 1e-2,
          dropout: 0.1,
          saveEvery: 3,
          evalEvery: 7,
          tokenBudget: 32,
          optimizer: "adamw8bit",
          modulesToSave: ["embed_tokens"],
        } as const,
      }),
  onEvent: (event) => void writeSync(1, `${event.type}\n`),
})
