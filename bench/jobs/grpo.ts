/**
 * GRPO steps of SmolLM2-135M in a process of their own, sampling, rewards and update together. Prints a line of JSON. Options: --prompts, --prompt, --group, --completion, --steps, --warmup,
 * --threads, --wait (seconds that the reward waits, as one that asks a judge does), --ahead (maxStaleness).
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { defineReward, grpo } from "@sloth/rl"
import { Engine } from "@sloth/tensor"
import { train } from "@sloth/train"
import { openSmollm2 } from "../../tests/support/smollm2.ts"
import { peakResidentBytes } from "../lib/child.ts"
import { number } from "../lib/options.ts"

const prompts = number("prompts", 2)
const promptTokens = number("prompt", 256)
const group = number("group", 8)
const completion = number("completion", 64)
const warmup = number("warmup", 1)
const steps = number("steps", 3)
const files = await openSmollm2()
// Every completion goes to its limit, so that all steps are the same work.
const tokenizer = Object.create(files.tokenizer, {
  endOfGeneration: { value: new Set<number>() },
}) as typeof files.tokenizer
const rows = Array.from({ length: prompts }, (_, row) => ({
  tokens: Array.from({ length: promptTokens }, (_, t) => 100 + ((row * 7919 + t * 131) % 40000)),
  prompt: `row ${row}`,
  columns: {},
  row,
}))
const wait = number("wait", 0)
const varied = defineReward({
  name: "varied",
  score: async (samples) => {
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait * 1000))
    return samples.map(({ completionTokens }) => new Set(completionTokens).size / completionTokens.length)
  },
})
const engine = new Engine(await createCpuBackend({ threads: number("threads", 2) }))
const folder = mkdtempSync(join(tmpdir(), "sloth-grpo-"))
const seconds: number[] = []
const parts: Record<string, number[]> = { rollout: [], score: [], train: [] }
let planned = 0
try {
  const result = await train({
    engine,
    model: { ...files, tokenizer, build: (e: Engine) => files.build(e) },
    data: { examples: rows },
    objective: grpo,
    rewards: [varied],
    settings: { numGenerations: group, maxCompletionLength: completion, maxStaleness: number("ahead", 0) },
    config: { steps: warmup + steps, batch: prompts, rank: 16, saveEvery: 0, learningRate: 1e-5 },
    measure: false,
    run: join(folder, "run"),
    onEvent: (event) => {
      if (event.type === "step" && event.step > warmup) {
        seconds.push(event.seconds)
        for (const [name, values] of Object.entries(parts)) values.push(event.metrics![`seconds/${name}`]!)
      }
    },
  })
  planned = result.plan.memory.peakBytes
} finally {
  rmSync(folder, { recursive: true, force: true })
}
console.log(
  JSON.stringify({
    seconds,
    parts,
    /** Tokens of the texts, each with its prompt, as a framework without shared prompts reads them. */
    tokens: prompts * group * (promptTokens + completion),
    sampled: prompts * group * completion,
    peakRssBytes: peakResidentBytes(),
    plannedBytes: planned,
  }),
)
process.exit(0)
