// One part of a GRPO run in a process of its own: `child-grpo.ts <folder>`; starts the run or resumes it, and prints where it is: in a rollout, in scoring, in an update.
import { writeSync } from "node:fs"
import { isRunDirectory } from "@sloth/core"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { train } from "@sloth/train"
import { grpo } from "../../online/grpo.ts"
import { defineReward } from "../../rewards/define-reward.ts"
import { evenTokens, tinyModel, tinyPrompts } from "./tiny-grpo.ts"

const folder = process.argv[2]!
const resume = isRunDirectory(folder)
const slow = defineReward({
  name: "even",
  score: async (samples, context) => {
    writeSync(1, "scoring\n")
    await new Promise((resolve) => setTimeout(resolve, 8))
    return evenTokens.score(samples, context)
  },
})
using engine = new Engine(createReferenceBackend())
await train({
  engine,
  model: tinyModel(),
  data: { examples: tinyPrompts },
  objective: grpo,
  rewards: [slow],
  settings: { numGenerations: 4, maxCompletionLength: 6, numIterations: 2, stepsPerGeneration: 2 },
  measure: false,
  run: folder,
  resume,
  ...(resume
    ? {}
    : { config: { batch: 3, steps: 18, rank: 4, learningRate: 1e-2, dropout: 0.1, saveEvery: 1 } as const }),
  onEvent: (event) => void writeSync(1, `${event.type}\n`),
})
