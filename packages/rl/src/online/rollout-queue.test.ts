import { describe, expect, test } from "bun:test"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { isSlothError, runPaths, type Reward } from "@sloth/core"
import { readSamples } from "@sloth/train"
import { evenTokens, tinyPrompts } from "../internal/testing/tiny-grpo.ts"
import { adapterOf, stepsOf, tinyRuns } from "../internal/testing/online-runs.ts"
import type { PromptExample } from "../data/prompts.ts"
import { readDrawn, writeDrawn } from "./drawn-rollout.ts"
import { dapo, grpo, gspo } from "./grpo.ts"

const { folder, run } = tinyRuns({
  objective: grpo,
  settings: { numGenerations: 4, maxStaleness: 1 },
  config: { steps: 4, batch: 3, learningRate: 5e-2, schedule: "constant" },
})

const figure = (path: string, name: string) => stepsOf(path).map(({ metrics }) => metrics![name])

describe("rollouts made ahead", () => {
  test("are as old as is allowed and no older, and the ratio of the weights that train to those that sampled weighs them", async () => {
    for (const [settings, expected] of [
      [{ maxStaleness: 1 }, [0, 1, 1, 1, 1, 1]],
      [{ maxStaleness: 3 }, [0, 1, 2, 3, 3, 3]],
      // A rollout feeds two steps: one is made ahead, and three would not be enough for two.
      [{ maxStaleness: 3, numIterations: 2 }, [0, 1, 2, 3, 2, 3]],
    ] as const) {
      const { run: path } = await run({ settings, config: { steps: 6 } })
      expect(figure(path, "staleness")).toEqual([...expected])
      const off = figure(path, "sampling/sampling_logp_difference/mean") as number[]
      // The sampler and training add up in other orders, which is rounding of log-probs near 5; an update is far more.
      expect(off[0]!).toBeLessThan(1e-5)
      for (const [i, staleness] of expected.entries()) {
        // Old log-probs are those at the first update of a rollout.
        const begun = settings.maxStaleness === 3 && "numIterations" in settings ? staleness >= 2 : staleness > 0
        if (begun) expect(off[i]!).toBeGreaterThan(1e-3)
      }
      for (const ratio of figure(path, "sampling/importance_sampling_ratio/mean")) expect(ratio).toBeGreaterThan(0)
    }
  })

  test("are sampled by the weights of their time: the first two rollouts of a run ahead are those of a run without updates", async () => {
    const [ahead, still] = [await run(), await run({ settings: { maxStaleness: 0 }, config: { learningRate: 1e-30 } })]
    const of = (path: string) =>
      readSamples(runPaths(path).samples)
        .filter(({ step }) => step <= 2)
        .map(({ step, row, completion }) => [step, row, completion])
    expect(of(ahead.run)).toEqual(of(still.run))
    expect(of(ahead.run)).toHaveLength(24)
  })

  test("nothing is sampled for steps after the last", async () => {
    let scored = 0
    const counting: Reward = {
      name: "even",
      score: (samples) => ((scored += samples.length), evenTokens.score(samples)),
    }
    await run({ rewards: [counting], settings: { maxStaleness: 8 }, config: { steps: 3 } })
    expect(scored).toBe(3 * 12)
  })

  test("rewards work while training goes on", async () => {
    const done = Array.from({ length: 4 }, () => Promise.withResolvers<void>())
    let calls = 0
    // The score of the second rollout is not there before the first step is done: without rollouts ahead that would be never.
    const late: Reward = {
      name: "even",
      score: async (samples) => {
        const call = ++calls
        if (call > 1) await done[call - 1]!.promise
        return evenTokens.score(samples)
      },
    }
    const { status, run: path } = await run({
      rewards: [late],
      settings: { rewardTimeout: 20 },
      config: { steps: 3 },
      onEvent: (event) => {
        if (event.type === "step") done[event.step]!.resolve()
      },
    })
    expect(status).toBe("completed")
    for (const name of ["seconds/rollout", "seconds/score", "seconds/wait", "seconds/train"])
      for (const seconds of figure(path, name)) expect(seconds).toBeGreaterThanOrEqual(0)
  })

  test("learn what is rewarded", async () => {
    const { run: path } = await run({
      settings: { maxStaleness: 2 },
      config: { steps: 60, batch: 4, learningRate: 1e-2 },
    })
    const rewards = figure(path, "reward") as number[]
    const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length
    // 16 completions of 6 tokens that are even by chance: the mean of 5 rollouts is 0.5 ± 0.07 (three standard errors) when nothing is learnt.
    expect(mean(rewards.slice(-5))).toBeGreaterThan(mean(rewards.slice(0, 5)) + 0.2)
  }, 60_000)

  test("an abort in a rollout, in scoring or between steps goes on to the same bits", async () => {
    const settings = { numIterations: 2, stepsPerGeneration: 2, maxStaleness: 8 }
    const config = { steps: 16, dropout: 0.1, saveEvery: 1, learningRate: 1e-2 }
    const whole = await run({ settings, config })
    for (const at of ["sample", "step", "reward"]) {
      const controller = new AbortController()
      let seen = 0
      const stopping: Reward = {
        name: "even",
        score: async (samples) => {
          // The fourth rollout is sampled at step 5, ahead of steps 13 to 16.
          if (at === "reward" && ++seen === 4) {
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
          if (event.type === at && (event.type === "sample" ? event.step === 5 : ++seen === 6)) controller.abort()
        },
      })
      expect(first.status).toBe("interrupted")
      const second = await run({ run: path, settings, resume: true })
      expect(second.status).toBe("completed")
      expect(adapterOf(path).equals(adapterOf(whole.run))).toBe(true)
      expect(readSamples(runPaths(path).samples)).toEqual(readSamples(runPaths(whole.run).samples))
      expect(stepsOf(path).map((s) => [s.step, s.loss, s.metrics!["staleness"]])).toEqual(
        stepsOf(whole.run).map((s) => [s.step, s.loss, s.metrics!["staleness"]]),
      )
    }
  }, 60_000)

  test("a reward that fails loses no step that is done", async () => {
    let calls = 0
    const failing: Reward = {
      name: "even",
      score: (samples) => (++calls < 3 ? evenTokens.score(samples) : Promise.reject(new Error("no"))),
    }
    const path = join(folder, "failing")
    const code = await run({ run: path, rewards: [failing] }).catch(
      (error: unknown) => isSlothError(error) && error.code,
    )
    expect(code).toBe("SLOTH_REWARD_THREW")
    expect(readdirSync(join(path, "checkpoints"))).toEqual(["step-000002"])
    // What was sampled ahead is scored again.
    expect((await run({ run: path, resume: true })).status).toBe("completed")
    expect(adapterOf(path).equals(adapterOf((await run()).run))).toBe(true)
  })
})

test("settings that make no sense with maxStaleness are refused before anything starts", async () => {
  for (const [objective, settings, word] of [
    [grpo, { numIterations: 3 }, "feeds 3 optimizer steps"],
    [grpo, { correction: "none" }, 'correction is "none"'],
    [grpo, { temperature: 0.9 }, "temperature is 0.9"],
    [grpo, { dynamicSampling: 2 }, "dynamicSampling is 2"],
    [dapo, {}, "dynamicSampling is 3"],
  ] as const) {
    const path = join(folder, `refused-${word.length}`)
    const error: unknown = await run({ run: path, objective, settings }).catch((e: unknown) => e)
    if (!isSlothError(error)) throw error
    expect([error.code, error.what]).toEqual(["SLOTH_RL_SETTINGS", expect.stringContaining(word)])
    expect(readdirSync(folder)).not.toContain(`refused-${word.length}`)
  }
  expect((await run({ objective: gspo, config: { steps: 2 } })).status).toBe("completed")
})

test("rollouts that wait in a checkpoint come back bit for bit", () => {
  const [a, b] = [tinyPrompts[3]!, tinyPrompts[7]!]
  const sampled = [a, a, b, b].map((example, i) => ({
    example,
    text: `\ud800 ${i}`,
    completion: {
      prompt: Math.floor(i / 2),
      index: i % 2,
      tokens: [5 + i, 6],
      logprobs: [-1 / 3, -0],
      finishReason: i === 0 ? ("stop" as const) : ("length" as const),
      ...(i === 3 ? { mask: Uint8Array.of(1, 0), details: { ended: "done" } } : {}),
    },
  }))
  const drawn = { step: 5, made: 3, seconds: 0.25, slices: [[a], [b]], sampled }
  const places = new Map(tinyPrompts.map((row, i) => [row as PromptExample, i]))
  const draws = [{ drawn, run: { scores: [[1, null, 0.1, -2]], metrics: { "rewards/even/mean": 0.3 } } }, { drawn }]
  expect(readDrawn(writeDrawn(draws, places), tinyPrompts, 2)).toEqual(draws)
})
