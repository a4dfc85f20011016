import { expect, test } from "bun:test"
import { Adviser } from "./advice.ts"

const healthy = (i: number) => ({
  reward: 0.4 + 0.01 * i,
  reward_std: 0.2,
  frac_reward_zero_std: 0.1,
  "completions/mean_length": 40,
  "completions/clipped_ratio": 0.1,
  kl: 0.02,
  entropy: 1,
})

const codes = (change: (i: number) => Readonly<Record<string, number | undefined>>): string[] => {
  const adviser = new Adviser(100, 64)
  return Array.from({ length: 30 }, (_, i) =>
    adviser.take({ ...healthy(i), ...change(i) } as Record<string, number>),
  ).flatMap((advice) => advice.map(({ code }) => code))
}

test("a healthy run hears nothing, and steps without a rollout are not counted", () => {
  expect(codes(() => ({}))).toEqual([])
  expect(new Adviser(100, 64).take({ kl: 100 })).toEqual([])
})

test("each trouble is said once, with what helps", () => {
  expect(codes(() => ({ frac_reward_zero_std: 1 }))).toEqual(["SLOTH_RL_FLAT_GROUPS"])
  expect(codes((i) => (i < 15 ? {} : { reward: 0.1 }))).toEqual(["SLOTH_RL_REWARD_COLLAPSE"])
  expect(codes((i) => (i < 8 ? {} : { "completions/mean_length": 95, "completions/clipped_ratio": 0.9 }))).toEqual([
    "SLOTH_RL_LENGTH_EXPLOSION",
  ])
  expect(codes(() => ({ "completions/mean_length": 100, "completions/clipped_ratio": 1 }))).toEqual([
    "SLOTH_RL_TRUNCATED",
  ])
  expect(codes((i) => ({ kl: 0.02 * 1.3 ** i }))).toEqual(["SLOTH_RL_KL"])
  expect(codes((i) => ({ entropy: 0.7 ** i }))).toEqual(["SLOTH_RL_ENTROPY_COLLAPSE"])
  const adviser = new Adviser(100, 64)
  for (let i = 0; i < 4; i++) expect(adviser.take({ ...healthy(i), frac_reward_zero_std: 1 })).toEqual([])
  expect(adviser.take({ ...healthy(4), frac_reward_zero_std: 1 })[0]!.message).toContain("dynamicSampling")
})

test("equal rewards of pairs teach chance or nothing, and what helps is what the method has", () => {
  const heard = (pairs: "first" | "nothing") => {
    const adviser = new Adviser(100, 64, pairs)
    return Array.from({ length: 5 }, (_, i) => adviser.take({ ...healthy(i), frac_reward_zero_std: 0.9 })).flat()[0]!
      .message
  }
  expect(heard("first")).toContain('Set ties to "skip"')
  for (const pairs of ["first", "nothing"] as const) expect(heard(pairs)).not.toContain("numGenerations")
})

test("a judge that says nothing is noticed, also where there is no reward left", () => {
  const adviser = new Adviser(100, 64, "nothing")
  const heard = (unparsed: number) => adviser.take({ "rewards/judge/unparsed": unparsed }).map(({ code }) => code)
  expect([1, 1, 1, 1, 0.2, 1, 1, 0.6, 0.5].flatMap(heard)).toEqual([])
  expect([0.9, 1].flatMap(heard)).toEqual(["SLOTH_RL_JUDGE_SILENT"])
})

test("chance alone is no collapse", () => {
  // 64 prompts with a deviation of 0.5: means of five rollouts move by 0.028.
  expect(codes((i) => ({ reward: 0.1 + 0.05 * Math.sin(i), reward_std: 0.5 }))).toEqual([])
})
