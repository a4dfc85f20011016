import { describe, expect, test } from "bun:test"
import { definePlugin, type Reward, type RewardSample } from "@sloth/core"
import { thrown } from "../../../data/fixtures/thrown.ts"
import { groupAdvantages } from "../online/advantages.ts"
import { defineReward, type RewardContext } from "./define-reward.ts"
import { runRewards } from "./run-rewards.ts"

const sample = (completion: string, row: Record<string, unknown> = {}): RewardSample => ({
  prompt: "p",
  completion,
  completionTokens: [1, 2, 3],
  finishReason: "stop",
  row,
})
const samples = [sample("a", { answer: "a" }), sample("bb", { answer: "x" }), sample("ccc", { answer: "ccc" })]
const constant = (name: string, value: unknown): Reward => ({
  name,
  score: (given) => given.map(() => value as number),
})

describe("defineReward", () => {
  test("columns are typed and checked", async () => {
    const reward = defineReward<{ answer: string }>({
      name: "match",
      columns: ["answer"],
      each: ({ completion, row }) => (completion === row.answer.trim() ? 1 : 0),
    })
    expect(await reward.score(samples)).toEqual([1, 0, 1])
    // @ts-expect-error the column is not in the row's type
    defineReward<{ answer: string }>({ name: "x", columns: ["anwser"], each: () => 0 })
    const error = await thrown(() => reward.score([samples[0]!, sample("b", { question: "q" })]))
    expect(error.code).toBe("SLOTH_REWARD_COLUMN")
    expect(error.message).toContain('"answer"')
    expect(error.message).toContain('"question"')
    expect((await thrown(() => reward.score([sample("b", { answer: null })]))).code).toBe("SLOTH_REWARD_COLUMN")
  })
  test("sync, async, whole batches, null", async () => {
    const one = defineReward({ name: "one", each: ({ completion }) => completion.length })
    expect(one.score(samples)).toEqual([1, 2, 3])
    const later = defineReward({ name: "later", each: async ({ completion }) => completion.length })
    expect(await later.score(samples)).toEqual([1, 2, 3])
    const batch = defineReward({ name: "batch", score: (all) => all.map((_, i) => (i === 1 ? null : all.length)) })
    expect(await batch.score(samples)).toEqual([3, null, 3])
  })
  test("it is a reward of a plugin", () => {
    const reward = defineReward({ name: "r", weight: 2, each: () => 1 })
    definePlugin({ name: "@acme/r", version: "1.0.0", apiVersion: 1, sloth: "*", provides: { rewards: [reward] } })
    expect(reward.weight).toBe(2)
  })
  test("a name and a weight that are none", async () => {
    expect((await thrown(() => defineReward({ name: "", each: () => 0 }))).code).toBe("SLOTH_REWARD_DEFINITION")
    expect((await thrown(() => defineReward({ name: "r", weight: Number.NaN, each: () => 0 }))).code).toBe(
      "SLOTH_REWARD_DEFINITION",
    )
  })
})

describe("runRewards", () => {
  test("scores, spread and figures of rewards", async () => {
    const noting = defineReward({
      name: "noting",
      each: ({ completion }, { metric }) => {
        metric("letters", completion.length)
        return completion.length === 2 ? null : completion.length
      },
    })
    const { scores, metrics, problems, seconds } = await runRewards([noting, constant("flat", 0.5)], samples)
    expect(scores).toEqual([
      [1, null, 3],
      [0.5, 0.5, 0.5],
    ])
    expect(metrics).toEqual({
      "rewards/noting/mean": 2,
      "rewards/noting/std": Math.SQRT2,
      "rewards/noting/letters": 2,
      "rewards/flat/mean": 0.5,
      "rewards/flat/std": 0,
    })
    expect(problems).toEqual([])
    expect(seconds).toHaveLength(2)
    const { advantages } = groupAdvantages(scores, [3], { scale: "none", aggregation: "sum_then_normalize" })
    expect([...advantages].reduce((a, b) => a + b, 0)).toBeCloseTo(0, 12)
  })
  test("async rewards run at the same time, others in order", async () => {
    const order: string[] = []
    const slow = (name: string, ms: number): Reward => ({
      name,
      score: async (given) => {
        order.push(`${name} starts`)
        await new Promise((resolve) => setTimeout(resolve, ms))
        order.push(`${name} ends`)
        return given.map(() => 1)
      },
    })
    const quick: Reward = { name: "quick", score: (given) => (order.push("quick"), given.map(() => 0)) }
    await runRewards([slow("a", 120), quick, slow("b", 5)], samples)
    expect(order).toEqual(["a starts", "quick", "b starts", "b ends", "a ends"])
  })

  const bad: readonly (readonly [string, Reward, string, readonly number[]])[] = [
    [
      "throws",
      {
        name: "r",
        score: () => {
          throw new Error("boom")
        },
      },
      "SLOTH_REWARD_THREW",
      [0, 1, 2],
    ],
    ["rejects", { name: "r", score: () => Promise.reject(new Error("boom")) }, "SLOTH_REWARD_THREW", [0, 1, 2]],
    [
      "throws something that is no error",
      {
        name: "r",
        score: () => {
          throw "boom"
        },
      },
      "SLOTH_REWARD_THREW",
      [0, 1, 2],
    ],
    ["gives NaN", { name: "r", score: () => [1, Number.NaN, 2] }, "SLOTH_REWARD_NOT_A_NUMBER", [1]],
    ["gives infinity", constant("r", Number.POSITIVE_INFINITY), "SLOTH_REWARD_NOT_A_NUMBER", [0, 1, 2]],
    ["gives text", constant("r", "1"), "SLOTH_REWARD_NOT_A_NUMBER", [0, 1, 2]],
    ["gives true", constant("r", true), "SLOTH_REWARD_NOT_A_NUMBER", [0, 1, 2]],
    ["gives undefined", constant("r", undefined), "SLOTH_REWARD_NOT_A_NUMBER", [0, 1, 2]],
    ["gives too few", { name: "r", score: () => [1] }, "SLOTH_REWARD_LENGTH", [0, 1, 2]],
    ["gives too many", { name: "r", score: () => [1, 2, 3, 4] }, "SLOTH_REWARD_LENGTH", [0, 1, 2]],
    ["gives no list", { name: "r", score: () => 1 as never }, "SLOTH_REWARD_LENGTH", [0, 1, 2]],
    ["hangs", { name: "r", score: () => new Promise(() => undefined) }, "SLOTH_REWARD_TIMEOUT", [0, 1, 2]],
  ]
  for (const [name, reward, code, lost] of bad)
    test(`a reward that ${name}`, async () => {
      const others = [constant("before", 1), reward, constant("after", 2)]
      const error = await thrown(() => runRewards(others, samples, { timeoutSeconds: 0.05 }))
      expect(error.code).toBe(code)
      expect(error.message).toContain('"r"')
      const { scores, problems, metrics } = await runRewards(others, samples, { onError: "null", timeoutSeconds: 0.05 })
      expect([scores[0], scores[2]]).toEqual([
        [1, 1, 1],
        [2, 2, 2],
      ])
      expect(scores[1]!.flatMap((score, i) => (score === null ? [i] : []))).toEqual([...lost])
      expect(problems.map((p) => [p.reward, p.error.code, p.samples])).toEqual([["r", code, lost]])
      expect(metrics["rewards/after/mean"]).toBe(2)
    })

  test("time that is up aborts the reward's signal; figures noted after it are lost", async () => {
    let late: RewardContext | undefined
    const hanging = defineReward({
      name: "hanging",
      score: (_, context) => {
        late = context
        return new Promise((resolve) => context.signal.addEventListener("abort", () => resolve([9, 9, 9])))
      },
    })
    const { scores, metrics } = await runRewards([hanging], samples, { onError: "null", timeoutSeconds: 0.02 })
    expect(scores).toEqual([[null, null, null]])
    expect(late!.signal.aborted).toBe(true)
    late!.metric("late", 1)
    expect(metrics).toEqual({})
  })
  test("stopping the run stops the scoring, whatever the policy", async () => {
    const controller = new AbortController()
    const hanging: Reward = { name: "hanging", score: () => new Promise(() => undefined) }
    setTimeout(() => controller.abort(new Error("stopped")), 20)
    for (const onError of ["throw", "null"] as const)
      await expect(runRewards([hanging], samples, { onError, signal: controller.signal })).rejects.toThrow("stopped")
  })
  test("two of one name", async () => {
    expect((await thrown(() => runRewards([constant("a", 1), constant("a", 2)], samples))).code).toBe(
      "SLOTH_REWARD_NAMES",
    )
  })
})
