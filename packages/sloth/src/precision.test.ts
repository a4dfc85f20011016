import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { silentLogger, type Precision } from "@sloth/core"
import { smallRows, writeSmallModel } from "../testing/small-model.ts"
import { createSloth, SlothError, standardPlugins } from "./index.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-precision-"))
const model = join(folder, "model")
// Wide enough that products have something to round.
beforeAll(async () => void (await writeSmallModel(model, { hidden: 64 })))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const create = (precision?: Precision) =>
  createSloth({
    plugins: standardPlugins(),
    logger: silentLogger(),
    cwd: folder,
    cache: join(folder, "cache"),
    ...(precision === undefined ? {} : { precision }),
  })
const errorOf = (promise: Promise<unknown>): Promise<SlothError> =>
  promise.then(
    () => {
      throw new Error("no error")
    },
    (error: unknown) => error as SlothError,
  )

const offered = await (async () => {
  await using sloth = await create()
  using opened = await sloth.open("nano")
  return opened.model.engine.backend.device.precisions
})()
const job = { model, data: smallRows(8), steps: 2, batch: 8, rank: 4, learningRate: 1e-2 } as const

test("training in int8 is refused before anything begins, however it was asked for", async () => {
  await using plain = await create()
  const named = await errorOf(plain.train({ ...job, precision: "int8", run: "runs/int8" }))
  expect([named.code, named.message]).toEqual([
    "SLOTH_CONFIG_INVALID",
    expect.stringContaining("int8 has no gradients"),
  ])
  await using int8 = await create("int8")
  expect((await errorOf(int8.train({ ...job, run: "runs/int8" }))).code).toBe("SLOTH_CONFIG_INVALID")
})

describe.skipIf(!offered.includes("bf16"))("bf16", () => {
  test("is used where it was asked for, is in the plan, stays with the run", async () => {
    await using sloth = await create()
    const exact = await sloth.train({ ...job, run: "runs/f32" })
    const rounded = await sloth.train({ ...job, precision: "bf16", run: "runs/bf16", schedule: "constant" })
    expect([exact.plan.precision, rounded.plan.precision]).toEqual(["f32", "bf16"])
    const { formatPlan } = await import("@sloth/train")
    expect(formatPlan(rounded.plan)).toContain("bf16: operands")
    expect(formatPlan(exact.plan)).not.toContain("bf16")
    const other = await errorOf(sloth.train({ run: "runs/bf16", data: job.data, resume: true, precision: "f32" }))
    expect([other.code, other.message]).toEqual(["SLOTH_RESUME_CONFIG", expect.stringContaining("precision")])
    const on = await sloth.train({ run: "runs/bf16", data: job.data, resume: true, steps: 4 })
    expect([on.status, on.steps]).toEqual(["completed", 4])
    // The precision of an instance is that of its runs.
    await using instance = await create("bf16")
    expect((await instance.plan({ ...job })).plan.precision).toBe("bf16")
  })

  test("an engine that computes otherwise than the configuration says is refused", async () => {
    const [{ createCpuBackend }, { Engine }, { planRun }] = await Promise.all([
      import("@sloth/kernels-cpu"),
      import("@sloth/tensor"),
      import("@sloth/train"),
    ])
    await using sloth = await create()
    using opened = await sloth.open(model)
    using engine = new Engine(await createCpuBackend({ precision: "bf16" }))
    const error = await errorOf(planRun({ engine, model: opened.files, data: { examples: [] } }))
    expect(error.code).toBe("SLOTH_TRAIN_PRECISION")
  })
})

describe.skipIf(!offered.includes("int8"))("int8", () => {
  test("generates, and says which matrices take part", async () => {
    const said: string[] = []
    const logger = {
      ...silentLogger(),
      warn: (code: string, message: string) => void said.push(`${code} ${message}`),
    }
    await using sloth = await createSloth({ plugins: standardPlugins(), logger, cwd: folder, precision: "int8" })
    const answer = await sloth.generate({ model, prompt: "What is 1 + 1?", maxTokens: 3 })
    expect(answer.tokens.length).toBeGreaterThan(0)
    expect(said.join()).toMatch(/SLOTH_PRECISION_PARTIAL precision int8: 0 of 15 matrices/)
  })
})
