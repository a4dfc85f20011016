import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isSlothError, type SlothError } from "@sloth/core"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { resolveTrainConfig, type TrainConfigInput } from "./config.ts"
import { countingExamples, randomFiles } from "./internal/testing/tiny.ts"
import { formatPlan } from "./plan-text.ts"
import type { LogprobLoss, TrainingUnit } from "./objective.ts"
import { planUnits } from "./planner.ts"
import { unitFromExample } from "./sft.ts"
import { planRun, train } from "./train.ts"

setDefaultTimeout(60_000)

const engine = new Engine(createReferenceBackend())
const folder = mkdtempSync(join(tmpdir(), "sloth-plan-"))
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

/** Rows long enough that activations are most of the memory. */
const examples = countingExamples(32).map((e, row) => {
  const length = 30 + row
  const tokens = Int32Array.from({ length }, (_, k) => 1 + ((k * 3 + row) % 60))
  return { tokens, mask: new Uint8Array(length).fill(1), row: e.row }
})
const model = randomFiles({ layers: 4, hidden: 32 })
const plan = (config: TrainConfigInput = {}, measure = false) =>
  planRun({ engine, model, data: { examples }, config: { batch: 8, steps: 2, ...config }, measure })

const refused = async (promise: Promise<unknown>): Promise<SlothError> => {
  const error = await promise.catch((e: unknown) => e)
  if (isSlothError(error)) return error
  throw error instanceof Error ? error : new Error("nothing was refused")
}

describe("the forecast of memory", () => {
  for (const [name, config] of Object.entries({
    keep: { policy: "keep" },
    recompute: { policy: "recompute" },
    checkpoint: { policy: "checkpoint" },
    spill: { policy: "spill" },
    "small micro-batches": { policy: "keep", tokenBudget: 130 },
    unpacked: { policy: "keep", packing: false },
    "8-bit states": { policy: "keep", optimizer: "adamw8bit", modulesToSave: ["embed_tokens"] },
    "all weights": { policy: "recompute", full: true },
    dropout: { policy: "keep", dropout: 0.1 },
  } as Record<string, TrainConfigInput>))
    test(`is what the run then takes: ${name}`, async () => {
      using own = new Engine(createReferenceBackend())
      const result = await train({
        engine: own,
        model,
        // Every step has all rows: the largest micro-batch there can be then is one that there is.
        data: { examples: examples.slice(0, 8) },
        config: { batch: 8, steps: 2, ...config },
        measure: false,
        run: join(folder, name),
      })
      const { peakBytes } = own.backend.memory.stats()
      const { memory } = result.plan
      const forecast = memory.peakBytes - memory.runtimeBytes - memory.reserveBytes - memory.mappedBytes
      expect(forecast).toBeGreaterThanOrEqual(peakBytes)
      expect(forecast).toBeLessThan(peakBytes * 1.08)
      const { spillBytes } = result.plan.disk
      expect(spillBytes !== undefined).toBe(config.policy === "spill")
      expect(memory.gradientBytes).toBe(result.plan.trainableParameters * 4)
    })
})

describe("the choice of policy and split", () => {
  test("with room everything is kept; with less the cheapest that fits is taken; results fit", async () => {
    const config = resolveTrainConfig({ batch: 32 })
    const units = examples.map((e) => unitFromExample(e)!)
    const input = { model, method: "sft", loss: { kind: "cross-entropy" }, units, evaluationUnits: [] } as const
    const planned = (memoryBudget: number) =>
      planUnits({ ...input, config: { ...config, memoryBudget }, memoryBytes: 0, runtimeBytes: 0 })
    const { peakBytes, reserveBytes } = (await planned(1e12)).memory
    const seen: string[] = []
    // The reserve is larger than this small model; the steps are of what varies.
    for (let live = peakBytes - reserveBytes; ; live *= 0.96) {
      const budget = live + reserveBytes
      try {
        const { policy, tokenBudget, memory } = await planned(budget)
        expect(memory.peakBytes).toBeLessThanOrEqual(budget)
        const choice = `${policy} ${tokenBudget}`
        if (seen.at(-1) !== choice) seen.push(choice)
      } catch (error) {
        if (!isSlothError(error)) throw error
        expect(error.code).toBe("SLOTH_PLAN_MEMORY")
        break
      }
    }
    expect(seen[0]).toBe("keep 1024")
    // Smaller micro-batches cost less time than running blocks twice.
    expect(seen).toContain("keep 512")
    expect(seen).toContain("checkpoint 256")
    expect(seen.at(-1)).toBe("spill 256")
    // The disk comes last.
    const disk = seen.findIndex((s) => s.startsWith("spill"))
    expect(seen.slice(disk).every((s) => s.startsWith("spill"))).toBe(true)
  })

  test("where much is trained more activations are kept, for micro-batches that touch all weights less often", async () => {
    const deep = randomFiles({ layers: 116, hidden: 64 })
    const tokens = Int32Array.from({ length: 500 }, (_, i) => 1 + (i % 60))
    const units = Array.from({ length: 4 }, (_, row) =>
      unitFromExample({ tokens, mask: new Uint8Array(500).fill(1), row })!,
    )
    const planned = async (config: TrainConfigInput) => {
      const { policy, tokenBudget, memory } = await planUnits({
        model: deep,
        method: "sft",
        loss: { kind: "cross-entropy" },
        units,
        evaluationUnits: [],
        config: resolveTrainConfig({ batch: 4, steps: 1, ...config }),
        memoryBytes: 1e12,
      })
      return { choice: `${policy} ${tokenBudget}`, ...memory }
    }
    const all = await planned({ full: true })
    expect(all.choice).toBe("keep 1024")
    // More than an adapter is given, whose states are small, and at most as much more as gradients and states hold.
    expect(all.activationBytes).toBeGreaterThan(384e6)
    expect(all.activationBytes).toBeLessThan(384e6 + all.gradientBytes + all.optimizerBytes)
    const adapter = await planned({ rank: 1 })
    expect(adapter.choice).not.toBe("keep 1024")
    expect(adapter.activationBytes).toBeLessThan(384e6)
  })

  test("completions that share a prompt are not cut where memory is enough", async () => {
    const [prompt, own, count] = [200, 150, 8]
    const group = (n: number): TrainingUnit => ({
      tokens: new Int32Array(prompt + n * own),
      segments: [{ length: prompt, parent: null }, ...Array.from({ length: n }, () => ({ length: own, parent: 0 }))],
      scoredRows: Int32Array.from({ length: n * own }, (_, i) => prompt + i),
      targets: new Int32Array(n * own),
      sourceTokens: n * (prompt + own),
      row: 0,
    })
    const splitForecast = (_: TrainingUnit, tokenBudget: number) => {
      const fits = Math.max(1, Math.floor((tokenBudget - prompt) / own))
      return Array.from({ length: Math.ceil(count / fits) }, (_, i) => group(Math.min(fits, count - i * fits)))
    }
    const planned = async (memoryBudget: number) => {
      const plan = await planUnits({
        model,
        method: "grpo",
        loss: {
          kind: "logprobs",
          compute: ({ logprobs }) => ({ loss: 0, dlogp: new Float64Array(logprobs.length), metrics: {} }),
        },
        units: [group(count), group(count)],
        evaluationUnits: [],
        config: resolveTrainConfig({ batch: 2, steps: 1, memoryBudget }),
        memoryBytes: 0,
        runtimeBytes: 0,
        online: { reuse: { slices: 1, times: 1 }, splitForecast },
      })
      return { tokenBudget: plan.tokenBudget, microBatches: plan.microBatchesPerStep, ...plan.memory }
    }
    const whole = await planned(1e12)
    // Both prompts once: 1,400 rows each in a micro-batch of their own.
    expect(whole).toMatchObject({ tokenBudget: prompt + count * own, microBatches: 2 })
    const cut = await planned(whole.peakBytes - whole.activationBytes / 2)
    expect(cut.tokenBudget).toBeLessThan(prompt + count * own)
    expect(cut.microBatches).toBeGreaterThan(2)
  })

  /** Units that are made during a run, of 299 rows each. */
  const made = {
    model,
    method: "grpo",
    loss: {
      kind: "logprobs",
      compute: ({ logprobs }) => ({ loss: 0, dlogp: new Float64Array(logprobs.length), metrics: {} }),
    } satisfies LogprobLoss,
    units: Array.from({ length: 4 }, (_, row) => {
      const tokens = Int32Array.from({ length: 300 }, (_, i) => 1 + (i % 60))
      return unitFromExample({ tokens, mask: new Uint8Array(300).fill(1), row })!
    }),
    evaluationUnits: [],
  }

  test("micro-batches of units that are made during the run hold whole numbers of the largest", async () => {
    const budget = async (online: boolean, tokenBudget?: number) => {
      const plan = await planUnits({
        ...made,
        config: resolveTrainConfig({ batch: 4, steps: 1, ...(tokenBudget === undefined ? {} : { tokenBudget }) }),
        memoryBytes: 1e12,
        ...(online ? { online: { reuse: { slices: 1, times: 1 } } } : {}),
      })
      return [plan.tokenBudget, plan.microBatchesPerStep]
    }
    expect(await budget(true)).toEqual([3 * 299, 2])
    expect(await budget(false)).toEqual([1024, 2])
    // What the user says stands.
    expect(await budget(true, 1000)).toEqual([1000, 2])
  })

  test("prompts are kept from the rollout while there is room, and a resumed run keeps as many", async () => {
    const rows = 200
    const seen: number[] = []
    const planned = (config: TrainConfigInput, decided?: Parameters<typeof planUnits>[0]["decided"]) =>
      planUnits({
        ...made,
        config: resolveTrainConfig({ batch: 4, steps: 1, policy: "keep", ...config }),
        memoryBytes: 1e12,
        runtimeBytes: 0,
        online: {
          reuse: { slices: 1, times: 1 },
          kept: { prompts: 4, rows },
          rehearse: (_model, _teacher, kept) => void seen.push(kept),
        },
        ...(decided === undefined ? {} : { decided }),
      })
    const kept = await planned({})
    expect(kept.kept!.prompts).toBe(4)
    expect(seen).toEqual([0, 4])
    // Per row: q, o and down 32 each, k and v 16, gate and up 64, and seven times the rank of 16; of the last layer k and v.
    expect(kept.kept!.bytes).toBe(4 * rows * 4 * (3 * (3 * 32 + 2 * 16 + 2 * 64 + 7 * 16) + 2 * (16 + 16)))
    // Prompts of fewer than 256 rows are read together, so all of them may lie beside the first of two micro-batches.
    const plain = await planned({}, { tokenBudget: kept.tokenBudget, policy: "keep", packing: true })
    expect(plain.kept).toBeUndefined()
    const more = kept.memory.activationBytes - plain.memory.activationBytes
    expect(Math.abs(more / kept.kept!.bytes - 1)).toBeLessThan(0.05)
    expect(formatPlan(kept)).toMatch(/4 of each rollout are computed once for rollout and update/)
    // There is room for the run, but not for what it could keep.
    const narrow = { memoryBudget: kept.memory.peakBytes - 1 }
    expect((await planned(narrow)).kept).toBeUndefined()
    const resumed = await planned(narrow, {
      tokenBudget: 897,
      policy: "keep",
      packing: true,
      kept: { prompts: 2, bytes: 0 },
    })
    expect(resumed.kept!.prompts).toBe(2)
    expect((await planned({ policy: "checkpoint" })).kept).toBeUndefined()
  })

  test("the same plan comes out whatever the machine's speed is", async () => {
    const [a, b] = [await plan({}, true), await plan({}, false)]
    expect([a.tokenBudget, a.policy, a.microBatchesPerStep]).toEqual([b.tokenBudget, b.policy, b.microBatchesPerStep])
    expect(b.time).toBeUndefined()
    expect(a.time!.secondsPerStep).toBeGreaterThan(0)
    expect(a.time!.seconds).toBeCloseTo(a.time!.secondsPerStep * 2, 10)
  })

  test("checkpointing costs more arithmetic and less memory", async () => {
    const [keep, again, blocks] = [
      await plan({ policy: "keep" }),
      await plan({ policy: "recompute" }),
      await plan({ policy: "checkpoint" }),
    ]
    expect(blocks.flopsPerStep / keep.flopsPerStep).toBeGreaterThan(1.2)
    expect(again.flopsPerStep).toBe(keep.flopsPerStep)
    expect(again.memory.activationBytes).toBeLessThan(keep.memory.activationBytes)
    expect(blocks.memory.activationBytes).toBeLessThan(again.memory.activationBytes)
    const disk = await plan({ policy: "spill" }, true)
    expect(disk.memory.activationBytes).toBeLessThan(blocks.memory.activationBytes)
    // The results of attention are taken from the disk instead of being computed again.
    expect(disk.flopsPerStep).toBeLessThan(blocks.flopsPerStep)
    expect(disk.disk.neededBytes - blocks.disk.neededBytes).toBe(disk.disk.spillBytes!)
    expect(formatPlan(disk)).toMatch(/wait on disk/)
    expect(formatPlan(disk)).toMatch(
      /activations [\d.]+ [KM]B \([\d.]+ [KM]B written and read a step at [\d.]+ [KMG]B\/s\)/,
    )
  })
})

describe("refusals before the start", () => {
  test("not enough memory: says how much is needed and what to change", async () => {
    const error = await refused(
      train({ engine, model, data: { examples }, config: { memoryBudget: 1e6 }, run: join(folder, "never") }),
    )
    expect(error.code).toBe("SLOTH_PLAN_MEMORY")
    expect(error.fields["needBytes"]).toBeGreaterThan(1e6)
    expect(error.message).toContain("maxLength")
    expect(existsSync(join(folder, "never"))).toBe(false)
  })

  test("nothing to learn", async () => {
    const silent = examples.map((e) => ({ ...e, mask: new Uint8Array(e.mask.length) }))
    const error = await refused(planRun({ engine, model, data: { examples: silent }, measure: false }))
    expect(error.code).toBe("SLOTH_PLAN_NO_SCORED")
  })

  test("a disk too small for the checkpoints", async () => {
    const huge = { keepCheckpoints: Number.MAX_SAFE_INTEGER, steps: 10 ** 9, saveEvery: 1 }
    expect((await refused(plan(huge))).code).toBe("SLOTH_PLAN_DISK")
  })

  test("a disk too small for the activations", async () => {
    const { memory, disk } = await plan({ policy: "spill" })
    expect(memory.peakBytes).toBeGreaterThan(0)
    const error = await refused(
      plan({ policy: "spill", steps: 10 ** 9, saveEvery: 1, keepCheckpoints: Number.MAX_SAFE_INTEGER }),
    )
    expect(error.code).toBe("SLOTH_PLAN_DISK")
    expect(error.message).toContain("activations that memory has no room for")
    expect(disk.spillBytes).toBeGreaterThan(0)
  })

  test("targets that match nothing and a rank that does not fit", async () => {
    expect((await refused(plan({ targets: ["query"] }))).code).toBe("SLOTH_ADAPTER_TARGETS")
    expect((await refused(plan({ rank: 4096 }))).code).toBe("SLOTH_ADAPTER_RANK")
  })
})

test("the printed plan names what will happen", async () => {
  const text = formatPlan(await plan({ dropout: 0.1, warmupSteps: 1, modulesToSave: ["embed_tokens"] }, true))
  for (const part of [
    "LoRA rank 16, alpha 32",
    "dropout 0.1",
    "embed_tokens whole",
    "32 rows",
    "2 of 8 rows",
    "warm-up",
  ])
    expect(text).toContain(part)
  expect(text).not.toContain("longer rows")
  expect(formatPlan(await plan({ tokenBudget: 40 }))).toContain("up to 40 tokens, longer rows alone (up to 61)")
  expect(text).toMatch(/tokens\/s, from [\d.]+ GFLOP\/s measured/)
  for (const line of text.split("\n")) expect(line).not.toMatch(/NaN|undefined|Infinity/)
})
