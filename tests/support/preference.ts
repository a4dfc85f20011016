import { attachLora, DEFAULT_LORA, type ModelFiles } from "@sloth/model"
import {
  dpo,
  kto,
  orpo,
  rewardModel,
  simpo,
  type PreferenceExample,
  type RatedExample,
  type ScoredText,
} from "@sloth/rl"
import type { Engine } from "@sloth/tensor"
import {
  AdamW,
  decodeSettings,
  parameterGroups,
  resolveTrainConfig,
  scheduleFactor,
  StepPositions,
  StepRunner,
  type Objective,
  type TrainingUnit,
} from "@sloth/train"
import { goldenJson } from "./golden.ts"
import { fill } from "./smollm2.ts"

interface GoldenRow {
  readonly prompt: readonly number[]
  readonly chosen: readonly number[]
  readonly rejected: readonly number[]
}

interface GoldenRun {
  readonly learningRate: number
  readonly settings: Readonly<Record<string, unknown>>
  readonly batch: number
  readonly steps: readonly {
    readonly step: number
    readonly loss: number
    readonly gradNorm: number
    readonly metrics: Readonly<Record<string, number>>
  }[]
}

/** Methods that TRL's trainers were run by. */
export const PREFERENCE_METHODS = ["dpo", "orpo", "kto", "simpo", "reward"] as const

const scoredText = (prompt: readonly number[], completion: readonly number[]): ScoredText => ({
  tokens: Int32Array.from([...prompt, ...completion]),
  scored: Uint8Array.from([...prompt.map(() => 0), ...completion.map(() => 1)]),
})

/** The rows as a method's generator took them (tests/golden/preference.py). */
const rowsFor = (method: string): readonly (PreferenceExample | RatedExample)[] =>
  goldenJson<{ rows: GoldenRow[] }>("smollm2", "preference-rows.json").rows.map(
    ({ prompt, chosen, rejected }, row): PreferenceExample | RatedExample =>
      method === "kto"
        ? { text: scoredText(prompt, row % 2 === 0 ? chosen : rejected), desirable: row % 2 === 0, row }
        : {
            chosen: scoredText(prompt, chosen),
            rejected: scoredText(prompt, rejected),
            ...(method === "reward" ? { margin: (row % 3) * 0.25 } : {}),
            row,
          },
  )

/** A pair whose fourth rejected token multiplies rounding by thousands (docs/benchmarks.md): f32 does not determine its gradient further than to a few percent. */
const UNSTABLE_ROW = 31

const OBJECTIVES = { dpo, orpo, kto, simpo, reward: rewardModel } as const

/** How far a run is from TRL's, at its worst step. */
export interface PreferenceDifference {
  readonly method: string
  readonly steps: number
  /** Nats. */
  readonly loss: number
  readonly margins: number
  /** Of the gradient norm, relative. */
  readonly gradNorm: number
  /** The same against TRL in float64, where there is such a run: of ours, of TRL's f32, and of ours at steps without the pair that multiplies rounding. */
  readonly double?: { readonly ours: number; readonly theirs: number; readonly calm: number }
  readonly microBatches: number
}

/**
 * LoRA steps of SmolLM2 by a preference method, with the rows, the first adapter and the settings that TRL's trainer had. `tokenBudget` splits the steps; with
 * `steps` only the first of them are made.
 */
export const preferenceDifference = async (
  engine: Engine,
  files: ModelFiles,
  method: (typeof PREFERENCE_METHODS)[number],
  { tokenBudget = 2048, steps = 20 }: { readonly tokenBudget?: number; readonly steps?: number } = {},
): Promise<PreferenceDifference> => {
  const golden = goldenJson<GoldenRun>("smollm2", `preference-${method}.json`)
  const config = resolveTrainConfig({
    steps: golden.steps.length,
    batch: golden.batch,
    learningRate: golden.learningRate,
    order: "sequential",
  })
  using model = files.build(engine)
  attachLora(model, DEFAULT_LORA, 0)
  for (const { name, tensor, outer } of model.trainables())
    if (!outer) tensor.write(fill(name, tensor.size, 1 / Math.sqrt(tensor.shape[1]!)))
  if (method === "reward") model.addScoreHead(0, fill("score.weight", files.config.hidden, 0.02))
  using optimizer = new AdamW(engine, parameterGroups(model, config), config)
  const objective = OBJECTIVES[method] as unknown as Objective<unknown>
  const settings = decodeSettings(objective, golden.settings)
  const units = (await objective.prepare(rowsFor(method), { settings, signal: undefined })) as readonly TrainingUnit[]
  const runner = new StepRunner(model, optimizer, {
    loss: objective.loss(settings),
    policy: "keep",
    packing: true,
    tokenBudget,
    seed: 0,
    maxGradNorm: config.maxGradNorm,
  })
  const positions = new StepPositions(units.length, config)
  const worst = { loss: 0, margins: 0, gradNorm: 0, microBatches: 0 }
  const exact = method === "dpo" ? goldenJson<GoldenRun>("smollm2", "preference-dpo-f64.json").steps : undefined
  const double = { ours: 0, theirs: 0, calm: 0 }
  for (const expected of golden.steps.slice(0, steps)) {
    const { step, metrics } = expected
    const rows = Array.from(positions.indices(step), (i) => units[i]!)
    const result = await runner.run(step, rows, scheduleFactor(config, step, config.steps!))
    const apart = (ours: string, theirs: string) =>
      Math.abs(result.metrics[ours]! - (metrics[theirs] ?? metrics[ours] ?? Number.NaN))
    worst.loss = Math.max(worst.loss, Math.abs(result.loss - expected.loss))
    worst.margins = Math.max(worst.margins, apart("rewards/margins", "margin"))
    worst.gradNorm = Math.max(worst.gradNorm, Math.abs(result.gradNorm / expected.gradNorm - 1))
    worst.microBatches = Math.max(worst.microBatches, result.microBatches)
    const norm = exact?.[step - 1]!.gradNorm ?? Number.NaN
    const off = Math.abs(result.gradNorm / norm - 1)
    double.ours = Math.max(double.ours, off)
    double.theirs = Math.max(double.theirs, Math.abs(expected.gradNorm / norm - 1))
    if (!positions.indices(step).includes(UNSTABLE_ROW)) double.calm = Math.max(double.calm, off)
  }
  return { method, steps, ...worst, ...(exact === undefined ? {} : { double }) }
}
