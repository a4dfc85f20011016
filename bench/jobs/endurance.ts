/** Many steps of nano's shape in one process. Prints seconds a step and resident memory of every tenth of the run. Options: --steps, --threads. */
import { readFileSync } from "node:fs"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { CausalLM, randomWeights } from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { Engine, ModuleBuilder } from "@sloth/tensor"
import { join } from "node:path"
import { root } from "../lib/child.ts"
import { number } from "../lib/options.ts"
import { instructionRows } from "../lib/rows.ts"
import { median } from "../lib/stats.ts"
import { prepareTraining } from "../lib/training.ts"

const steps = number("steps", 10_000)
const backend = await createCpuBackend({ threads: number("threads", 2) })
const engine = new Engine(backend)
const config = llamaFamily.fromHuggingFace(
  JSON.parse(readFileSync(join(root, "packages/nano/model/config.json"), "utf8")),
)
const model = new CausalLM(llamaFamily, config, new ModuleBuilder(engine, randomWeights(engine, 7, 0.05)))
const rows = instructionRows(64, 96, config.vocab)
const training = prepareTraining(engine, model, rows, { full: false, rank: 8, budget: 512 })
const runner = training.runner("keep")
const tenth = Math.ceil(steps / 10)
const parts: { seconds: number; residentBytes: number; liveBuffers: number }[] = []
let times: number[] = []
for (let step = 1; step <= steps; step++) {
  const started = performance.now()
  const at = (step * 4) % 60
  await runner.run(step, training.units.slice(at, at + 4), 1)
  times.push((performance.now() - started) / 1000)
  if (step % tenth === 0 || step === steps) {
    await backend.synchronize()
    parts.push({
      seconds: median(times),
      residentBytes: process.memoryUsage().rss,
      liveBuffers: backend.memory.stats().liveBuffers,
    })
    // A long run that is stopped has said what it saw.
    console.error(`step ${step}: ${JSON.stringify(parts.at(-1))}`)
    times = []
  }
}
console.log(JSON.stringify({ steps, parts }))
process.exit(0)
