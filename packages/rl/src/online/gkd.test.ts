import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { isSlothError, readEvents, runPaths, type StepEvent } from "@sloth/core"
import type { Example } from "@sloth/data"
import {
  buildMicroBatch,
  divergencePass,
  evaluateUnits,
  makeTrainable,
  readSamples,
  resolveTrainConfig,
  unitFromExample,
  unitFromTokens,
} from "@sloth/train"
import { expectSlopes } from "../../../train/src/internal/testing/slopes.ts"
import { goldenDir } from "../../../train/src/internal/testing/tiny.ts"
import { killGrpo } from "../internal/testing/kill-grpo.ts"
import { codeOf, stepsOf, tinyRuns, type Given } from "../internal/testing/online-runs.ts"
import { evenTokens, tinyExamples, tinyModel, tinyTeacher } from "../internal/testing/tiny-grpo.ts"
import { gkd, promptOf } from "./gkd.ts"

const golden = JSON.parse(
  readFileSync(join(import.meta.dirname, "..", "..", "..", "..", "tests", "golden", "online.json"), "utf8"),
) as {
  readonly gkd: readonly { readonly beta: number; readonly values: number[]; readonly gradient: number[][] }[]
  readonly gkdModel: readonly {
    readonly beta: number
    readonly rows: number[][]
    readonly prompt: number
    readonly loss: number
    readonly norms: Readonly<Record<string, number>>
  }[]
}

const { engine, folder, ...runs } = tinyRuns<Example>({
  teacher: tinyTeacher(),
  data: { examples: tinyExamples, heldOut: tinyExamples.slice(0, 3) },
  objective: gkd,
  rewards: [],
  config: { steps: 30, batch: 5, rank: 8, schedule: "constant", evalEvery: 15 },
})

describe("the divergence", () => {
  for (const { beta, values, gradient } of golden.gkd)
    test(`beta ${beta}: values and gradients of TRL's GKDTrainer`, async () => {
      const logits = (phase: number) =>
        Float32Array.from({ length: 42 }, (_, i) => 2 * Math.sin(0.7 * Math.floor(i / 7) + 0.9 * (i % 7) + phase))
      using out = engine.keep(engine.empty([6]))
      using dz = engine.keep(engine.empty([6, 7]))
      engine.scope(() => {
        const [zs, zt] = [engine.from(logits(0), [6, 7]), engine.from(logits(0.5), [6, 7])]
        const coef = engine.from(Float32Array.from([1, 2, 3, 4, 5, 6]))
        engine.backend.kernels.divergence(out.handle, dz.handle, zs.handle, zt.handle, coef.handle, 6, 7, beta, 0, 1)
      })
      // The inputs are rounded to f32: 2e-7 of logits near 2, and gradients carry coefficients up to 6.
      for (const [i, x] of (await out.readFloats()).entries()) expect(Math.abs(x - values[i]!)).toBeLessThan(1e-6)
      for (const [i, x] of (await dz.readFloats()).entries())
        expect(Math.abs(x - gradient.flat()[i]!)).toBeLessThan(5e-6)
    })

  // The toy of the specification: student and teacher logits 2 sin(.7 b + 1.3 t + .9 v + phase), three scored positions.
  for (const [temperature, expected] of [
    [1, [0.18990731, 0.01690486, 0.04644434, 0.19634521]],
    [2, [0.05458859, 0.00491092, 0.0137137, 0.05612442]],
  ] as const)
    test(`the values of TRL at temperature ${temperature}`, async () => {
      const places = [
        [0, 1],
        [0, 2],
        [1, 2],
      ] as const
      const logits = (phase: number) =>
        Float32Array.from(
          places.flatMap(([b, t]) =>
            Array.from({ length: 5 }, (_, v) => (2 * Math.sin(0.7 * b + 1.3 * t + 0.9 * v + phase)) / temperature),
          ),
        )
      for (const [k, beta] of [0, 0.1, 0.5, 1].entries()) {
        using out = engine.keep(engine.empty([3]))
        engine.scope(() => {
          const [zs, zt] = [engine.from(logits(0), [3, 5]), engine.from(logits(0.5), [3, 5])]
          engine.backend.kernels.divergence(out.handle, 0, zs.handle, zt.handle, 0, 3, 5, beta, 0, 1)
        })
        const mean = (await out.readFloats()).reduce((a, b) => a + b, 0) / 3
        expect(Math.abs(mean / expected[k]! - 1)).toBeLessThan(1e-5)
      }
    })
})

test("one step of TRL's GKDTrainer on its own rows: loss, and the gradient of every LoRA tensor", async () => {
  using model = tinyModel().build(engine)
  using teacher = tinyTeacher().build(engine)
  makeTrainable(model, resolveTrainConfig({ adapter: join(goldenDir, "untied", "adapter") }))
  for (const { beta, rows, prompt, loss, norms } of golden.gkdModel) {
    const batch = buildMicroBatch(rows.map((row, i) => unitFromTokens(Int32Array.from(row), (t) => t >= prompt, i)!))
    using sums = engine.keep(engine.zeros([1], "f64"))
    const coef = new Float32Array(21).fill(1 / 21)
    divergencePass(model, batch, { teacher, beta }, coef, { policy: "keep" }, sums, 0)
    expect(Math.abs(((await sums.read()) as Float64Array)[0]! / loss - 1)).toBeLessThan(1e-5)
    expect(Object.keys(norms)).toHaveLength(28)
    for (const { name, tensor } of model.trainables()) {
      const norm = Math.sqrt((await tensor.grad!.readFloats()).reduce((n, g) => n + g * g, 0))
      // Our float32 against float64, as for the gradients of GRPO.
      expect(Math.abs(norm / norms[name]! - 1)).toBeLessThan(1e-4)
    }
    model.clearGradients()
  }
})

const units = tinyExamples.map((example) => unitFromExample(example)!)

describe("steps", () => {
  test("the loss falls along its gradient as finite differences say, for every LoRA tensor", async () => {
    using model = tinyModel().build(engine)
    using teacher = tinyTeacher().build(engine)
    makeTrainable(model, resolveTrainConfig({ rank: 4 }))
    for (const [i, { tensor }] of model.trainables().entries())
      engine.backend.kernels.randomNormal(tensor.handle, 0, 0.1, tensor.size, 3, i)
    const batch = buildMicroBatch(units.slice(0, 4))
    const coef = new Float32Array(batch.targets.length).fill(1 / batch.targets.length)
    for (const beta of [0, 0.5, 1]) {
      const pass = { teacher, beta, temperature: 1.5 }
      const now = async () => {
        const result = await evaluateUnits(model, units.slice(0, 4), { loss: { kind: "divergence", ...pass }, teacher })
        return result.loss
      }
      using sums = engine.keep(engine.zeros([1], "f64"))
      divergencePass(model, batch, pass, coef, { policy: "keep" }, sums, 0)
      expect(Math.abs(((await sums.read()) as Float64Array)[0]! / (await now()) - 1)).toBeLessThan(1e-6)
      await expectSlopes(model.trainables(), now)
      model.clearGradients()
    }
  }, 60_000)

  test("a model has nothing to learn from itself, and a step without its teacher says so", async () => {
    using model = tinyModel().build(engine)
    using same = tinyModel().build(engine)
    for (const beta of [0, 0.3, 1]) {
      const { loss } = await evaluateUnits(model, units, { loss: { kind: "divergence", beta }, teacher: same })
      expect(Math.abs(loss)).toBeLessThan(1e-6)
    }
    const error = await evaluateUnits(model, units, { loss: { kind: "divergence", beta: 0 } }).catch((e: unknown) => e)
    expect(isSlothError(error) && error.code).toBe("SLOTH_TRAIN_TEACHER")
  })
})

const run = (settings: object, options: Given<Example> = {}) => runs.run({ settings, ...options })

describe("a run", () => {
  test("comes nearer to the teacher, on its own answers and on those of the rows", async () => {
    for (const lambda of [0, 0.5, 1]) {
      const { run: path } = await run({ lambda })
      const events = stepsOf(path)
      const evaluations = readEvents(runPaths(path).events).filter((e) => e.type === "eval")
      expect(evaluations.map(({ loss }) => loss).at(-1)!).toBeLessThan(evaluations[0]!.loss)
      const mean = (some: StepEvent[]) => some.reduce((n, { loss }) => n + loss, 0) / some.length
      expect(mean(events.slice(-5))).toBeLessThan(0.9 * mean(events.slice(0, 5)))
      const share = events.reduce((n, { metrics }) => n + (metrics?.["rows/sampled"] ?? 0), 0) / events.length
      if (lambda === 0.5) expect(Math.abs(share - 0.5)).toBeLessThan(0.17)
      else expect(share).toBe(lambda)
      // 150 rows: four standard deviations of a share of one half are 0.17.
      expect(readSamples(runPaths(path).samples)).toHaveLength(Math.round(share * 5 * 30))
    }
  }, 120_000)

  test("with seqKd the teacher answers the rows that the model does not, and the model comes nearer to it there", async () => {
    const { run: path } = await run({ lambda: 0.5, seqKd: true })
    const events = stepsOf(path)
    for (const { metrics } of events) expect(metrics!["rows/sampled"]! + metrics!["rows/taught"]!).toBe(1)
    const mean = (some: StepEvent[]) => some.reduce((n, { loss }) => n + loss, 0) / some.length
    expect(mean(events.slice(-5))).toBeLessThan(0.9 * mean(events.slice(0, 5)))
    const samples = readSamples(runPaths(path).samples)
    expect(samples).toHaveLength(150)
    const taught = samples.filter(({ by }) => by === "teacher")
    expect(taught.length).toBe(Math.round(events.reduce((n, { metrics }) => n + 5 * metrics!["rows/taught"]!, 0)))
    // What the teacher says is what its own weights say: another run with other weights of the model hears the same for the same row and step.
    const other = await run({ lambda: 0.5, seqKd: true }, { config: { learningRate: 1e-6 } })
    const texts = (some: typeof samples) => some.flatMap(({ by, completion }) => (by === "teacher" ? [completion] : []))
    expect(texts(readSamples(runPaths(other.run).samples))).toEqual(texts(samples))
  }, 60_000)

  test("the plan counts the teacher; settings that make no sense are refused before anything starts", async () => {
    const refused = (options: Given<Example>) => codeOf(runs.plan({ data: { examples: tinyExamples }, ...options }))
    const { mappedBytes, weightBytes } = (await runs.plan()).memory
    const [own, teacher] = [tinyModel(), tinyTeacher()].map((files) => {
      using model = files.build(engine)
      return 4 * model.parameterCount
    })
    expect(mappedBytes + weightBytes).toBeGreaterThanOrEqual(own! + teacher!)
    expect(await refused({ teacher: undefined })).toBe("SLOTH_TRAIN_TEACHER")
    expect(await refused({ teacher: tinyTeacher(), rewards: [evenTokens] })).toBe("SLOTH_TRAIN_REWARDS")
    expect(await refused({ teacher: tinyTeacher(), settings: { seqKd: true, lambda: 1 } })).toBe("SLOTH_RL_SETTINGS")
    const { tokenizer } = tinyTeacher()
    const foreign = {
      ...tokenizer,
      fingerprint: "other",
      idToToken: (id: number) => (id === 7 ? "?" : tokenizer.idToToken(id)),
    }
    expect(await refused({ teacher: { ...tinyTeacher(), tokenizer: foreign } })).toBe("SLOTH_TRAIN_TEACHER_VOCABULARY")
  })

  test("what a row asks is what stands before its last answer", () => {
    const example = (mask: number[]): Example => ({
      tokens: Int32Array.from(mask, (_, t) => t),
      mask: Uint8Array.from(mask),
      row: 0,
    })
    expect([...promptOf(example([0, 0, 1, 1, 0, 0, 1, 1]))]).toEqual([0, 1, 2, 3, 4, 5])
    expect([...promptOf(example([0, 1, 1]))]).toEqual([0])
  })

  test("kill -9: resumed to the end, everything has the same bits", async () => {
    const report = await killGrpo(folder, { kills: 3, variant: "gkd" })
    expect([report.kills, report.differences]).toEqual([3, []])
  }, 100_000)
})
