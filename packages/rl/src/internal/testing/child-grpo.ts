// One part of a GRPO run in a process of its own: `child-grpo.ts <folder> [maxStaleness] [variant]`; starts the run or resumes it, and prints what it begins: rollout, scoring, update, saved.
import { writeSync } from "node:fs"
import { isRunDirectory } from "@sloth/core"
import { LocalRollout } from "@sloth/infer"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { train } from "@sloth/train"
import { defineReward } from "../../rewards/define-reward.ts"
import { evenTokens, tinyModel, tinyPrompts } from "./tiny-grpo.ts"
import { variants } from "./variants.ts"

const folder = process.argv[2]!
const maxStaleness = Number(process.argv[3] ?? 0)
const { objective, settings, teaching, prompts = tinyPrompts, dropout = 0.1 } = variants[process.argv[4] ?? "grpo"]!
const resume = isRunDirectory(folder)
const say = (what: string): void => void writeSync(1, `${what}\n`)
const slow = defineReward({
  name: "even",
  score: async (samples, context) => {
    say("scoring")
    await new Promise((resolve) => setTimeout(resolve, 8))
    return evenTokens.score(samples, context)
  },
})
const { generate } = LocalRollout.prototype
LocalRollout.prototype.generate = function (...given) {
  say("rollout")
  return generate.apply(this, given)
}
using engine = new Engine(createReferenceBackend())
await train({
  engine,
  model: tinyModel(),
  data: { examples: teaching?.examples ?? prompts },
  objective,
  ...(teaching === undefined ? { rewards: [slow] } : { teacher: teaching.teacher }),
  settings: { ...settings, ...(maxStaleness === 0 ? {} : { maxStaleness }) },
  measure: false,
  run: folder,
  resume,
  ...(resume ? {} : { config: { batch: 3, steps: 18, rank: 4, learningRate: 1e-2, dropout, saveEvery: 1 } as const }),
  // The completions that are shown come right before the update, and a checkpoint right after.
  onEvent: ({ type }) => {
    // Where nothing is scored, that moment stands for scoring too.
    if (type === "sample" && teaching !== undefined) say("scoring")
    if (type === "sample") say("update")
    if (type === "checkpoint") say("saved")
  },
})
