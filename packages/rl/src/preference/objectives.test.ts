import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { decodeConfig, definePlugin, type RunEvent } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import {
  AdamW,
  buildMicroBatch,
  makeTrainable,
  parameterGroups,
  readLogprobs,
  recordedLogprobs,
  resolveTrainConfig,
  StepRunner,
  train,
  unitSize,
  type LogprobLoss,
  type TrainingUnit,
} from "@sloth/train"
import { thrown } from "../../../data/fixtures/thrown.ts"
import { goldenDir, randomFiles, tinyFiles } from "../../../train/src/internal/testing/tiny.ts"
import type { PreferenceExample, RatedExample } from "../data/examples.ts"
import { largestDifference } from "../internal/testing/gradient.ts"
import { bco } from "./bco.ts"
import type { ScoredText } from "./completions-unit.ts"
import { cpo, simpo } from "./cpo.ts"
import { dpo } from "./dpo.ts"
import { kto } from "./kto.ts"
import { preferenceObjectives } from "./objectives.ts"
import { orpo } from "./orpo.ts"
import { precomputePairReferences, precomputeRatedReferences } from "./precompute.ts"
import { tpo } from "./tpo.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

const text = (prompt: readonly number[], completion: readonly number[]): ScoredText => ({
  tokens: Int32Array.from([...prompt, ...completion]),
  scored: Uint8Array.from([...prompt.map(() => 0), ...completion.map(() => 1)]),
})
const ids = (n: number, seed: number): number[] =>
  Array.from({ length: n }, (_, t) => 3 + ((seed * 7 + t * 5 + t * t) % 40))
const pairs: PreferenceExample[] = Array.from({ length: 5 }, (_, row) => {
  const prompt = ids(4 + row, row)
  return {
    chosen: text(prompt, ids(2 + (row % 3), row + 11)),
    rejected: text(prompt, ids(4 - (row % 3), row + 23)),
    gold: text(prompt, ids(3, row + 31)),
    row,
  }
})
const rated: RatedExample[] = pairs.flatMap(({ chosen, rejected, row }) => [
  { text: chosen, desirable: true, row },
  { text: rejected, desirable: false, row },
])

/** A tiny Llama whose adapter is not at its start, so that policy and reference differ. */
const withModel = async <R>(body: (model: CausalLM) => Promise<R>): Promise<R> => {
  using model = tinyFiles("tied").build(engine)
  makeTrainable(model, resolveTrainConfig({ adapter: join(goldenDir, "tied", "adapter") }))
  return await body(model)
}

/** Loss and gradients of all trainable tensors of a step over these micro-batches. */
const evaluate = async <Unit extends TrainingUnit>(
  model: CausalLM,
  loss: LogprobLoss<Unit>,
  batches: readonly (readonly Unit[])[],
  compute: LogprobLoss<Unit>["compute"] = (batch) => loss.compute(batch),
) => {
  const normaliser = batches.flat().reduce((n, unit) => n + unitSize(loss, unit), 0)
  let total = 0
  const metrics: Record<string, number> = {}
  const gathered: (readonly number[])[] = []
  const step = async (units: readonly Unit[], first: number) => {
    const batch = buildMicroBatch(units)
    const reference =
      loss.reference === true ? (await readLogprobs(model, batch, { adapters: false })).logprobs : undefined
    const { starts } = batch
    const where = { units, starts, indices: units.map((_, i) => first + i), entropy: undefined, normaliser, step: 1 }
    return { batch, reference, where, first }
  }
  const steps: Awaited<ReturnType<typeof step>>[] = []
  for (const [i, units] of batches.entries()) steps.push(await step(units, batches.slice(0, i).flat().length))
  if (loss.gather !== undefined)
    for (const { batch, reference, where } of steps)
      gathered.push(...loss.gather({ ...where, reference, logprobs: (await readLogprobs(model, batch)).logprobs }))
  for (const { batch, reference, where } of steps) {
    const { logprobs, tape } = recordedLogprobs(model, batch, {})
    try {
      const result = compute({ ...where, logprobs: await logprobs.readFloats(), reference, gathered })
      total += result.loss
      for (const [name, value] of Object.entries(result.metrics ?? {})) metrics[name] = (metrics[name] ?? 0) + value
      engine.scope(() => tape.backward([{ tensor: logprobs, gradient: engine.from(Float32Array.from(result.dlogp)) }]))
    } finally {
      tape.dispose()
      logprobs.dispose()
    }
  }
  const gradients = await Promise.all(model.trainables().map((t) => t.tensor.grad!.readFloats()))
  model.clearGradients()
  return { loss: total, gradients, metrics }
}

/** The same unit with every completion as a text of its own, prompt included: nothing is shared. */
const unshared = <Unit extends TrainingUnit>(unit: Unit): Unit => {
  const ends: number[] = []
  for (const { length } of unit.segments) ends.push((ends.at(-1) ?? 0) + length)
  const tokens: number[] = []
  const segments: { length: number; parent: null }[] = []
  const rowOf = new Map<string, number>()
  const shared = unit.segments[0]!.length
  const add = (key: string, child: number | undefined): void => {
    const first = tokens.length
    tokens.push(...unit.tokens.subarray(0, shared))
    if (child !== undefined) tokens.push(...unit.tokens.subarray(ends[child - 1]!, ends[child]!))
    for (let r = 0; r < shared; r++) rowOf.set(`${key}:${r}`, first + r)
    if (child !== undefined)
      for (let r = ends[child - 1]!; r < ends[child]!; r++)
        rowOf.set(`${key}:${r}`, first + shared + r - ends[child - 1]!)
    segments.push({ length: tokens.length - first, parent: null })
  }
  const completions = (unit as unknown as { completions: Int32Array[] }).completions
  // Which completion a child segment belongs to shows in its rows.
  for (const [k, positions] of completions.entries()) {
    const child = unit.segments.findIndex(
      (_, s) =>
        s > 0 && [...positions].some((p) => unit.scoredRows[p]! >= ends[s - 1]! && unit.scoredRows[p]! < ends[s]!),
    )
    add(`${k}`, child < 0 ? undefined : child)
  }
  const owner = new Map<number, number>()
  for (const [k, positions] of completions.entries()) for (const p of positions) owner.set(p, k)
  const entries = Array.from(unit.scoredRows, (row, p) => ({ p, row: rowOf.get(`${owner.get(p) ?? 0}:${row}`)! })).sort(
    (a, b) => a.row - b.row,
  )
  const moved = new Map(entries.map(({ p }, i) => [p, i]))
  const move = (positions: Int32Array): Int32Array => positions.map((p) => moved.get(p)!)
  return {
    ...unit,
    tokens: Int32Array.from(tokens),
    segments,
    scoredRows: Int32Array.from(entries, (e) => e.row),
    targets: Int32Array.from(entries, (e) => unit.targets[e.p]!),
    completions: completions.map(move),
    prompt: move((unit as unknown as { prompt: Int32Array }).prompt),
  }
}

const context = (settings: unknown) => ({ settings, signal: undefined })
const prepared = async <Row, Unit extends TrainingUnit>(
  objective: {
    readonly name: string
    readonly config?: Parameters<typeof decodeConfig>[0]
    prepare(rows: readonly Row[], c: ReturnType<typeof context>): unknown
    loss(settings: unknown): unknown
  },
  rows: readonly Row[],
  given: object = {},
) => {
  const settings = decodeConfig(objective.config!, given, { name: objective.name })
  return {
    units: (await objective.prepare(rows, context(settings))) as Unit[],
    loss: objective.loss(settings) as LogprobLoss<Unit>,
  }
}

const cases = [
  { name: "dpo", make: () => prepared(dpo, pairs) },
  {
    name: "dpo with three losses",
    make: () =>
      prepared(dpo, pairs, { loss: ["sigmoid", "bco_pair", "sft"], lossWeights: [0.8, 0.2, 1], ldAlpha: 0.5 }),
  },
  { name: "orpo", make: () => prepared(orpo, pairs) },
  { name: "cpo", make: () => prepared(cpo, pairs) },
  { name: "simpo", make: () => prepared(simpo, pairs, { beta: 2 }) },
  { name: "tpo", make: () => prepared(tpo, pairs, { loss: "tpo-l", beta: 0.5 }) },
  { name: "kto", make: () => prepared(kto, rated, { klBlock: 4 }) },
  { name: "apo_zero_unpaired", make: () => prepared(kto, rated, { loss: "apo_zero_unpaired" }) },
] as const

describe("a tiny Llama", () => {
  for (const { name, make } of cases)
    test(`${name}: the shared prompt gives the loss and gradients of texts computed apart`, () =>
      withModel(async (model) => {
        const { units, loss } = await make()
        const [shared, apart] = [
          await evaluate(model, loss, [units as never]),
          await evaluate(model, loss, [(units as TrainingUnit[]).map(unshared) as never]),
        ]
        expect(Math.abs(shared.loss - apart.loss)).toBeLessThan(1e-5 * Math.max(1, Math.abs(apart.loss)))
        const scale = Math.max(...apart.gradients.flatMap((g) => [...g].map(Math.abs)))
        expect(scale).toBeGreaterThan(1e-4)
        expect(largestDifference(shared.gradients, apart.gradients)).toBeLessThan(1e-5 * Math.max(1, scale))
      }))

  for (const { name, make } of [
    ...cases,
    { name: "bco", make: () => prepared(bco, rated) },
    { name: "dpo aot", make: () => prepared(dpo, pairs, { loss: "aot" }) },
    { name: "dpo sigmoid and aot_unpaired", make: () => prepared(dpo, pairs, { loss: ["sigmoid", "aot_unpaired"] }) },
  ])
    test(`${name}: a step in 2, 4 or all pieces is the whole step`, () =>
      withModel(async (model) => {
        const run = async (pieces: number) => {
          const { units, loss } = await make()
          const size = Math.ceil(units.length / pieces)
          const parts = Array.from({ length: pieces }, (_, k) => units.slice(k * size, (k + 1) * size))
          return evaluate(model, loss as LogprobLoss, parts.filter((p) => p.length > 0) as TrainingUnit[][])
        }
        const whole = await run(1)
        for (const pieces of [2, 4, 100]) {
          const parts = await run(pieces)
          // Log-probs are sums in f32 whose order depends on the packing: 1e-6 each, some tens of them.
          expect(Math.abs(whole.loss - parts.loss)).toBeLessThan(1e-5)
          expect(largestDifference(whole.gradients, parts.gradients)).toBeLessThan(1e-5)
          for (const [metric, value] of Object.entries(whole.metrics))
            expect(Math.abs(parts.metrics[metric]! - value)).toBeLessThan(1e-4)
        }
      }))

  test("sums of the reference in the rows give the same step as the model without its adapter", () =>
    withModel(async (model) => {
      const { units, loss } = await prepared(dpo, pairs)
      const base = await evaluate(model, loss as LogprobLoss, [units as TrainingUnit[]])
      const rows = await precomputePairReferences(model, pairs, { tokenBudget: 16 })
      const row = await prepared(dpo, rows, { reference: "row" })
      expect((row.loss as LogprobLoss).reference).toBe(false)
      const given = await evaluate(model, row.loss as LogprobLoss, [row.units as TrainingUnit[]])
      expect(given.loss).toBeCloseTo(base.loss, 6)
      expect(largestDifference(given.gradients, base.gradients)).toBeLessThan(1e-6)
      // With the adapters on, the reference is the policy itself.
      const self = await prepared(dpo, await precomputePairReferences(model, pairs, { adapters: true }), {
        reference: "row",
      })
      const { loss: atStart } = await evaluate(model, self.loss as LogprobLoss, [self.units as TrainingUnit[]])
      expect(atStart).toBeCloseTo(Math.LN2, 6)
      const apo = { loss: "apo_zero_unpaired" }
      const [plain, rowed] = [
        await prepared(kto, rated, apo),
        await prepared(kto, await precomputeRatedReferences(model, rated), { ...apo, reference: "row" }),
      ]
      const losses = [
        await evaluate(model, plain.loss as LogprobLoss, [plain.units as TrainingUnit[]]),
        await evaluate(model, rowed.loss as LogprobLoss, [rowed.units as TrainingUnit[]]),
      ]
      expect(losses[1]!.loss).toBeCloseTo(losses[0]!.loss, 6)
    }))

  test("KTO's mismatched completions stand under the prompt of their neighbour, within a block", async () => {
    const { units } = await prepared<RatedExample, TrainingUnit & { completions: Int32Array[] }>(kto, rated, {
      klBlock: 4,
    })
    const targets = (u: number, k: number) => [...units[u]!.completions[k]!].map((p) => units[u]!.targets[p]!)
    expect(targets(1, 1)).toEqual(targets(0, 0))
    expect(targets(4, 1)).toEqual(targets(7, 0))
    expect(targets(8, 1)).toEqual(targets(9, 0))
  })
})

describe("the optimizer step", () => {
  test("BCO's mean goes on from step to step and over a checkpoint, however the steps are split", () =>
    withModel(async (model) => {
      const config = resolveTrainConfig({ learningRate: 1e-3, adapter: join(goldenDir, "tied", "adapter") })
      using optimizer = new AdamW(engine, parameterGroups(model, config), config)
      const runner = async (tokenBudget: number) => {
        const { units, loss } = await prepared(bco, rated, { beta: 1 })
        const common = { policy: "keep", packing: true, tokenBudget, seed: 0, maxGradNorm: 1 } as const
        const made = new StepRunner(model, optimizer, { ...common, loss: loss as LogprobLoss })
        return {
          run: (step: number) => made.run(step, units as TrainingUnit[], 0),
          state: (loss as LogprobLoss).state!,
        }
      }
      const [whole, split, later] = [await runner(4096), await runner(20), await runner(4096)]
      const first = await whole.run(1)
      const saved: unknown = JSON.parse(JSON.stringify(whole.state.save()))
      const second = await whole.run(2)
      const means = [first, second].map(
        ({ metrics }) => (metrics["rewards/chosen"]! + metrics["rewards/rejected"]!) / 2,
      )
      expect(first.metrics["delta"]).toBeCloseTo(means[0]!, 6)
      expect(second.metrics["delta"]).toBeCloseTo((means[0]! + means[1]!) / 2, 6)
      const parts = await split.run(1)
      expect(parts.microBatches).toBeGreaterThan(3)
      expect(parts.metrics["delta"]).toBeCloseTo(first.metrics["delta"]!, 6)
      expect(parts.gradNorm).toBeCloseTo(first.gradNorm, 5)
      later.state.restore(saved)
      expect(await later.run(2)).toEqual(second)
      expect(() => later.state.restore({ mean: "x" })).toThrow("mean")
      model.clearGradients()
    }))

  test("20 steps of DPO with the trainer: from log 2, margins up, events with metrics", async () => {
    const folder = mkdtempSync(join(tmpdir(), "sloth-dpo-"))
    const events: RunEvent[] = []
    try {
      const result = await train({
        engine,
        model: randomFiles(),
        data: { examples: pairs, heldOut: pairs.slice(0, 2) },
        objective: dpo,
        settings: { beta: 0.5 },
        config: { steps: 20, batch: 5, learningRate: 5e-3, rank: 4, evalEvery: 20, tokenBudget: 20 },
        measure: false,
        run: join(folder, "run"),
        onEvent: (event) => events.push(event),
      })
      expect(result.status).toBe("completed")
      const steps = events.filter((e) => e.type === "step")
      expect(steps[0]!.loss).toBeCloseTo(Math.LN2, 6)
      expect(steps.at(-1)!.loss).toBeLessThan(0.35)
      expect(steps[0]!.metrics!["rewards/margins"]).toBeCloseTo(0, 6)
      expect(steps.at(-1)!.metrics!["rewards/margins"]).toBeGreaterThan(0.8)
      expect(steps.at(-1)!.metrics!["rewards/accuracies"]).toBeCloseTo(1, 6)
      const evaluation = events.find((e) => e.type === "eval")
      expect(evaluation!.metrics!["rewards/accuracies"]).toBeCloseTo(1, 6)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe("settings", () => {
  const code = async (run: () => unknown) => (await thrown(run)).code
  test("what does not go together", async () => {
    for (const given of [
      { loss: ["sigmoid", "hinge"], lossWeights: [1] },
      { loss: [] },
      { loss: "nca_pair", divergence: "forward_kl" },
      { loss: "exo_pair" },
      { reference: "row", ldAlpha: 0.5 },
    ])
      expect(await code(() => prepared(dpo, [], given))).toBe("SLOTH_RL_SETTINGS")
    expect(await code(() => prepared(kto, [], { reference: "row" }))).toBe("SLOTH_RL_SETTINGS")
  })
  test("what the rows lack", async () => {
    expect(await code(() => prepared(dpo, pairs, { reference: "row" }))).toBe("SLOTH_RL_REFERENCE_MISSING")
    expect(await code(() => prepared(kto, rated, { loss: "apo_zero_unpaired", reference: "row" }))).toBe(
      "SLOTH_RL_REFERENCE_MISSING",
    )
    expect(await code(() => prepared(tpo, [{ ...pairs[0]!, gold: undefined }]))).toBe("SLOTH_RL_GOLD_MISSING")
    expect(await code(() => prepared(kto, rated.slice(0, 1)))).toBe("SLOTH_RL_KL_ROWS")
  })
  test("out of range or unknown", async () => {
    for (const given of [{ beta: 0 }, { loss: "sigmoidal" }, { labelSmoothing: 0.5 }, { betta: 1 }])
      expect(await code(() => prepared(dpo, [], given))).toBe("SLOTH_CONFIG_INVALID")
  })
  test("all methods are objectives of a plugin with different names", () => {
    const plugin = definePlugin({
      name: "@sloth/rl",
      version: "0.1.0",
      apiVersion: 1,
      sloth: "^0.1.0",
      provides: { objectives: preferenceObjectives },
    })
    expect(new Set(plugin.provides.objectives.map((o) => o.name)).size).toBe(10)
    for (const { name, config } of preferenceObjectives) decodeConfig(config!, {}, { name })
  })
})
