import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, renameSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isSlothError, readEvents, runPaths, type StepEvent } from "@sloth/core"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { planRun, train, type TrainConfigInput } from "@sloth/train"
import type { PreferenceExample } from "../data/examples.ts"
import { evenTokens, tinyModel, tinyPrompts } from "../internal/testing/tiny-grpo.ts"
import { rloo } from "../online/grpo.ts"
import { dpo } from "./dpo.ts"
import { orpo } from "./orpo.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-reference-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** A completion behind a prompt of three tokens. */
const completion = (ids: readonly number[]) => ({
  tokens: Int32Array.from([5, 6, 7, ...ids]),
  scored: Uint8Array.from([0, 0, 0, ...ids.map(() => 1)]),
})
const examples = Array.from({ length: 4 }, (_, row): PreferenceExample => ({
  chosen: completion([10 + row, 11, 12]),
  rejected: completion([20 + row, 21]),
  row,
}))
const base = { batch: 4, rank: 4, learningRate: 1e-2, saveEvery: 1, schedule: "constant" } as const

const steps = async (
  name: string,
  objective: typeof dpo | typeof orpo | typeof rloo,
  config: TrainConfigInput,
  more: Record<string, unknown> = {},
): Promise<readonly StepEvent[]> => {
  using engine = new Engine(createReferenceBackend())
  const run = join(folder, name)
  const online = objective === rloo
  await train({
    engine,
    model: tinyModel(),
    data: online ? { examples: tinyPrompts } : { examples },
    objective: objective as never,
    ...(online ? { rewards: [evenTokens] } : {}),
    config,
    measure: false,
    run,
    ...more,
  } as never)
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  return readEvents(runPaths(run).events).filter((event): event is StepEvent => event.type === "step")
}

/** The adapter of a run that has learnt something. */
const taught = async (): Promise<string> => {
  await steps("taught", orpo, { ...base, steps: 3 })
  return runPaths(join(folder, "taught")).adapter
}

describe("a run that starts from an adapter", () => {
  let adapter = ""
  beforeAll(async () => {
    adapter = await taught()
  })
  const { rank: _, ...rest } = base

  test("compares with the model as it was: the first loss is ln 2, the margin grows from 0", async () => {
    const start = await steps("start", dpo, { ...rest, adapter, steps: 3 })
    expect(start[0]!.loss).toBeCloseTo(Math.LN2, 7)
    expect(start[0]!.metrics!["rewards/margins"]).toBeCloseTo(0, 6)
    expect(start[2]!.metrics!["rewards/margins"]).toBeGreaterThan(0.001)
    // The model below the adapter is another one.
    const below = await steps("below", dpo, { ...rest, adapter, referenceModel: "base", steps: 1 })
    expect(Math.abs(below[0]!.metrics!["rewards/margins"]!)).toBeGreaterThan(1e-4)
    expect(below[0]!.loss).not.toBeCloseTo(Math.LN2, 5)
  })

  test("goes on with the same reference when it is resumed, bit for bit", async () => {
    const whole = await steps("whole", dpo, { ...rest, adapter, steps: 3 })
    await steps("part", dpo, { ...rest, adapter, steps: 1 })
    const more = await steps("part", dpo, { steps: 3 }, { resume: true })
    expect(more.map(({ loss }) => loss)).toEqual(whole.map(({ loss }) => loss))
  })

  test("will not be resumed when the adapter that it compares with has changed", async () => {
    await steps("other", orpo, { ...base, steps: 1, seed: 5 })
    const moved = runPaths(join(folder, "other")).adapter
    await steps("changed", dpo, { ...rest, adapter: moved, steps: 1 })
    rmSync(moved, { recursive: true })
    await steps("again", orpo, { ...base, steps: 2, seed: 6 })
    renameSync(runPaths(join(folder, "again")).adapter, moved)
    const error = await steps("changed", dpo, { steps: 2 }, { resume: true }).catch((e: unknown) => e)
    expect(isSlothError(error) && error.code).toBe("SLOTH_RUN_INPUT_CHANGED")
  })

  test("a KL divergence in rewards is 0 before anything is learnt", async () => {
    const settings = { numGenerations: 2, maxCompletionLength: 6, beta: 0.1 }
    const [first] = await steps("rloo", rloo, { ...rest, adapter, batch: 2, steps: 1 }, { settings })
    expect(first!.metrics!["kl"]).toBeCloseTo(0, 6)
    const [below] = await steps(
      "rloo-below",
      rloo,
      { ...rest, adapter, referenceModel: "base", batch: 2, steps: 1 },
      { settings },
    )
    expect(Math.abs(below!.metrics!["kl"]!)).toBeGreaterThan(1e-6)
  })

  test("the plan counts the second copy of the adapter", async () => {
    using engine = new Engine(createReferenceBackend())
    const plan = (referenceModel: "start" | "base") =>
      planRun({
        engine,
        model: tinyModel(),
        data: { examples },
        objective: dpo as never,
        config: { ...rest, adapter, referenceModel, steps: 1 },
        measure: false,
      } as never)
    const [start, below] = [await plan("start"), await plan("base")]
    expect(start.memory.peakBytes - start.memory.runtimeBytes).toBeGreaterThan(
      below.memory.peakBytes - below.memory.runtimeBytes,
    )
  })
})
