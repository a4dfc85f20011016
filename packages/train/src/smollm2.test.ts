import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readEvents, runPaths, type RunCallback, type StepEvent } from "@sloth/core"
import {
  attachLora,
  openModelFiles,
  packedContext,
  savePeftAdapter,
  type LoraConfig,
  type ModelFiles,
} from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { Engine, gatherRows, linearCrossEntropy } from "@sloth/tensor"
import type { TrainConfigInput } from "./config.ts"
import { backends } from "./internal/testing/backends.ts"
import { examplesOf, goldenDir, type GoldenStep } from "./internal/testing/tiny.ts"
import { buildMicroBatch } from "./micro-batch.ts"
import { unitFromTokens } from "./sft.ts"
import { train } from "./train.ts"

const path = [
  process.env["SLOTH_TEST_MODEL_GGUF"],
  join(import.meta.dirname, "..", "..", "..", ".cache", "models", "SmolLM2-135M-Instruct.Q4_1.gguf"),
].find((p) => p !== undefined && existsSync(p))
const cpu = backends.find((b) => b.name === "cpu")!
const absent =
  path === undefined
    ? "SmolLM2-135M-Instruct.Q4_1.gguf is absent (set SLOTH_TEST_MODEL_GGUF)"
    : cpu.missing === undefined
      ? undefined
      : "the native backend is not there, and the reference backend is too slow for 135 M parameters"
if (absent !== undefined) console.log(`(skip) ${absent}`)

/** The fill formula of tests/golden/README.md. */
const fill = (name: string, n: number, scale: number): Float32Array => {
  let phase = 0
  for (const [k, byte] of new TextEncoder().encode(name).entries()) phase += (k + 1) * byte
  phase %= 9973
  return Float32Array.from({ length: n }, (_, i) => {
    const x = Math.sin((i + 1) * 12.9898 + phase) * 43758.5453
    return scale * (2 * (x - Math.floor(x)) - 1)
  })
}

interface Golden {
  readonly rows: readonly { readonly tokens: number[]; readonly mask: number[] }[]
  readonly steps: readonly GoldenStep[]
}

describe.skipIf(absent !== undefined)("LoRA steps of SmolLM2-135M-Instruct against transformers and PEFT", () => {
  const golden = JSON.parse(readFileSync(join(goldenDir, "..", "smollm2", "lora-steps.json"), "utf8")) as Golden
  let engine: Engine
  let files: ModelFiles
  let folder = ""
  const lora: LoraConfig = {
    rank: 16,
    alpha: 32,
    dropout: 0,
    targets: "all-linear",
    rankStabilized: false,
    modulesToSave: [],
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "sloth-smollm2-"))
    engine = new Engine(await cpu.create())
    files = await openModelFiles(path!, [llamaFamily])
    using model = files.build(engine)
    attachLora(model, lora, 0)
    for (const { name, tensor, outer } of model.trainables())
      if (!outer) tensor.write(fill(name, tensor.size, 1 / Math.sqrt(tensor.shape[1]!)))
    await savePeftAdapter(model, join(folder, "start"), lora, "base")
  }, 60_000)
  afterAll(() => {
    rmSync(folder, { recursive: true, force: true })
    expect(engine.backend.memory.stats().liveBuffers).toBe(0)
    engine[Symbol.dispose]()
  })

  const run = async (name: string, until: number, config: TrainConfigInput) => {
    const stop: RunCallback = {
      name: "until",
      on: { step: (event, control) => void (event.step === until && control.stop("far enough")) },
    }
    const result = await train({
      engine,
      model: files,
      data: { examples: examplesOf(golden.rows) },
      run: join(folder, name),
      callbacks: [stop],
      config: { steps: 20, batch: 4, order: "sequential", adapter: join(folder, "start"), saveEvery: 0, ...config },
    })
    const steps = readEvents(runPaths(result.run).events).filter((e): e is StepEvent => e.type === "step")
    return { steps, plan: result.plan }
  }

  test("leaving out rows without a target changes no loss and no gradient", async () => {
    using model = files.build(engine)
    attachLora(model, lora, 0)
    for (const { name, tensor } of model.trainables()) tensor.write(fill(name, tensor.size, 0.05))
    const units = golden.rows
      .slice(0, 2)
      .map((row, i) => unitFromTokens(Int32Array.from(row.tokens), (t) => row.mask[t] === 1, i)!)
    const batch = buildMicroBatch(units)
    expect(batch.read.length).toBeLessThan(batch.tokens.length)
    const pass = async (trimmed: boolean) => {
      const nll = engine.scope(() => {
        const { result, tape } = engine.record(() => {
          const context = packedContext(engine, batch.layout, trimmed ? { read: batch.read } : {})
          const hidden = model.hidden(context, engine.from(batch.tokens))
          return linearCrossEntropy(
            trimmed ? hidden : gatherRows(hidden, engine.from(batch.rows)),
            model.head.weight.tensor,
            engine.from(batch.targets),
            engine.from(new Float32Array(batch.targets.length).fill(1 / batch.targets.length)),
            model.head,
          )
        })
        tape.backward([{ tensor: result }])
        return result
      })
      const losses = (await nll.readFloats()).slice()
      nll.dispose()
      const gradients = await Promise.all(
        model.trainables().map(async (t) => ({ name: t.name, g: (await t.tensor.grad!.readFloats()).slice() })),
      )
      model.clearGradients()
      return { losses, gradients }
    }
    const [whole, trimmed] = [await pass(false), await pass(true)]
    // Going forward an element is the same sum in the same order wherever its row stands.
    expect(trimmed.losses).toEqual(whole.losses)
    for (const [i, { name, g }] of trimmed.gradients.entries()) {
      const want = whole.gradients[i]!.g
      const norm = (v: Float32Array) => Math.sqrt(v.reduce((n, x) => n + x * x, 0))
      // Sums over rows are cut elsewhere: 2^-24 times the root of some 500 terms, through the root of 30 layers, is 7e-6.
      expect(norm(g.map((x, k) => x - want[k]!)) / norm(want), name).toBeLessThan(1e-5)
    }
  }, 120_000)

  for (const [name, until, config] of [
    ["planned", 8, {}],
    ["one text a micro-batch, blocks run twice", 2, { packing: false, policy: "checkpoint" }],
    ["small micro-batches, norms made again", 2, { tokenBudget: 96, policy: "recompute" }],
  ] as const)
    test(
      name,
      async () => {
        const { steps } = await run(name, until, config)
        expect(steps).toHaveLength(until)
        for (const [i, step] of steps.entries()) {
          const want = golden.steps[i]!
          // The issue asks for 1e-3; both sides add the same f32 products in different orders.
          expect(Math.abs(step.loss - want.loss), `loss of step ${step.step}`).toBeLessThan(2e-4)
          expect(Math.abs(step.gradNorm - want.gradNorm) / want.gradNorm).toBeLessThan(1e-3)
          expect(step.learningRate).toBeCloseTo(want.learningRate, 10)
          expect(step.scoredTokens).toBe(want.scoredTokens)
        }
      },
      600_000,
    )
})
