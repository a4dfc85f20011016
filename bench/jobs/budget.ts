/**
 * Training of a model's shape with random weights under a memory budget, through `train`, planned as any run is. Prints the plan's forecast and what the process took; with --dry the plan
 * alone. Options: --shape, --format, --method, --budget-mb, --rows, --length, --token-budget, --policy, --rank, --dropout, --full, --optimizer, --precision, --steps, --threads, --dry.
 */
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { join } from "node:path"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { llamaFamily } from "@sloth/model-llama"
import { dpo } from "@sloth/rl"
import { Engine } from "@sloth/tensor"
import { formatPlan, planRun, train, type TrainConfigInput, type TrainModel } from "@sloth/train"
import { peakResidentBytes, root } from "../lib/child.ts"
import { choice, flag, number, text } from "../lib/options.ts"
import { evenRows } from "../lib/rows.ts"
import { randomModel, SHAPES, type ShapeId } from "../lib/shapes.ts"

const shape = choice("shape", Object.keys(SHAPES) as [ShapeId, ...ShapeId[]])
const format = text("format") ?? "q4_0"
const method = choice("method", ["sft", "dpo"])
const memoryBudget = number("budget-mb", 1000) * 1e6
const rows = number("rows", 4)
const length = number("length", 512)
const steps = number("steps", 1)
const threads = number("threads", 2)
const tokenBudget = number("token-budget", 0)
const precision = choice("precision", ["f32", "bf16"])
const raw = llamaFamily.fromHuggingFace(SHAPES[shape].config)
const model: TrainModel = {
  name: SHAPES[shape].name,
  path: SHAPES[shape].name,
  fingerprint: "random",
  bytes: 0,
  config: raw,
  build: (engine) => randomModel(engine, shape, format),
}
const config: TrainConfigInput = {
  batch: rows,
  steps,
  maxLength: length,
  memoryBudget,
  precision,
  saveEvery: 0,
  order: "sequential",
  policy: choice("policy", ["auto", "keep", "recompute", "checkpoint", "spill"]),
  ...(flag("full") ? { full: true } : { rank: number("rank", 16), dropout: number("dropout", 0) }),
  optimizer: choice("optimizer", ["adamw", "adamw8bit"]),
  ...(tokenBudget === 0 ? {} : { tokenBudget }),
}
const texts = evenRows(rows * (method === "dpo" ? 2 : 1), length, raw.vocab).map(({ tokens, mask }, row) => ({
  tokens: Int32Array.from(tokens),
  mask: Uint8Array.from(mask),
  scored: Uint8Array.from(mask),
  row,
}))
const engine = new Engine(await createCpuBackend({ threads, memoryBudget, precision }))
const runs = join(root, ".cache/bench")
mkdirSync(runs, { recursive: true })
const folder = mkdtempSync(join(runs, "budget-"))
try {
  const seconds: number[] = []
  const losses: number[] = []
  const options = {
    engine,
    model,
    config,
    // Measuring the machine would touch memory of its own.
    measure: false,
    run: join(folder, "run"),
    onEvent: (event: { readonly type: string; readonly seconds?: number; readonly loss?: number }) => {
      if (event.type !== "step") return
      seconds.push(event.seconds!)
      losses.push(event.loss!)
    },
  }
  if (flag("dry")) {
    console.log(formatPlan(await planRun({ ...options, data: { examples: texts } })))
    rmSync(folder, { recursive: true, force: true })
    process.exit(0)
  }
  const { plan } =
    method === "sft"
      ? await train({ ...options, data: { examples: texts } })
      : await train({
          ...options,
          objective: dpo,
          data: {
            examples: texts.slice(0, rows).map((chosen, row) => ({ chosen, rejected: texts[rows + row]!, row })),
          },
        })
  const { memory } = plan
  console.log(
    JSON.stringify({
      tokens: texts.length * length,
      seconds,
      losses,
      policy: plan.policy,
      tokenBudget: plan.tokenBudget,
      plannedBytes: memory.peakBytes,
      budgetBytes: memoryBudget,
      peakRssBytes: peakResidentBytes(),
      plannedBufferBytes: memory.peakBytes - memory.reserveBytes - memory.runtimeBytes - memory.mappedBytes,
      peakBufferBytes: engine.backend.memory.stats().peakBytes,
      plannedTouchedBytes: memory.peakBytes - memory.runtimeBytes - memory.mappedBytes,
      cachedBytes: engine.backend.memory.stats().cachedBytes,
      runtimeBytes: memory.runtimeBytes,
      reserveBytes: memory.reserveBytes,
    }),
  )
} finally {
  rmSync(folder, { recursive: true, force: true })
}
process.exit(0)
