/**
 * One LoRA step of a model's shape with random weights under a memory budget, as the planner splits it. Prints the plan's forecast and what the process took. Options: --shape, --format,
 * --budget-mb, --rows, --length, --steps, --threads.
 */
import { createCpuBackend } from "@sloth/kernels-cpu"
import { attachLora, DEFAULT_LORA } from "@sloth/model"
import { Engine } from "@sloth/tensor"
import {
  AdamW,
  parameterGroups,
  planUnits,
  resolveTrainConfig,
  StepRunner,
  unitFromTokens,
  type TrainModel,
} from "@sloth/train"
import { llamaFamily } from "@sloth/model-llama"
import { peakResidentBytes } from "../lib/child.ts"
import { choice, number, text } from "../lib/options.ts"
import { evenRows } from "../lib/rows.ts"
import { randomModel, SHAPES, type ShapeId } from "../lib/shapes.ts"

const shape = choice("shape", Object.keys(SHAPES) as [ShapeId, ...ShapeId[]])
const format = text("format") ?? "q4_0"
const memoryBudget = number("budget-mb", 1000) * 1e6
const rows = number("rows", 4)
const length = number("length", 512)
const steps = number("steps", 1)
const raw = llamaFamily.fromHuggingFace(SHAPES[shape].config)
const files: TrainModel = {
  name: SHAPES[shape].name,
  path: SHAPES[shape].name,
  fingerprint: "random",
  bytes: 0,
  config: raw,
  build: (engine) => randomModel(engine, shape, format),
}
const config = resolveTrainConfig({ batch: rows, steps, maxLength: length, memoryBudget })
const units = evenRows(rows, length, raw.vocab).map((row, i) =>
  unitFromTokens(Int32Array.from(row.tokens), () => true, i)!,
)
const backend = await createCpuBackend({ threads: number("threads", 2), memoryBudget })
const engine = new Engine(backend)
const loss = { kind: "cross-entropy" } as const
const plan = await planUnits({
  model: files,
  config,
  method: "sft",
  loss,
  units,
  evaluationUnits: [],
  memoryBytes: backend.device.memoryBytes,
})
const model = files.build(engine)
attachLora(model, DEFAULT_LORA, 1)
const optimizer = new AdamW(engine, parameterGroups(model, config), config)
const runner = new StepRunner(model, optimizer, {
  loss,
  policy: plan.policy,
  seed: 1,
  maxGradNorm: 1,
  tokenBudget: plan.tokenBudget,
  packing: plan.packing,
})
const seconds: number[] = []
const losses: number[] = []
for (let step = 1; step <= steps; step++) {
  const started = performance.now()
  losses.push((await runner.run(step, units, 1)).loss)
  await backend.synchronize()
  seconds.push((performance.now() - started) / 1000)
}
console.log(
  JSON.stringify({
    tokens: rows * length,
    seconds,
    losses,
    policy: plan.policy,
    tokenBudget: plan.tokenBudget,
    plannedBytes: plan.memory.peakBytes,
    budgetBytes: memoryBudget,
    peakRssBytes: peakResidentBytes(),
    peakBufferBytes: backend.memory.stats().peakBytes,
  }),
)
process.exit(0)
