import { describe, expect, test } from "bun:test"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { readEvents, runPaths, type Reward, type StepEvent } from "@sloth/core"
import {
  buildMicroBatch,
  makeTrainable,
  planRun,
  readSamples,
  recordedLogprobs,
  resolveTrainConfig,
  splitUnits,
  train,
  type SourceContext,
} from "@sloth/train"
import { killGrpo } from "../internal/testing/kill-grpo.ts"
import { adapterOf, codeOf, stepsOf, tinyRuns } from "../internal/testing/online-runs.ts"
import { tinyModel, tinyPrompts, evenTokens, shortness } from "../internal/testing/tiny-grpo.ts"
import { pick } from "../preference/completions-unit.ts"
import type { PromptExample } from "../data/prompts.ts"
import { dapo, drGrpo, grpo, gspo, reinforcePlusPlus, rloo, cispo } from "./grpo.ts"
import type { SampledUnit } from "./sampled-unit.ts"
import { readRollout, writeRollout } from "./stored-rollout.ts"

const { engine, folder, run } = tinyRuns({
  objective: grpo,
  settings: { numGenerations: 4 },
  config: { steps: 4, batch: 3 },
})

describe("a run of GRPO", () => {
  test("learns what is rewarded, and says what it did", async () => {
    const { run: path } = await run({ config: { steps: 60, batch: 4, learningRate: 1e-2, schedule: "constant" } })
    const events = stepsOf(path)
    const rewards = events.map(({ metrics }) => metrics!["reward"]!)
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length
    // 16 completions of 6 tokens that are even by chance: the mean of 5 rollouts is 0.5 ± 0.07 (three standard errors) when nothing is learnt.
    expect(mean(rewards.slice(-5))).toBeGreaterThan(mean(rewards.slice(0, 5)) + 0.2)
    for (const name of [
      "reward_std",
      "frac_reward_zero_std",
      "rewards/even/mean",
      "completions/mean_length",
      "completions/clipped_ratio",
      "entropy",
      "clip_ratio/region_mean",
      "seconds/rollout",
      "seconds/score",
      "seconds/train",
    ])
      expect(events[0]!.metrics).toHaveProperty([name])
    const samples = readSamples(runPaths(path).samples)
    expect(samples).toHaveLength(20 * 10 * 4)
    expect(Object.keys(samples[0]!)).toEqual([
      "step",
      "row",
      "index",
      "prompt",
      "completion",
      "tokens",
      "finish",
      "rewards",
      "reward",
      "advantage",
    ])
    // Groups of four: advantages add up to nothing.
    const first = samples.slice(0, 4).map(({ advantage }) => advantage as number)
    expect(Math.abs(first.reduce((a, b) => a + b, 0))).toBeLessThan(1e-9)
  }, 60_000)

  test("every method of the family runs, and equal seeds give equal bits", async () => {
    for (const objective of [gspo, drGrpo, dapo, cispo, rloo, reinforcePlusPlus]) {
      const [a, b] = [await run({ objective, config: { steps: 2 } }), await run({ objective, config: { steps: 2 } })]
      expect(adapterOf(a.run).equals(adapterOf(b.run))).toBe(true)
      expect(stepsOf(a.run).map((s) => s.loss)).toEqual(stepsOf(b.run).map((s) => s.loss))
    }
  }, 60_000)

  test("two rewards: weights, null where there is nothing to say", async () => {
    const { run: path } = await run({ rewards: [evenTokens, shortness], config: { steps: 1 } })
    for (const sample of readSamples(runPaths(path).samples)) {
      const { even, short } = sample["rewards"] as { even: number; short: number | null }
      expect(sample["reward"]).toBeCloseTo(even + 0.5 * (short ?? 0), 12)
    }
  })

  test("a rounded cache is corrected for by itself", async () => {
    const [exact, rounded] = await Promise.all(
      ["f32", "f16"].map(async (kvCache) => stepsOf((await run({ settings: { kvCache }, config: { steps: 2 } })).run)),
    )
    const of = (name: string, events: StepEvent[]) => events.map(({ metrics }) => metrics![name])
    const difference = "sampling/sampling_logp_difference/mean"
    const ratio = "sampling/importance_sampling_ratio/mean"
    for (const [i, d] of of(difference, rounded!).entries()) expect(d).toBeGreaterThan(of(difference, exact!)[i]!)
    expect(of(ratio, exact!)).toEqual([undefined, undefined])
    for (const r of of(ratio, rounded!)) expect(Math.abs(r! - 1)).toBeLessThan(0.05)
  })

  test("the plan forecasts the cache beside training", async () => {
    const planned = (kvCache: string) =>
      planRun<PromptExample>({
        engine,
        model: tinyModel(),
        data: { examples: tinyPrompts },
        objective: grpo,
        rewards: [evenTokens],
        settings: { numGenerations: 4, maxCompletionLength: 6, numIterations: 2, kvCache },
        config: { batch: 5, epochs: 2 },
        measure: false,
      })
    const plan = await planned("f32")
    expect((await planned("f16")).memory.rolloutBytes!).toBeLessThan(plan.memory.rolloutBytes!)
    expect(plan.memory.rolloutBytes).toBeGreaterThan(0)
    expect(plan.memory.peakBytes).toBeGreaterThanOrEqual(plan.memory.rolloutBytes!)
    // Two steps an epoch, each made twice.
    expect([plan.stepsPerEpoch, plan.steps]).toEqual([4, 8])
  })
})

describe("old log-probs", () => {
  test("equal those of the first update exactly, so that its ratio is 1", async () => {
    const files = tinyModel()
    using model = files.build(engine)
    const config = resolveTrainConfig({ rank: 4, batch: 3, seed: 7 })
    makeTrainable(model, config)
    for (const temperature of [1, 0.7]) {
      const settings = {
        numGenerations: 4,
        maxCompletionLength: 6,
        numIterations: 2,
        stepsPerGeneration: 2,
        temperature,
        topP: 1,
        topK: 0,
        minP: 0,
        repetitionPenalty: 1,
        stop: [],
        rolloutBatch: 64,
        kvCache: "f32" as const,
        onRewardError: "stop",
        rewardTimeout: 60,
        maskTruncated: false,
        dynamicSampling: 0,
        scaleRewards: "group",
        aggregation: "sum_then_normalize",
      }
      const split = { tokenBudget: 60, packing: true, policy: "keep" } as const
      await using source = await grpo.online.open(tinyPrompts, [], {
        model,
        tokenizer: files.tokenizer,
        config,
        steps: 8,
        settings,
        split,
        rewards: [evenTokens],
        rollout: undefined,
        signal: undefined,
        warn: async () => undefined,
        record: () => undefined,
        show: async () => undefined,
      } satisfies SourceContext)
      for (const step of [1, 2]) {
        const { units } = await source.collect(step, (s) => Int32Array.from([3 * s - 3, 3 * s - 2, 3 * s - 1]))
        const sampled = units as readonly SampledUnit[]
        expect(splitUnits(sampled, split).length).toBeGreaterThan(1)
        let compared = 0
        for (const indices of splitUnits(sampled, split)) {
          const batch = buildMicroBatch(indices.map((i) => sampled[i]!))
          const { logprobs, tape } = recordedLogprobs(model, batch, { policy: "keep", temperature })
          const values = await logprobs.readFloats()
          tape.dispose()
          logprobs.dispose()
          for (const [u, unit] of batch.units.entries())
            for (const [k, positions] of unit.completions.entries()) {
              expect(unit.samples[k]!.old).toEqual(pick(values, batch.starts[u]!, positions))
              compared += positions.length
            }
        }
        expect(compared).toBeGreaterThan(30)
      }
    }
  })
})

describe("interruptions", () => {
  const settings = { numIterations: 2, stepsPerGeneration: 2 }
  const config = { steps: 8, dropout: 0.1, saveEvery: 1 }

  test("an abort between steps, in a rollout or in scoring is saved, and goes on to the same bits", async () => {
    const whole = await run({ settings, config })
    for (const at of ["sample", "step", "reward"]) {
      let seen = 0
      const controller = new AbortController()
      const stopping: Reward = {
        name: "even",
        score: async (samples) => {
          if (at === "reward" && ++seen === 2) {
            controller.abort()
            await new Promise((resolve) => setTimeout(resolve, 5))
          }
          return evenTokens.score(samples)
        },
      }
      const path = join(folder, `aborted-${at}`)
      const first = await run({
        run: path,
        settings,
        config,
        rewards: [stopping],
        signal: controller.signal,
        onEvent: (event) => {
          if (event.type === at && (event.type === "sample" ? event.step === 5 : ++seen === 3)) controller.abort()
        },
      })
      expect(first.status).toBe("interrupted")
      const second = await train<PromptExample>({
        engine,
        model: tinyModel(),
        data: { examples: tinyPrompts },
        objective: grpo,
        rewards: [evenTokens],
        settings: { numGenerations: 4, maxCompletionLength: 6, ...settings },
        measure: false,
        run: path,
        resume: true,
      })
      expect(second.status).toBe("completed")
      expect(adapterOf(path).equals(adapterOf(whole.run))).toBe(true)
      expect(readSamples(runPaths(path).samples)).toEqual(readSamples(runPaths(whole.run).samples))
      expect(stepsOf(path).map((s) => [s.step, s.loss])).toEqual(stepsOf(whole.run).map((s) => [s.step, s.loss]))
    }
  }, 60_000)

  test("another weight of a reward is another run", async () => {
    const controller = new AbortController()
    const path = join(folder, "weights")
    await run({ run: path, config, signal: controller.signal, onEvent: (e) => e.type === "step" && controller.abort() })
    const other = { ...evenTokens, weight: 2 }
    const resumed = train<PromptExample>({
      engine,
      model: tinyModel(),
      data: { examples: tinyPrompts },
      objective: grpo,
      rewards: [other],
      settings: { numGenerations: 4, maxCompletionLength: 6 },
      measure: false,
      run: path,
      resume: true,
    })
    expect(await codeOf(resumed)).toBe("SLOTH_RESUME_CONFIG")
  })

  // 20 instants each: bun run parity --only kill.
  for (const [maxStaleness, kills] of [
    [0, 9],
    [4, 6],
  ] as const)
    test(`kill -9 in rollout, scoring and update, maxStaleness ${maxStaleness}: resumed to the end, everything has the same bits`, async () => {
      const report = await killGrpo(folder, { kills, maxStaleness })
      expect(report.differences).toEqual([])
      expect(report.kills).toBe(kills)
    }, 180_000)

  test("kill -9 where prompts are kept from the rollout for the update: the same bits", async () => {
    const report = await killGrpo(folder, { kills: 4, variant: "kept" })
    expect(report.differences).toEqual([])
    expect(report.kills).toBe(4)
    const { details } = JSON.parse(readFileSync(runPaths(join(folder, "whole-kept-0")).config, "utf8"))
    expect(details.plan.kept).toMatchObject({ prompts: 3 })
  }, 180_000)

  test("a rollout that is still in use comes back bit for bit", () => {
    const rollout = {
      step: 3,
      stepTokens: 2.5,
      slices: [
        [
          {
            row: 4,
            prompt: [1, 2],
            samples: [
              { tokens: [5], advantage: -0, old: Float64Array.of(-1 / 3), mask: Uint8Array.of(1) },
              { tokens: [5, 6], advantage: Float64Array.of(1e-300, -0), sampling: Float64Array.of(-1, -2) },
            ],
          },
        ],
      ],
    }
    expect(readRollout(writeRollout(rollout))).toEqual(rollout)
  })
})

describe("rewards that fail", () => {
  const failing = (name: string, score: Reward["score"]): Reward => ({ name, score })
  const bad: readonly (readonly [Reward, string])[] = [
    [failing("throws", () => Promise.reject(new Error("no"))), "SLOTH_REWARD_THREW"],
    [failing("nan", (samples) => samples.map(() => Number.NaN)), "SLOTH_REWARD_NOT_A_NUMBER"],
    [failing("short", () => [1]), "SLOTH_REWARD_LENGTH"],
    [failing("hangs", () => new Promise<number[]>(() => undefined)), "SLOTH_REWARD_TIMEOUT"],
  ]
  for (const [reward, code] of bad) {
    test(`${reward.name}: a coded error, and the steps before it are kept`, async () => {
      let calls = 0
      const later = failing(reward.name, (samples) => (++calls < 3 ? evenTokens.score(samples) : reward.score(samples)))
      const path = join(folder, `bad-${reward.name}`)
      expect(await codeOf(run({ run: path, rewards: [later], settings: { rewardTimeout: 0.2 } }))).toBe(code)
      expect(readdirSync(join(path, "checkpoints"))).toEqual(["step-000002"])
      expect(readEvents(runPaths(path).events).at(-1)).toMatchObject({ type: "run-end", reason: "failed" })
    })
    test(`${reward.name}: null by policy, the other rewards go on`, async () => {
      const { run: path, status } = await run({
        rewards: [reward, evenTokens],
        settings: { onRewardError: "null", rewardTimeout: 0.2 },
        config: { steps: 2 },
      })
      expect(status).toBe("completed")
      expect(readEvents(runPaths(path).events).filter((e) => e.type === "warning")).toMatchObject([{ code }, { code }])
      for (const sample of readSamples(runPaths(path).samples))
        expect((sample["rewards"] as Record<string, unknown>)[reward.name]).toBeNull()
    })
  }

  test("no reward, wrong weights, or a method without completions say so", async () => {
    expect(await codeOf(run({ rewards: [] }))).toBe("SLOTH_RL_NO_REWARD")
    expect(await codeOf(run({ settings: { rewardWeights: [1, 2] } }))).toBe("SLOTH_RL_SETTINGS")
    expect(await codeOf(run({ settings: { numGenerations: 1 } }))).toBe("SLOTH_RL_SETTINGS")
    expect(await codeOf(run({ settings: { correction: "token_mask", temperature: 0.5 } }))).toBe("SLOTH_RL_SETTINGS")
  })
})

test("dynamic sampling exchanges groups that teach nothing", async () => {
  // Only prompts of odd rows can earn anything.
  const sometimes: Reward = {
    name: "odd",
    score: (samples) => samples.map(({ row, completionTokens }) => (row["want"] === 1 ? completionTokens[0]! % 5 : 0)),
  }
  const plain = await run({ rewards: [sometimes], config: { steps: 2 } })
  const dynamic = await run({ rewards: [sometimes], config: { steps: 2 }, settings: { dynamicSampling: 6 } })
  const flat = (path: string) => stepsOf(path).map(({ metrics }) => metrics!["frac_reward_zero_std"]!)
  expect(flat(plain.run)[0]).toBeGreaterThan(0)
  expect(flat(dynamic.run)).toEqual([0, 0])
  expect(stepsOf(dynamic.run)[0]!.metrics!["groups/resampled"]).toBeGreaterThan(0)
})
