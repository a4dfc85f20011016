/**
 * One training job in a process of its own, SmolLM2-135M. Prints a line of JSON. Options: --rows, --length, --uneven (rows of uneven length, responses only), --full, --policy, --budget,
 * --precision, --steps, --warmup, --threads.
 */
import { createCpuBackend } from "@sloth/kernels-cpu"
import { Engine } from "@sloth/tensor"
import { peakResidentBytes } from "../lib/child.ts"
import { choice, flag, number } from "../lib/options.ts"
import { profilingBackend } from "../lib/profiling-backend.ts"
import { evenRows, instructionRows } from "../lib/rows.ts"
import { smollm2 } from "../lib/shapes.ts"
import { prepareTraining } from "../lib/training.ts"

const length = number("length", 512)
const rows = flag("uneven") ? instructionRows(number("rows", 8), length) : evenRows(number("rows", 4), length)
const steps = number("steps", 3)
const warmup = number("warmup", 1)
const policy = choice("policy", ["keep", "recompute", "checkpoint", "spill"])
const precision = choice("precision", ["f32", "bf16"])
const inner = await createCpuBackend({ threads: number("threads", 2), precision })
const backend = profilingBackend(inner)
const engine = new Engine(backend)
const { model } = await smollm2(engine)
const training = prepareTraining(engine, model, rows, {
  full: flag("full"),
  rank: 16,
  budget: number("budget", 2048),
})
const { units } = training
const runner = training.runner(policy)
await backend.synchronize()
const weights = backend.memory.stats()
const seconds: number[] = []
const losses: number[] = []
for (let step = 1; step <= warmup + steps; step++) {
  const started = performance.now()
  const result = await runner.run(step, units, 1)
  await backend.synchronize()
  losses.push(result.loss)
  if (step > warmup) seconds.push((performance.now() - started) / 1000)
}
const peakRssBytes = peakResidentBytes()
// The necessary products, counted in one more step that computes nothing twice.
backend.start()
await training.runner("keep").run(warmup + steps + 1, units, 1)
const { entries } = await backend.stop()
const tokens = units.reduce((n, u) => n + u.sourceTokens, 0)
console.log(
  JSON.stringify({
    isa: backend.device.isa,
    tokens,
    scored: units.reduce((n, u) => n + u.targets.length, 0),
    seconds,
    losses,
    peakRssBytes,
    // Weights in their file or in memory, before training began: what the memory bar leaves out.
    weightBytes: weights.mappedBytes + weights.liveBytes,
    peakBufferBytes: backend.memory.stats().peakBytes,
    flops: entries.reduce((n, e) => n + e.flops, 0),
  }),
)
process.exit(0)
