import { afterAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import type { CausalLM } from "@sloth/model"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import {
  AdamW,
  buildMicroBatch,
  makeTrainable,
  parameterGroups,
  readLogprobs,
  resolveTrainConfig,
  StepRunner,
  type LogprobLoss,
} from "@sloth/train"
import { thrown } from "../../../data/fixtures/thrown.ts"
import { goldenDir, tinyFiles } from "../../../train/src/internal/testing/tiny.ts"
import { pick } from "../preference/completions-unit.ts"
import { groupAdvantages } from "./advantages.ts"
import { policyObjectiveLoss, rlooObjectiveLoss } from "./policy-objective.ts"
import { sampledUnits, type SampledCompletion, type SampledUnit } from "./sampled-unit.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

const config = resolveTrainConfig({ learningRate: 1e-2, adapter: join(goldenDir, "tied", "adapter") })
const prompts = [
  [3, 9, 14, 7, 22, 30],
  [5, 8, 2],
]
const completions = prompts.map((_, p) =>
  Array.from({ length: 4 }, (_, k) =>
    Array.from({ length: 2 + ((k + p) % 3) }, (_, t) => 3 + ((11 * k + 5 * t + 17 * p) % 40)),
  ),
)
const { advantages } = groupAdvantages([[1, 0, 0, 2, 3, 1, 0, 0]], [4, 4], {
  scale: "group",
  aggregation: "sum_then_normalize",
})
const samples = (p: number, extra: (k: number) => Partial<SampledCompletion> = () => ({})): SampledCompletion[] =>
  completions[p]!.map((tokens, k) => ({ tokens, advantage: advantages[4 * p + k]!, ...extra(k) }))

/** Runs `body` with a runner of steps over a tiny Llama with an adapter. */
const withRunner = async <R>(
  loss: LogprobLoss<SampledUnit>,
  body: (
    run: (step: number, units: readonly SampledUnit[], factor?: number) => ReturnType<StepRunner["run"]>,
    model: CausalLM,
  ) => Promise<R>,
  tokenBudget = 4096,
): Promise<R> => {
  using model = tinyFiles("tied").build(engine)
  makeTrainable(model, config)
  using optimizer = new AdamW(engine, parameterGroups(model, config), config)
  const runner = new StepRunner<SampledUnit>(model, optimizer, {
    loss,
    policy: "keep",
    packing: true,
    tokenBudget,
    seed: 0,
    maxGradNorm: 1,
  })
  return await body((step, units, factor = 1) => runner.run(step, units, factor), model)
}

const all = [...sampledUnits(prompts[0]!, samples(0), 0), ...sampledUnits(prompts[1]!, samples(1), 1)]
/** Every completion alone with its own prompt. */
const apart = prompts.flatMap((prompt, p) => samples(p).flatMap((sample) => sampledUnits(prompt, [sample], p)))

describe("sampled units", () => {
  test("a group computes its prompt once", () => {
    expect(all).toHaveLength(2)
    expect(all[0]!.segments[0]).toEqual({ length: 6, parent: null })
    expect(all[0]!.tokens).toHaveLength(6 + completions[0]!.reduce((n, c) => n + c.length - 1, 0))
  })
  test("a budget cuts the group, in order", () => {
    const units = sampledUnits(prompts[0]!, samples(0), 0, 9)
    expect(units.length).toBeGreaterThan(1)
    expect(units.flatMap((unit) => unit.samples)).toEqual(samples(0))
    for (const unit of units) expect(unit.tokens.length).toBeLessThanOrEqual(9)
  })
  test("wrong arrays have a coded error", async () => {
    const wrong: readonly (readonly [ArrayLike<number>, SampledCompletion])[] = [
      [[], { tokens: [1], advantage: 0 }],
      [[1], { tokens: [], advantage: 0 }],
      [[1], { tokens: [1, 2], advantage: 0, old: new Float64Array(1) }],
      [[1], { tokens: [1, 2], advantage: new Float64Array(3) }],
    ]
    for (const [prompt, sample] of wrong)
      expect((await thrown(() => sampledUnits(prompt, [sample], 7))).code).toBe("SLOTH_RL_SAMPLE")
  })
})

describe("steps of a tiny Llama", () => {
  for (const name of ["dapo", "grpo", "sapo", "rloo"] as const)
    test(`${name}: sharing the prompt and splitting the step change nothing`, async () => {
      const loss = name === "rloo" ? rlooObjectiveLoss() : policyObjectiveLoss({ loss: name, beta: 0.05 })
      const run = (units: readonly SampledUnit[], budget?: number) => withRunner(loss, (step) => step(1, units), budget)
      const [shared, separate, split] = [await run(all), await run(apart), await run(apart, 8)]
      expect(split.microBatches).toBeGreaterThan(3)
      for (const other of [separate, split]) {
        expect(other.loss).toBeCloseTo(shared.loss, 6)
        expect(other.gradNorm).toBeCloseTo(shared.gradNorm, 5)
        for (const [name, value] of Object.entries(shared.metrics)) expect(other.metrics[name]).toBeCloseTo(value, 5)
      }
      expect(shared.gradNorm).toBeGreaterThan(1e-3)
    })

  test("old log-probs read from the same weights give ratios of exactly 1; after a step they move", () =>
    withRunner(policyObjectiveLoss({ loss: "grpo", beta: 0.05 }), async (step, model) => {
      const batch = buildMicroBatch(all)
      const { logprobs } = await readLogprobs(model, batch)
      const units = all.map((unit, u) => ({
        ...unit,
        samples: unit.samples.map((sample, k) => ({
          ...sample,
          old: pick(logprobs, batch.starts[u]!, unit.completions[k]!),
        })),
      }))
      const first = await step(1, units, 0.05)
      const plain = await withRunner(policyObjectiveLoss({ loss: "grpo", beta: 0.05 }), (run) => run(1, all))
      expect(first.loss).toBe(plain.loss)
      expect(first.gradNorm).toBe(plain.gradNorm)
      const second = await step(2, units)
      expect(second.loss).toBeLessThan(first.loss)
    }))

  test("an entropy mask takes some tokens, and needs the whole step", async () => {
    const loss = policyObjectiveLoss({ topEntropy: 0.3 })
    const [some, every] = [
      await withRunner(loss, (run) => run(1, all)),
      await withRunner(policyObjectiveLoss(), (run) => run(1, all)),
    ]
    expect(some.gradNorm).not.toBeCloseTo(every.gradNorm, 3)
    expect((await thrown(() => withRunner(loss, (run) => run(1, apart), 8))).code).toBe("SLOTH_RL_STEP_SPLIT")
    expect((await thrown(() => policyObjectiveLoss({ topEntropy: 0 }))).code).toBe("SLOTH_RL_SETTINGS")
  })

  test("an entropy bonus: the same in one micro-batch as in several, and it raises the entropy", async () => {
    const flat = all.map((unit) => ({ ...unit, samples: unit.samples.map((s) => ({ ...s, advantage: 0 })) }))
    const entropies = (entropyCoef: number, budget?: number) =>
      withRunner(
        policyObjectiveLoss({ entropyCoef }),
        async (step) => {
          const found: number[] = []
          for (let s = 1; s <= 10; s++) found.push((await step(s, flat)).metrics["entropy"]!)
          return found
        },
        budget,
      )
    const [up, split, down, none] = [
      await entropies(0.1),
      await entropies(0.1, 8),
      await entropies(-0.1),
      await entropies(0),
    ]
    // AdamW divides a gradient by its own size, so that rounding moves an update by far less than 1e-3 of a step of 1e-2 in ten steps.
    for (const [i, h] of split.entries()) expect(h).toBeCloseTo(up[i]!, 3)
    expect(up.at(-1)!).toBeGreaterThan(up[0]! + 0.01)
    expect(down.at(-1)!).toBeLessThan(down[0]! - 0.01)
    // Without advantages and bonus there is no gradient.
    expect(none.at(-1)).toBe(none[0])
  })

  test("an adaptive bonus begins when the entropy is at its target, and goes on after a restart", async () => {
    const settings = (target: number) =>
      ({ entropyCoef: 0.01, adaptiveEntropy: { target, delta: 0.005, min: 0, max: 0.02 } }) as const
    const weights = (target: number, restart = false) => {
      let loss = policyObjectiveLoss(settings(target))
      return withRunner(
        { ...loss, compute: (batch) => loss.compute(batch) },
        async (step) => {
          const found: number[] = []
          for (let s = 1; s <= 5; s++) {
            found.push((await step(s, all)).metrics["entropy_coef"]!)
            if (!restart) continue
            const saved = JSON.parse(JSON.stringify(loss.state!.save())) as unknown
            loss = policyObjectiveLoss(settings(target))
            loss.state!.restore(saved)
          }
          return found
        },
        8,
      )
    }
    // The entropy of a fresh model is near log(vocab), far above 0.1 and far below 100.
    const [high, low] = [await weights(100), await weights(0.1)]
    expect(high[0]).toBe(0)
    for (const [i, w] of [0.015, 0.02, 0.02, 0.02].entries()) expect(high[i + 1]).toBeCloseTo(w, 12)
    expect(low).toEqual([0, 0, 0, 0, 0])
    expect(await weights(100, true)).toEqual(high)
  })

  test("twenty steps make the rewarded completions likelier", () =>
    withRunner(policyObjectiveLoss({ loss: "dr_grpo", maxCompletionLength: 4 }), async (step, model) => {
      const batch = buildMicroBatch(all)
      const gap = async () => {
        const { logprobs } = await readLogprobs(model, batch)
        return all
          .flatMap((unit, u) =>
            unit.samples.map(
              (s, k) =>
                (s.advantage as number) *
                pick(logprobs, batch.starts[u]!, unit.completions[k]!).reduce((a, b) => a + b, 0),
            ),
          )
          .reduce((a, b) => a + b, 0)
      }
      const before = await gap()
      for (let s = 1; s <= 20; s++) await step(s, all)
      expect(await gap()).toBeGreaterThan(before + 5)
    }))
})
