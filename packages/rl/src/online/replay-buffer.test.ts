import { expect, test } from "bun:test"
import { killGrpo } from "../internal/testing/kill-grpo.ts"
import { stepsOf, tinyRuns } from "../internal/testing/online-runs.ts"
import { defineReward } from "../rewards/define-reward.ts"
import { grpo } from "./grpo.ts"
import { ReplayBuffer, replayScore } from "./replay-buffer.ts"
import { replayGroups } from "./replay-groups.ts"
import type { SampledGroup } from "./stored-rollout.ts"

const { folder, ...runs } = tinyRuns({
  objective: grpo,
  settings: { numGenerations: 3, maxCompletionLength: 2 },
  config: { steps: 8, batch: 4, learningRate: 2e-2, schedule: "constant" },
})

const group = (row: number, ...advantages: number[]): SampledGroup => ({
  row,
  prompt: [1, 2],
  samples: advantages.map((advantage, k) => ({
    tokens: [3 + k, 4],
    advantage,
    old: Float64Array.of(-1 / 3 - k, -0.5),
    ...(k === 1 ? { mask: Uint8Array.of(1, 0) } : {}),
  })),
})

test("it keeps what has the most to teach, and draws in proportion to it", () => {
  const buffer = new ReplayBuffer(3)
  for (const [row, score] of [0.5, 2, 1, 0.4, 1, 3].entries()) buffer.add(score, group(row, score, -score))
  expect(buffer.length).toBe(3)
  // 0.4 is too low, the second 1 takes the place of 0.5, and 3 that of the newer 1.
  const rows = (count: number, seed: number) => buffer.draw(count, seed).map(({ row }) => row)
  expect(rows(3, 7).sort()).toEqual([1, 2, 5])
  expect(rows(3, 8)).toEqual(rows(3, 8))
  const found: Record<number, number> = {}
  for (let seed = 0; seed < 6000; seed++) found[rows(1, seed)[0]!] = (found[rows(1, seed)[0]!] ?? 0) + 1
  // Shares 2/6, 1/6 and 3/6: five standard deviations of a share over 6000 draws are 0.033.
  for (const [row, share] of [
    [1, 1 / 3],
    [2, 1 / 6],
    [5, 1 / 2],
  ] as const)
    expect(Math.abs(found[row]! / 6000 - share)).toBeLessThan(0.033)
  // More than there are: some come twice.
  expect(rows(5, 1)).toHaveLength(5)
  const other = new ReplayBuffer(3)
  other.restore(buffer.save())
  expect(other.draw(3, 5)).toEqual(buffer.draw(3, 5))
  expect(new ReplayBuffer(2).draw(1, 0)).toEqual([])
})

test("groups without a difference give their place to earlier ones; what losses divide by follows", () => {
  const buffer = new ReplayBuffer(4)
  const step = (rewards: number[], groups: SampledGroup[], flatGroups: number[]) =>
    replayGroups(
      buffer,
      { rollout: { step: 1, slices: [groups], stepTokens: 8 }, rewards: Float64Array.from(rewards), flatGroups },
      3,
    )
  const flat = group(9, 0, 0)
  const empty = step([1, 1], [flat], [0])
  expect([empty.rollout.slices, empty.metrics]).toEqual([[[flat]], { "groups/replayed": 0, "groups/kept": 0 }])
  const good = group(2, 0.7, -0.7)
  const both = step([1, 0, 1, 1], [good, flat], [1])
  expect(both.rollout.slices).toEqual([[good, good]])
  expect(both.metrics).toEqual({ "groups/replayed": 1, "groups/kept": 1 })
  // Three tokens of each group count.
  expect(both.rollout.stepTokens).toBe(6)
  // Deviation of (1, 0) with Bessel's correction: √½. As TRL scores it: Σ |A| · std.
  expect(replayScore([0.7, -0.7], Math.SQRT1_2)).toBeCloseTo(1.4 * Math.SQRT1_2, 15)
})

const seldom = defineReward({
  name: "seldom",
  each: ({ completionTokens }) => (completionTokens[0]! % 7 === 0 ? 1 : 0),
})
const run = async (settings: object) => stepsOf((await runs.run({ rewards: [seldom], settings })).run)

test("in a run: every step has something to learn, from ratios that are those of older weights", async () => {
  const plain = await run({})
  const replayed = await run({ replayBuffer: 16, clip: 10, clipHigh: 10 })
  expect(plain.some(({ metrics }) => metrics!["frac_reward_zero_std"]! > 0)).toBe(true)
  const { metrics } = replayed.at(-1)!
  expect(metrics!["groups/kept"]).toBeGreaterThan(3)
  expect(replayed.reduce((n, e) => n + e.metrics!["groups/replayed"]!, 0)).toBeGreaterThan(2)
  // With ratios of 1 the mean of ratio · advantage over whole groups of one length is 0, to rounding.
  const seen = replayed.filter((e) => e.metrics!["groups/replayed"]! > 0)
  expect(seen.some((e) => Math.abs(e.loss) > 1e-6)).toBe(true)
})

test("kill -9 in rollout, scoring and update: the buffer comes back with the same bits", async () => {
  const report = await killGrpo(folder, { kills: 4, variant: "replay" })
  expect([report.kills, report.differences]).toEqual([4, []])
}, 240_000)
