import { expect, test } from "bun:test"
import { isSlothError } from "@sloth/core"
import {
  buildMicroBatch,
  makeTrainable,
  planRun,
  readLogprobs,
  readReferenceLogprobs,
  resolveTrainConfig,
  SyncedReference,
} from "@sloth/train"
import type { PromptExample } from "../data/prompts.ts"
import { killGrpo } from "../internal/testing/kill-grpo.ts"
import { stepsOf, tinyRuns } from "../internal/testing/online-runs.ts"
import { evenTokens, tinyModel, tinyPrompts } from "../internal/testing/tiny-grpo.ts"
import { grpo, reinforcePlusPlus, rloo } from "./grpo.ts"
import { sampledUnits } from "./sampled-unit.ts"

const { engine, folder, run } = tinyRuns({
  settings: { numGenerations: 4 },
  config: { steps: 5, batch: 3, schedule: "constant" },
})

const klOf = async (objective: typeof grpo | typeof rloo | typeof reinforcePlusPlus, settings: object) =>
  stepsOf((await run({ objective, settings })).run).map(({ metrics }) => metrics!["kl"]!)

test("a reference that takes over the whole policy after every step is the policy: no divergence at any step", async () => {
  for (const [objective, settings] of [
    [grpo, { beta: 0.1 }],
    [rloo, {}],
    [reinforcePlusPlus, {}],
  ] as const) {
    const still = await klOf(objective, settings)
    expect(Math.abs(still.at(-1)!)).toBeGreaterThan(1e-3)
    const follows = await klOf(objective, {
      ...settings,
      syncReference: true,
      referenceMixup: 1,
      referenceSyncSteps: 1,
    })
    // The same numbers by the same pass, and at the first step an adapter that adds 0: f32 rounding of log-probs near 5 at the most.
    for (const kl of follows) expect(Math.abs(kl)).toBeLessThan(1e-6)
    // Two steps later than the policy, from the third on.
    const lags = await klOf(objective, { ...settings, syncReference: true, referenceMixup: 1, referenceSyncSteps: 2 })
    expect(lags.slice(0, 2)).toEqual(still.slice(0, 2))
    expect(Math.abs(lags[2]!)).toBeLessThan(1e-6)
    expect(Math.abs(lags[3]!)).toBeGreaterThan(1e-6)
  }
}, 60_000)

test("a mixture: each factor is the weighted mean, passes leave the policy as it is, and bytes give it back", async () => {
  using model = tinyModel().build(engine)
  makeTrainable(model, resolveTrainConfig({ rank: 4 }))
  using reference = new SyncedReference(model, { mixup: 0.25, every: 2 })
  const parameters = model.trainables()
  const batch = buildMicroBatch(sampledUnits([3, 9, 14], [{ tokens: [7, 22, 30], advantage: 0 }], 0))
  const base = (await readLogprobs(model, batch, { adapters: false })).logprobs
  for (const [i, { tensor }] of parameters.entries())
    engine.backend.kernels.randomNormal(tensor.handle, 0, 0.3, tensor.size, 7, i)
  const read = () => Promise.all(parameters.map(({ tensor }) => tensor.readFloats()))
  const policy = await read()
  const first = await readReferenceLogprobs(model, batch, reference)
  // An adapter that adds 0 goes through other sums.
  for (const [i, lp] of first.entries()) expect(lp).toBeCloseTo(base[i]!, 5)
  expect(await read()).toEqual(policy)
  expect([reference.trained(1), reference.trained(2), reference.trained(3), reference.trained(4)]).toEqual([
    false,
    true,
    false,
    true,
  ])
  const bytes = await reference.save()
  const stored = new Float32Array(Uint8Array.from(bytes).buffer)
  let at = 0
  for (const [i, { outer }] of parameters.entries())
    for (const x of policy[i]!) {
      // Outer factors come from 0: 0.25 after the first synchronisation, 0.25 + 0.75 · 0.25 after the second.
      if (outer) expect(stored[at]).toBeCloseTo(0.4375 * x, 5)
      at++
    }
  expect(at).toBe(stored.length)
  const second = await readReferenceLogprobs(model, batch, reference)
  expect(second).not.toEqual(first)
  using other = new SyncedReference(model, { mixup: 0.25, every: 2 })
  other.restore(bytes)
  expect(await readReferenceLogprobs(model, batch, other)).toEqual(second)
  for (const wrong of [undefined, bytes.slice(4)])
    try {
      other.restore(wrong)
      throw new Error("it was taken")
    } catch (error) {
      expect(isSlothError(error) && error.code).toBe("SLOTH_RESUME_STATE")
    }
})

test("the plan counts it, and settings that follow nothing are refused", async () => {
  const plan = (settings: object) =>
    planRun<PromptExample>({
      engine,
      model: tinyModel(),
      data: { examples: tinyPrompts },
      objective: grpo,
      rewards: [evenTokens],
      settings: { numGenerations: 4, maxCompletionLength: 6, ...settings },
      config: { batch: 5, epochs: 2 },
      measure: false,
    })
  const [plain, synced] = [await plan({ beta: 0.1 }), await plan({ beta: 0.1, syncReference: true })]
  expect(synced.memory.adapterBytes).toBeGreaterThanOrEqual(3 * plain.memory.adapterBytes)
  const refused = await plan({ syncReference: true }).catch((error: unknown) => error)
  expect(isSlothError(refused) && refused.code).toBe("SLOTH_RL_SETTINGS")
})

test("kill -9 in rollout, scoring and update: the reference and the weight of the entropy bonus come back with the same bits", async () => {
  const report = await killGrpo(folder, { kills: 4, variant: "synced" })
  expect([report.kills, report.differences]).toEqual([4, []])
}, 240_000)
