import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { silentLogger } from "@sloth/core"
import type { Plugin } from "@sloth/core"
import { smallRows, writeSmallModel } from "../testing/small-model.ts"
import { createSloth, defineConfig, definePlugin, nextRunFolder, SlothError, standardPlugins } from "./index.ts"
import { cpu, exporters, llama, reference, sft, type ProjectConfig } from "./index.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-facade-"))
const model = join(folder, "model")
const rows = smallRows(8)
beforeAll(async () => void (await writeSmallModel(model)))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const create = () =>
  createSloth({ plugins: standardPlugins(), logger: silentLogger(), cwd: folder, cache: join(folder, "cache") })

const codeOf = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => "none",
    (error: unknown) => (error instanceof SlothError ? error.code : String(error)),
  )

describe("createSloth", () => {
  test("opens, trains, generates, scores, evaluates, exports and inspects", async () => {
    await using sloth = await create()
    const result = await sloth.train({
      model,
      data: rows,
      steps: 4,
      batch: 4,
      rank: 4,
      learningRate: 1e-2,
      run: "runs/first",
      keepModel: true,
    })
    expect(result.status).toBe("completed")
    expect(result.run).toBe(join(folder, "runs/first"))
    using kept = result.opened!
    const prompt = "What is 1 + 1?"
    const expected = await sloth.generate({ model: kept, prompt, maxTokens: 6 })
    const again = await sloth.generate({ model: "runs/first", prompt, maxTokens: 6 })
    expect(again.tokens).toEqual(expected.tokens)
    const base = await sloth.generate({ model: "runs/first", prompt, maxTokens: 6, adapters: false })
    expect(base.logprobs).not.toEqual(again.logprobs)
    const [scored] = await sloth.score({ model: kept, rows: [rows[0]!] })
    expect(scored!.logprobs.some((lp) => lp !== null)).toBe(true)
    const [before, after] = [await sloth.evaluate({ model, rows }), await sloth.evaluate({ model: "runs/first", rows })]
    expect(after.loss).toBeLessThan(before.loss)
    const report = await sloth.export({ model: "runs/first", format: "peft" })
    expect(report.verification.largest).toBeLessThan(1e-4)
    expect(await sloth.inspect("runs/first")).toMatchObject({ kind: "run", step: 4, exports: [{ format: "peft" }] })
  })

  test("a conversation keeps its turns, and forgets them", async () => {
    await using sloth = await create()
    using chat = await sloth.chat({ model, maxTokens: 3 })
    await chat.ask("hello")
    let streamed = ""
    for await (const event of chat.send("and?")) streamed += event.text
    expect(chat.messages.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"])
    expect(chat.messages.at(-1)!.content).toBe(streamed)
    chat.reset()
    expect(chat.messages).toEqual([])
    await chat.ask("hello")
    expect(chat.messages).toHaveLength(2)
  })

  test("a run is a model to go on from: its adapter, or its weights", async () => {
    await using sloth = await create()
    const common = { data: rows, steps: 2, batch: 4, learningRate: 1e-2 } as const
    await sloth.train({ ...common, model, rank: 4, alpha: 4, run: "runs/lora" })
    const next = await sloth.train({ ...common, model: "runs/lora", run: "runs/lora-next" })
    expect(next.plan.adapter).toMatchObject({ rank: 4, alpha: 4 })
    await sloth.train({ ...common, model, full: true, run: "runs/full" })
    const onFull = await sloth.train({ ...common, model: "runs/full", rank: 4, run: "runs/on-full", keepModel: true })
    using kept = onFull.opened!
    const options = { prompt: "What is 1 + 1?", maxTokens: 5 }
    const expected = await sloth.generate({ model: kept, ...options })
    expect((await sloth.generate({ model: "runs/on-full", ...options })).tokens).toEqual(expected.tokens)
    expect(await codeOf(sloth.train({ ...common, model: "runs/lora", full: true }))).toBe("SLOTH_TRAIN_ADAPTER")
  })

  test("an abort stops a run in good order, and resuming needs only the folder", async () => {
    await using sloth = await create()
    const stop = new AbortController()
    const cut = await sloth.train({
      model,
      data: rows,
      steps: 50,
      batch: 2,
      rank: 4,
      run: "runs/cut",
      signal: stop.signal,
      onEvent: (event) => event.type === "step" && event.step === 3 && stop.abort(),
    })
    expect(cut.status).toBe("interrupted")
    const rest = await sloth.train({ resume: true, run: "runs/cut", model, data: rows })
    expect([rest.status, rest.steps]).toEqual(["completed", 50])
    // Rows given in code are not in the record, so they must be given again.
    expect(await codeOf(sloth.train({ resume: true, run: "runs/cut" }))).toBe("SLOTH_TRAIN_NO_DATA")
  })

  test("wrong requests are coded errors", async () => {
    await using sloth = await create()
    expect(await codeOf(sloth.open("./nothing"))).toBe("SLOTH_MODEL_NOT_FOUND")
    expect(await codeOf(sloth.open("nowhere"))).toBe("SLOTH_MODEL_NOT_FOUND")
    expect(await codeOf(sloth.train({ data: rows }))).toBe("SLOTH_TRAIN_NO_MODEL")
    expect(await codeOf(sloth.train({ model }))).toBe("SLOTH_TRAIN_NO_DATA")
    expect(await codeOf(sloth.train({ model, data: rows, lerningRate: 1 } as never))).toBe("SLOTH_CONFIG_INVALID")
    expect(await codeOf(sloth.export({ model, format: "nothing" as never }))).toBe("SLOTH_PLUGIN_UNKNOWN_ID")
    mkdirSync(join(folder, "bare"), { recursive: true })
    expect(await codeOf(sloth.inspect("bare"))).toBe("SLOTH_INSPECT_UNKNOWN")
    const adapter = join(folder, "only-adapter")
    mkdirSync(adapter, { recursive: true })
    writeFileSync(join(adapter, "adapter_config.json"), "{}")
    expect(await codeOf(sloth.open(adapter))).toBe("SLOTH_MODEL_KIND")
  })

  test("closing frees every model and buffer", async () => {
    let live = -1
    const watched = definePlugin({
      name: "@sloth/tensor",
      version: "0.1.0",
      apiVersion: 1,
      sloth: "^0.1.0",
      provides: {
        backends: [
          {
            name: "watched",
            probe: () => ({ available: true }),
            create: async () => {
              const backend = await reference().provides.backends[0].create({})
              const dispose = backend[Symbol.dispose].bind(backend)
              return Object.assign(Object.create(backend) as typeof backend, {
                [Symbol.dispose]: () => {
                  live = backend.memory.stats().liveBuffers
                  dispose()
                },
              })
            },
          },
        ],
      },
    })
    const sloth = await createSloth({ plugins: [watched, llama(), sft()], cwd: folder, logger: silentLogger() })
    await sloth.open(model)
    await sloth.generate({ model, prompt: "x", maxTokens: 2 })
    await sloth.train({ model, data: rows, steps: 1, rank: 4, run: "runs/watched", measure: false })
    await sloth.close()
    await sloth.close()
    expect(live).toBe(0)
  })
})

describe("the backend", () => {
  const broken = definePlugin({
    name: "broken",
    version: "1.0.0",
    apiVersion: 1,
    sloth: "^0.1.0",
    provides: {
      backends: [
        {
          name: "gpu",
          probe: () => ({ available: false, reason: "There is no such device." }) as const,
          create: () => Promise.reject(new Error("never")),
        },
      ],
    },
  })

  test("falls back to plain TypeScript with a warning that says why and what it costs", async () => {
    const said: string[] = []
    const logger = { ...silentLogger(), warn: (code: string, message: string) => void said.push(`${code} ${message}`) }
    await using sloth = await createSloth({ plugins: [broken, reference(), llama(), sft()], cwd: folder, logger })
    expect(await sloth.backend()).toMatchObject({ name: "reference", fallback: true })
    await sloth.generate({ model, prompt: "x", maxTokens: 1 })
    expect(said.join("\n")).toContain("SLOTH_BACKEND_FALLBACK")
    expect(said.join("\n")).toContain("There is no such device.")
  })

  test("a named one that cannot run is an error, and so is none at all", async () => {
    await using named = await createSloth({ plugins: [broken, reference()], backend: "gpu", logger: silentLogger() })
    expect(await codeOf(named.backend())).toBe("SLOTH_BACKEND_UNAVAILABLE")
    await using none = await createSloth({ plugins: [broken], logger: silentLogger() })
    expect(await codeOf(none.backend())).toBe("SLOTH_BACKEND_NONE")
  })
})

describe("the Effect forms", () => {
  test("give the same result, with SlothErrors in the error channel", async () => {
    await using sloth = await create()
    const options = { model, prompt: "What is 1 + 1?", maxTokens: 4 }
    const viaEffect = await Effect.runPromise(sloth.effect.generate(options))
    expect(viaEffect.tokens).toEqual((await sloth.generate(options)).tokens)
    const exit = await Effect.runPromiseExit(
      sloth.effect
        .open("./nothing")
        .pipe(Effect.catchTag("SLOTH_MODEL_NOT_FOUND", (error) => Effect.succeed(error.code))),
    )
    expect(Exit.isSuccess(exit) && exit.value).toBe("SLOTH_MODEL_NOT_FOUND")
  })

  test("interruption stops a run after its step, and everything is saved", async () => {
    await using sloth = await create()
    let reached: () => void = () => undefined
    const third = new Promise<void>((resolve) => (reached = resolve))
    const fiber = Effect.runFork(
      sloth.effect.train({
        model,
        data: rows,
        steps: 100_000,
        batch: 2,
        rank: 4,
        run: "runs/fiber",
        onEvent: (event) => event.type === "step" && event.step === 3 && reached(),
      }),
    )
    await third
    await Effect.runPromise(Fiber.interrupt(fiber))
    expect(await sloth.inspect("runs/fiber")).toMatchObject({ status: "interrupted" })
  })
})

test("run folders are numbered", () => {
  const runs = join(folder, "numbered")
  expect(nextRunFolder(runs, "a b")).toBe(join(runs, "a-b-001"))
  mkdirSync(join(runs, "a-b-007"), { recursive: true })
  expect(nextRunFolder(runs, "a b")).toBe(join(runs, "a-b-008"))
})

test("the train section of a configuration is typed", () => {
  const config = defineConfig({ plugins: ["./plugin.ts"], train: { model: "nano", data: "rows.jsonl", rank: 8 } })
  expect(config.train?.rank).toBe(8)
  // @ts-expect-error a rank is a number
  defineConfig({ train: { rank: "8" } })
  const plain = { train: { steps: 3 } } satisfies ProjectConfig
  // @ts-expect-error there is no such key
  const wrong: ProjectConfig = { train: { stepz: 3 } }
  expect([plain, wrong]).toHaveLength(2)
})

test("a method's settings are typed by the method, opened by it, and checked before anything is opened", async () => {
  await using sloth = await createSloth({ plugins: standardPlugins(), backend: "reference" })
  const rows = [
    { prompt: "a", chosen: " b", rejected: " c" },
    { prompt: "d", chosen: " e", rejected: " f" },
  ]
  const common = { model: "nano", data: rows, steps: 1, batch: 2, measure: false } as const
  const { plan, data } = await sloth.plan({ ...common, method: "dpo", settings: { beta: 0.2, loss: "ipo" } })
  expect(plan).toMatchObject({ method: "dpo", rows: 2 })
  expect(data.statement).toBe("Recognised 2 rows of preference pairs (texts).")
  expect(data.preview.map(({ text, scored }) => (scored ? `[${text}]` : text)).join("")).toMatch(
    /^.*a\nchosen: \[ b.*\]\nrejected: \[ c.*\]$/,
  )
  // @ts-expect-error KTO has no loss of that name
  const wrong = sloth.plan({ ...common, method: "kto", settings: { loss: "sigmoid" } })
  expect(await codeOf(wrong)).toBe("SLOTH_CONFIG_INVALID")
  expect(await codeOf(sloth.plan({ ...common, method: "sft", settings: { beta: 1 } }))).toBe("SLOTH_OBJECTIVE_SETTINGS")
  const masked = sloth.plan({ ...common, method: "dpo", mask: "all" })
  expect(await codeOf(masked)).toBe("SLOTH_RL_DATA_OPTION")
})

test("types of method, format and backend come from the plugins", async () => {
  await using sloth = await createSloth({
    plugins: [cpu(), reference(), llama(), sft(), exporters()],
    backend: "reference",
  })
  type Train = Parameters<typeof sloth.train>[0]["method"]
  type Format = Parameters<typeof sloth.export>[0]["format"]
  const methods: Train[] = ["sft", "pretrain", undefined]
  const formats: Format[] = ["peft", "gguf-lora", "gguf-q8_0", "gguf-f16", "safetensors-bf16"]
  expect(methods).toHaveLength(3)
  expect(sloth.registry.names("exporters")).toEqual(expect.arrayContaining(formats))
  // @ts-expect-error no plugin provides this method
  const method: Train = "grpo"
  // @ts-expect-error no plugin provides this format
  const format: Format = "onnx"
  expect([method, format]).toEqual(["grpo", "onnx"] as never)
  // @ts-expect-error no plugin provides this backend
  expect(await codeOf(createSloth({ plugins: [reference()], backend: "cuda" }).then((s) => s.backend()))).toBe(
    "SLOTH_PLUGIN_UNKNOWN_ID",
  )
  const all: readonly Plugin[] = standardPlugins()
  expect(all.length).toBeGreaterThanOrEqual(5)
})
