import { afterEach, beforeEach, describe, expect, setDefaultTimeout, test } from "bun:test"
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import {
  isSlothError,
  readEvents,
  readRunConfig,
  runPaths,
  type RunCallback,
  type RunEvent,
  type RunEventOf,
  type StepEvent,
  type Tracker,
} from "@sloth/core"
import type { Example } from "@sloth/data"
import {
  attachLora,
  CausalLM,
  DEFAULT_LORA,
  fileWeights,
  loadPeftAdapter,
  readGguf,
  readSafetensors,
  savePeftAdapter,
  writeGguf,
  type GgufInput,
} from "@sloth/model"
import { llamaFamily } from "@sloth/model-llama"
import { createReferenceBackend, Engine, ModuleBuilder, weightFormat } from "@sloth/tensor"
import { verifyCheckpoint } from "./checkpoint.ts"
import { evaluateExamples } from "./evaluate.ts"
import { countingExamples, examplesOf, goldenDir, randomFiles, readGolden, tinyFiles } from "./internal/testing/tiny.ts"
import type { Objective } from "./objective.ts"
import type { TrainModel } from "./model-files.ts"
import { pretraining, sft } from "./sft.ts"
import { firstNonFiniteFrozen } from "./step-runner.ts"
import { train } from "./train.ts"
import type { TrainOptions } from "./train-options.ts"

setDefaultTimeout(60_000)

let engine = new Engine(createReferenceBackend())
let folder = ""
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "sloth-train-"))
  engine = new Engine(createReferenceBackend())
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

const home = () => join(folder, "run")
const run = (options: Partial<TrainOptions> = {}) =>
  train({
    engine,
    model: randomFiles(),
    data: { examples: countingExamples(24) },
    measure: false,
    run: home(),
    ...options,
    config:
      options.resume === true ? options.config : { batch: 4, steps: 6, rank: 4, learningRate: 1e-2, ...options.config },
  })

const errorOf = async (promise: Promise<unknown>) => {
  try {
    await promise
  } catch (error) {
    if (isSlothError(error)) return error
    throw error
  }
  throw new Error("nothing was refused")
}

const adapterOf = (path = home()) => readFileSync(join(path, "adapter", "adapter_model.safetensors")).toString("base64")
const events = (path = home()) => readEvents(runPaths(path).events)
const steps = (path = home()) => events(path).filter((e): e is StepEvent => e.type === "step")
const checkpoints = (path = home()) => readdirSync(join(path, "checkpoints")).sort()

describe("train", () => {
  const golden = readGolden("tied")
  for (const [name, kind] of [
    ["lora-wd", "adapter"],
    ["full-wd", "weights"],
  ] as const)
    test(`${name} against transformers' Trainer`, async () => {
      const expected = golden[`run:${name}`]!
      const result = await run({
        model: tinyFiles("tied"),
        data: { examples: examplesOf(golden.trainRows) },
        config: {
          steps: 20,
          rank: undefined,
          batch: golden.batch,
          order: "sequential",
          learningRate: expected.learningRate,
          weightDecay: expected.weightDecay,
          ...(kind === "adapter" ? { adapter: join(goldenDir, "tied", "adapter") } : { full: true }),
        },
      })
      expect(result.status).toBe("completed")
      expect(result.steps).toBe(20)
      expect(steps()).toHaveLength(20)
      for (const [i, step] of steps().entries()) {
        const want = expected.steps[i]!
        expect(Math.abs(step.loss - want.loss)).toBeLessThan(kind === "adapter" ? 1e-5 : 5e-4)
        expect(Math.abs(step.gradNorm - want.gradNorm)).toBeLessThan(kind === "adapter" ? 1e-4 : 5e-3)
        expect(step.learningRate).toBeCloseTo(want.learningRate, 10)
        expect(step.scoredTokens).toBe(want.scoredTokens)
      }
      const finals = new Map(
        readSafetensors(join(goldenDir, "tied", "golden.safetensors")).tensors.map((t) => [t.name, t]),
      )
      const path =
        kind === "adapter"
          ? join(result.adapter!, "adapter_model.safetensors")
          : join(result.weights!, "model.safetensors")
      let compared = 0
      for (const entry of readSafetensors(path).tensors) {
        const want = finals.get(`final.${name}.${entry.name}`)
        if (want === undefined) continue
        const floats = (e: { path: string; offset: number; bytes: number }) =>
          new Float32Array(readFileSync(e.path).buffer.slice(e.offset, e.offset + e.bytes))
        const [a, b] = [floats(entry), floats(want)]
        for (let i = 0; i < b.length; i++)
          expect(Math.abs(a[i]! - b[i]!)).toBeLessThan(kind === "adapter" ? 1e-4 : 1e-2)
        compared++
      }
      expect(compared).toBe(kind === "adapter" ? 28 : 3)
    })

  test("a step event has exactly the documented keys", async () => {
    await run()
    const line = readFileSync(runPaths(home()).events, "utf8")
      .split("\n")
      .find((l) => l.includes('"step"'))!
    expect(Object.keys(JSON.parse(line) as object)).toEqual([
      "type",
      "step",
      "loss",
      "gradNorm",
      "learningRate",
      "tokens",
      "scoredTokens",
      "seconds",
      "tokensPerSecond",
      "peakRssBytes",
    ])
    expect(events().map((e) => e.type)).toEqual([
      "run-start",
      "plan",
      ...Array<"step">(6).fill("step"),
      "checkpoint",
      "run-end",
    ])
  })

  test("the loss falls, and the final adapter loads with the loss that was reached", async () => {
    const examples = countingExamples(24)
    const result = await run({
      config: { steps: 30, learningRate: 3e-2, modulesToSave: ["embed_tokens"] },
      keepModel: true,
    })
    const losses = steps().map((s) => s.loss)
    expect(losses.at(-1)!).toBeLessThan(losses[0]! - 0.5)
    const kept = await evaluateExamples(result.model!, examples)
    result.model![Symbol.dispose]()
    using model = randomFiles().build(engine)
    loadPeftAdapter(model, result.adapter!)
    expect((await evaluateExamples(model, examples)).loss).toBe(kept.loss)
  })

  test("packed and unpacked, and every policy, give the same losses", async () => {
    const curves: number[][] = []
    for (const [i, config] of [
      {},
      { packing: false },
      { tokenBudget: 24 },
      { policy: "recompute" as const },
      { policy: "checkpoint" as const, tokenBudget: 40 },
    ].entries()) {
      await run({ run: join(folder, `r${i}`), config })
      curves.push(steps(join(folder, `r${i}`)).map((s) => s.loss))
    }
    for (const curve of curves) for (const [i, loss] of curve.entries()) expect(loss).toBeCloseTo(curves[0]![i]!, 4)
  })

  test("continued pretraining scores every token", async () => {
    await run({ objective: pretraining })
    for (const step of steps()) expect(step.scoredTokens).toBe(step.tokens - 4)
  })

  test("epochs, the last step of an epoch being smaller", async () => {
    const result = await run({
      data: { examples: countingExamples(10) },
      config: { steps: undefined, epochs: 2, order: "sequential" },
    })
    expect(result.steps).toBe(6)
    const lengths = countingExamples(10).map((e) => e.tokens.length)
    const sum = (a: number, b: number) => lengths.slice(a, b).reduce((x, y) => x + y, 0)
    const epoch = [sum(0, 4), sum(4, 8), sum(8, 10)]
    expect(steps().map((s) => s.tokens)).toEqual([...epoch, ...epoch])
  })

  test("8-bit states, warm-up, LoRA+, modules saved whole with their own rate, dropout", async () => {
    const result = await run({
      model: randomFiles({ vocab: 160 }),
      data: { examples: countingExamples(24, 160) },
      config: {
        optimizer: "adamw8bit",
        warmupSteps: 2,
        loraPlusRatio: 4,
        modulesToSave: ["embed_tokens"],
        embeddingLearningRate: 1e-4,
        dropout: 0.1,
        steps: 8,
      },
    })
    expect(steps().map((s) => s.learningRate)).toEqual(
      [0, 0.5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6].map((f) => f * 1e-2),
    )
    const names = readSafetensors(join(result.adapter!, "adapter_model.safetensors")).tensors.map((t) => t.name)
    expect(names).toContain("base_model.model.model.embed_tokens.weight")
    // 160 × 32 elements get 8-bit states, the small LoRA matrices keep 32 bits.
    const states = readSafetensors(join(result.checkpoint!, "optimizer.safetensors")).tensors
    expect(states.filter((t) => t.dtype === "U8").map((t) => t.name)).toEqual([
      "m8.model.embed_tokens.weight",
      "v8.model.embed_tokens.weight",
    ])
  })
})

describe("checkpoints and resuming", () => {
  const long = { steps: 9, saveEvery: 2, dropout: 0.2 }

  test("resuming after an abort gives the same bytes as one run", async () => {
    await run({ run: join(folder, "whole"), config: long })
    const abort = new AbortController()
    const onEvent = (e: RunEvent) => void (e.type === "step" && e.step === 5 && abort.abort())
    const first = await run({ config: long, signal: abort.signal, onEvent })
    expect(first.status).toBe("interrupted")
    expect(first.steps).toBe(5)
    expect(first.adapter).toBeUndefined()
    expect(first.resumeCommand).toContain("--resume")
    expect(existsSync(join(home(), "adapter"))).toBe(false)
    expect(checkpoints()).toEqual(["step-000004", "step-000005"])
    const second = await run({ resume: true })
    expect(second.status).toBe("completed")
    expect(adapterOf()).toBe(adapterOf(join(folder, "whole")))
    const strip = (s: StepEvent) => [s.step, s.loss, s.gradNorm, s.learningRate, s.tokens]
    expect(steps().map(strip)).toEqual(steps(join(folder, "whole")).map(strip))
  })

  test("resuming from every checkpoint gives the same bytes, in 32 and 8 bits and with all weights", async () => {
    for (const [name, config] of Object.entries({
      lora: { dropout: 0.1 },
      eight: { optimizer: "adamw8bit" as const, modulesToSave: ["embed_tokens"] },
      full: { full: true, rank: undefined },
    })) {
      const path = join(folder, name)
      const model = randomFiles({ vocab: 160 })
      await run({ run: path, model, config: { saveEvery: 1, keepCheckpoints: 99, steps: 5, ...config } })
      const output = name === "full" ? "weights/model.safetensors" : "adapter/adapter_model.safetensors"
      const want = readFileSync(join(path, output))
      for (let step = 4; step >= 1; step--) {
        rmSync(join(path, "checkpoints", `step-00000${step + 1}`), { recursive: true })
        const copy = join(folder, `${name}-${step}`)
        cpSync(path, copy, { recursive: true })
        await run({ run: copy, model, resume: true })
        expect(readFileSync(join(copy, output)).equals(want)).toBe(true)
        rmSync(copy, { recursive: true })
      }
    }
  })

  test("a run killed before its first checkpoint starts again from the beginning", async () => {
    await run({ config: long })
    const want = adapterOf()
    rmSync(join(home(), "checkpoints"), { recursive: true })
    rmSync(join(home(), "adapter"), { recursive: true })
    await run({ resume: true })
    expect(adapterOf()).toBe(want)
    expect(steps()).toHaveLength(9)
  })

  test("a damaged checkpoint is passed over with a warning; all damaged is an error", async () => {
    await run({ config: { ...long, keepCheckpoints: 3 } })
    const want = adapterOf()
    expect(checkpoints()).toEqual(["step-000006", "step-000008", "step-000009"])
    const flip = (step: number, file: string) => {
      const path = join(home(), "checkpoints", `step-00000${step}`, file)
      const bytes = readFileSync(path)
      bytes[bytes.length - 1]! ^= 1
      writeFileSync(path, bytes)
    }
    flip(9, "optimizer.safetensors")
    writeFileSync(join(home(), "checkpoints", "step-000008", "manifest.json"), '{"format": 1')
    await run({ resume: true })
    expect(adapterOf()).toBe(want)
    const warnings = events().filter((e): e is RunEventOf<"warning"> => e.type === "warning")
    expect(warnings.map((w) => w.code)).toEqual(["SLOTH_CHECKPOINT_DAMAGED", "SLOTH_CHECKPOINT_DAMAGED"])
    for (const step of [8, 9]) flip(step, "adapter_model.safetensors")
    rmSync(join(home(), "checkpoints", "step-000006"), { recursive: true, force: true })
    expect((await errorOf(run({ resume: true }))).code).toBe("SLOTH_RESUME_NO_CHECKPOINT")
  })

  test("refuses another model, other data, other settings and another method, and says what differs", async () => {
    await run({ config: { ...long, steps: 3 } })
    const other = await errorOf(run({ resume: true, model: randomFiles({ seed: 8 }) }))
    expect(other.code).toBe("SLOTH_RUN_INPUT_CHANGED")
    expect(other.message).toContain("model")
    const data = await errorOf(run({ resume: true, data: { examples: countingExamples(25) } }))
    expect(data.code).toBe("SLOTH_RUN_INPUT_CHANGED")
    const config = await errorOf(run({ resume: true, config: { learningRate: 1, batch: 2, saveEvery: 1 } }))
    expect(config.code).toBe("SLOTH_RESUME_CONFIG")
    expect(config.fields["differences"]).toEqual([
      { key: "batch", was: 4, now: 2 },
      { key: "learningRate", was: 0.01, now: 1 },
    ])
    expect((await errorOf(run({ resume: true, objective: pretraining }))).code).toBe("SLOTH_RUN_INPUT_CHANGED")
    // With a hash of its own the data is the same; the method is not.
    const hashed = { examples: countingExamples(24), examplesHash: "x" }
    await run({ run: join(folder, "hashed"), data: hashed })
    const method = await errorOf(
      run({ run: join(folder, "hashed"), data: hashed, objective: pretraining, resume: true }),
    )
    expect(method.code).toBe("SLOTH_RESUME_CONFIG")
  })

  test("settings that change no number may change; a constant schedule can be made longer", async () => {
    await run({ config: { steps: 3, schedule: "constant" } })
    const result = await run({ resume: true, config: { steps: 6, saveEvery: 1, logEvery: 2, keepCheckpoints: 1 } })
    expect(result.steps).toBe(6)
    expect(checkpoints()).toEqual(["step-000006"])
    await run({ run: join(folder, "whole"), config: { steps: 6, schedule: "constant" } })
    expect(adapterOf()).toBe(adapterOf(join(folder, "whole")))
    expect(steps().map((s) => s.step)).toEqual([1, 2, 3, 4, 6])
  })

  test("a run folder is never overwritten, and the record tells what was run", async () => {
    await run({ record: { command: "sloth train", inputs: { model: "m", data: ["d"] }, versions: { x: "1" } } })
    expect((await errorOf(run())).code).toBe("SLOTH_RUN_EXISTS")
    const config = readRunConfig(home())
    expect(config.config["rank"]).toBe(4)
    expect(config.details!["inputs"]).toEqual({ model: "m", data: ["d"] })
    expect(config.versions["x"]).toBe("1")
    expect((config.details!["plan"] as { policy: string }).policy).toBe("keep")
  })
})

describe("starting from an adapter", () => {
  const adapter = join(goldenDir, "tied", "adapter")
  const from = (config: TrainOptions["config"]) =>
    run({ model: tinyFiles("tied"), config: { rank: undefined, steps: 3, saveEvery: 1, adapter, ...config } })

  test("its settings are the run's, and the run resumes", async () => {
    await from({ rank: 4, alpha: 8 })
    const want = adapterOf()
    expect(readRunConfig(home()).config).toMatchObject({ rank: 4, alpha: 8, adapter })
    rmSync(join(home(), "checkpoints", "step-000003"), { recursive: true })
    await run({ model: tinyFiles("tied"), resume: true })
    expect(adapterOf()).toBe(want)
  })

  test("asking for other settings is refused, with a list", async () => {
    const error = await errorOf(from({ rank: 8, alpha: 8 }))
    expect(error.code).toBe("SLOTH_TRAIN_ADAPTER_SETTINGS")
    expect(error.fields["differences"]).toEqual([{ key: "rank", asked: 8, adapter: 4 }])
  })
})

describe("evaluation", () => {
  test("every N steps and at the end; best and last checkpoints are kept", async () => {
    // Rows that contradict the training rows: the best model is an early one.
    const heldOut = countingExamples(4).map((e) => ({ ...e, tokens: e.tokens.map((t, i) => (i === 0 ? t : 66 - t)) }))
    const result = await run({
      data: { examples: countingExamples(24), heldOut },
      config: { steps: 8, evalEvery: 2, saveEvery: 1, keepCheckpoints: 1, learningRate: 5e-2 },
    })
    const evals = events().filter((e): e is RunEventOf<"eval"> => e.type === "eval")
    expect(evals.map((e) => e.step)).toEqual([2, 4, 6, 8])
    for (const e of evals) expect(e.perplexity).toBeCloseTo(Math.exp(e.loss), 6)
    const best = evals.reduce((a, b) => (b.loss < a.loss ? b : a))
    expect(result.best).toEqual({ step: best.step, loss: best.loss })
    expect(best.step).toBeLessThan(8)
    expect(checkpoints()).toEqual([`step-00000${best.step}`, "step-000008"])
    const saved = events().filter((e): e is RunEventOf<"checkpoint"> => e.type === "checkpoint")
    expect(saved.filter((e) => e.best).at(-1)!.step).toBe(best.step)
    expect((await verifyCheckpoint(result.checkpoint!)).best).toEqual(result.best)
  })

  test("evalEvery without rows is refused before the start", async () => {
    expect((await errorOf(run({ config: { evalEvery: 2 } }))).code).toBe("SLOTH_TRAIN_NO_EVAL_DATA")
    expect(existsSync(home())).toBe(false)
  })
})

describe("watching and steering", () => {
  test("callbacks see events in order and can evaluate, save and stop", async () => {
    const seen: string[] = []
    const callback: RunCallback = {
      name: "watch",
      on: {
        step: async (event, control) => {
          await Promise.resolve()
          seen.push(`step ${event.step}`)
          if (event.step === 2) {
            control.checkpoint()
            control.evaluate()
          }
          if (event.step === 4) control.stop("enough")
        },
        eval: (event) => void seen.push(`eval ${event.step}`),
        checkpoint: (event) => void seen.push(`checkpoint ${event.step}`),
        "run-end": (event) => void seen.push(`${event.reason}: ${event.message}`),
      },
    }
    const result = await run({
      data: { examples: countingExamples(24), heldOut: countingExamples(3) },
      callbacks: [callback],
    })
    expect(seen).toEqual([
      "step 1",
      "step 2",
      "eval 2",
      "checkpoint 2",
      "step 3",
      "step 4",
      "eval 4",
      "checkpoint 4",
      "stopped: enough",
    ])
    expect(result.status).toBe("stopped")
    expect(existsSync(join(result.adapter!, "adapter_config.json"))).toBe(true)
  })

  test("a stop before the first step trains nothing", async () => {
    const callback: RunCallback = { name: "no", on: { plan: (_, control) => control.stop("not today") } }
    const result = await run({ callbacks: [callback] })
    expect([result.status, result.steps, result.checkpoint]).toEqual(["stopped", 0, undefined])
    expect(steps()).toEqual([])
  })

  test("an abort during an evaluation leaves it out, saves and ends", async () => {
    const abort = new AbortController()
    const files = randomFiles()
    let evaluating = false
    const result = await run({
      model: files,
      data: { examples: countingExamples(24), heldOut: countingExamples(200) },
      config: { evalEvery: 2, tokenBudget: 24 },
      signal: abort.signal,
      onEvent: (e) => {
        if (e.type === "step" && e.step === 2) {
          evaluating = true
          setTimeout(() => abort.abort(), 1)
        }
      },
    })
    expect(evaluating).toBe(true)
    expect(result.status).toBe("interrupted")
    expect(result.steps).toBe(2)
    expect(events().map((e) => e.type)).not.toContain("eval")
    expect(checkpoints()).toEqual(["step-000002"])
  })

  test("a callback that throws ends the run under its name, and what was saved stays", async () => {
    const callback: RunCallback = {
      name: "grumpy",
      on: {
        step: (event) => {
          if (event.step === 3) throw new Error("no")
        },
      },
    }
    const error = await errorOf(run({ callbacks: [callback], config: { saveEvery: 2 } }))
    expect(error.code).toBe("SLOTH_CALLBACK_FAILED")
    expect(error.message).toContain("grumpy")
    expect(checkpoints()).toEqual(["step-000002"])
    expect(
      events()
        .slice(-2)
        .map((e) => e.type),
    ).toEqual(["error", "run-end"])
  })

  test("trackers get every event and are closed; one that throws is dropped", async () => {
    const got: string[] = []
    const good: Tracker = {
      name: "good",
      open: (info) => {
        got.push(`open ${info.name}`)
        return { event: (e) => void got.push(e.type), close: () => void got.push("close") }
      },
    }
    const bad: Tracker = {
      name: "bad",
      open: () => ({
        event: () => {
          throw new Error("broken")
        },
      }),
    }
    const result = await run({ trackers: [bad, good], config: { steps: 2 } })
    expect(result.status).toBe("completed")
    expect(got).toEqual(["open run", "run-start", "plan", "step", "step", "checkpoint", "run-end", "close"])
  })

  test("logEvery thins out step events but keeps the first and the last", async () => {
    await run({ config: { steps: 7, logEvery: 3 } })
    expect(steps().map((s) => s.step)).toEqual([1, 3, 6, 7])
  })

  test("timers run while a step runs in several micro-batches", async () => {
    let ticks = 0
    const timer = setInterval(() => ticks++, 1)
    await run({ config: { packing: false, steps: 10 } })
    clearInterval(timer)
    expect(ticks).toBeGreaterThan(10)
  })
})

describe("numbers that are not finite", () => {
  test("a learning rate that explodes stops the run, names the parameter and keeps the last good checkpoint", async () => {
    const error = await errorOf(
      run({
        config: {
          learningRate: 1e38,
          schedule: "constant",
          steps: 20,
          saveEvery: 1,
          keepCheckpoints: 30,
          maxGradNorm: 0,
        },
      }),
    )
    expect(error.code).toBe("SLOTH_TRAIN_NAN")
    expect(String(error.fields["tensor"])).toMatch(/^(parameter|gradient of|loss)/)
    for (const name of checkpoints()) await verifyCheckpoint(join(home(), "checkpoints", name))
    expect(events().at(-2)).toMatchObject({ type: "error", code: "SLOTH_TRAIN_NAN" })
    expect(events().at(-1)).toMatchObject({ type: "run-end", reason: "failed" })
    expect(existsSync(join(home(), "adapter"))).toBe(false)
  })

  test("a bad gradient behind a good loss is named by its parameter", async () => {
    const objective: Objective<Example> = {
      ...sft,
      loss: () => ({
        kind: "logprobs",
        compute: ({ logprobs }) => ({ loss: 1, dlogp: new Float32Array(logprobs.length).fill(Number.NaN) }),
      }),
    }
    const error = await errorOf(run({ objective }))
    expect(error.code).toBe("SLOTH_TRAIN_NAN")
    expect(error.fields["tensor"]).toMatch(/^gradient of base_model\.model\.model\.layers\.0\..*lora_[AB]\.weight$/)
  })

  // The tiny model's files with one number of one frozen matrix replaced.
  const planted = async (dtype: "F32" | "Q4_1", weight: string): Promise<TrainModel> => {
    const clean = randomFiles()
    using model = clean.build(engine)
    const path = join(folder, `${dtype}.gguf`)
    const inputs: GgufInput[] = []
    for (const ref of model.weights.values()) {
      const values = (await ref.tensor.readFloats()).slice()
      const stored = ref.shape.length === 1 ? "F32" : dtype
      const bytes = stored === "F32" ? new Uint8Array(values.buffer) : new Uint8Array((values.length / 32) * 20)
      if (stored === "Q4_1") weightFormat("q4_1").quantizeRow!(values, bytes, values.length)
      inputs.push({ name: ref.name, dtype: stored, shape: ref.shape, data: bytes })
    }
    await writeGguf(path, [["general.architecture", { type: "string", value: "llama" }]], inputs)
    const table = new Map(readGguf(path).tensors.map((entry) => [entry.name, entry]))
    const { offset } = table.get(weight)!
    const file = readFileSync(path)
    if (dtype === "F32") file.writeFloatLE(Number.NaN, offset + 4 * 29)
    else file.writeUInt16LE(0x7e00, offset + 20 * 17) // the f16 scale of the eighteenth block
    writeFileSync(path, file)
    const weights = new Map([...table].map(([name, entry]) => [name, { entry, interleavedHeadDim: undefined }]))
    return {
      ...clean,
      build: (e: Engine) => new CausalLM(llamaFamily, clean.config, new ModuleBuilder(e, fileWeights(e, weights))),
    }
  }
  for (const [dtype, weight] of [
    ["F32", "model.layers.1.mlp.up_proj.weight"],
    ["Q4_1", "model.layers.0.mlp.gate_proj.weight"],
    ["F32", "model.norm.weight"],
  ] as const)
    test(`a NaN in a frozen weight of the file is found and named (${dtype}, ${weight})`, async () => {
      const error = await errorOf(run({ model: await planted(dtype, weight) }))
      expect(error.code).toBe("SLOTH_TRAIN_NAN")
      expect(error.fields["tensor"]).toBe(`weight ${weight}`)
      expect(error.message).toContain("No checkpoint was saved before.")
    })

  test("finite weights whose activations overflow are not accused", async () => {
    const files = randomFiles()
    const loud = {
      ...files,
      build: (e: Engine) => {
        const model = files.build(e)
        for (const layer of [0, 1])
          model.weights
            .get(`model.layers.${layer}.input_layernorm.weight`)!
            .tensor.write(new Float32Array(32).fill(3e38))
        return model
      },
    }
    const error = await errorOf(run({ model: loud }))
    expect(error.fields["tensor"]).toBe("loss")
    expect((error.fields["rows"] as number[]).length).toBe(4)
  })

  test("a NaN in an adapter that is not trained is found and named", async () => {
    using model = randomFiles().build(engine)
    attachLora(model, { ...DEFAULT_LORA, rank: 2 }, 1)
    expect(await firstNonFiniteFrozen(model)).toBeUndefined()
    const bad = model.trainables().find((t) => t.name.includes("layers.1.self_attn.k_proj") && t.outer)!
    bad.tensor.write(new Float32Array(bad.tensor.size).fill(Number.NEGATIVE_INFINITY))
    expect(await firstNonFiniteFrozen(model)).toBeUndefined()
    const path = join(folder, "bad-adapter")
    await savePeftAdapter(model, path, { ...DEFAULT_LORA, rank: 2 }, "random")
    using frozen = randomFiles().build(engine)
    loadPeftAdapter(frozen, path)
    expect(await firstNonFiniteFrozen(frozen)).toEqual({ kind: "adapter", name: bad.name })
  })
})
