import { describe, expect, test } from "bun:test"

import type { Reward, RewardSample } from "@sloth/core"

import { describeReward } from "./describe-reward.ts"
import { collectingApi, firstFailureOf } from "./internal/collecting-api.ts"

const sample = (completion: string, answer: string): RewardSample => ({
  prompt: "What is 1 + 1?",
  completion,
  completionTokens: [1, 2],
  finishReason: "stop",
  row: { answer },
})

const exact: Reward = {
  name: "exact",
  weight: 0.5,
  score: (samples) =>
    samples.map(({ completion, row }) =>
      typeof row["answer"] !== "string" ? null : completion.trim() === row["answer"] ? 1 : 0,
    ),
}

const cases = [
  { sample: sample("2", "2"), score: 1 },
  { sample: sample(" 3", "2"), score: 0 },
  { sample: { ...sample("2", ""), row: {} }, score: null },
]

describeReward(exact, { cases })

describe("the kit refuses", () => {
  const refused: Record<string, Reward> = {
    "too few scores": { name: "a", score: (samples) => exact.score(samples.slice(1)) },
    "NaN for an empty completion": {
      name: "b",
      score: (samples) => samples.map((s) => s.completion.trim().length / s.completion.length),
    },
    "a throw on broken JSON": {
      name: "c",
      score: (samples) => samples.map((s) => Number(JSON.parse(s.completion) === 2)),
    },
    "a change to a sample": {
      name: "d",
      score: (samples) => samples.map((s) => ((s.row as Record<string, unknown>)["answer"] = "x").length),
    },
    "scores that depend on the company": { name: "e", score: (samples) => samples.map((_, i) => i) },
    "other scores than expected": { name: "f", score: (samples) => samples.map(() => 1) },
  }
  for (const [label, reward] of Object.entries(refused)) {
    test(label, async () => {
      const api = collectingApi()
      describeReward(reward, { cases, api })
      expect(await firstFailureOf(api.tests)).toBeString()
    })
  }
})
