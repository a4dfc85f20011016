import { afterAll, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { readEvents, runPaths, type StepEvent } from "@sloth/core"
import type { Tokenizer } from "@sloth/model"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { readSamples, train } from "@sloth/train"
import { tinyModel } from "../internal/testing/tiny-grpo.ts"
import { grpo } from "../online/grpo.ts"
import { readRollout } from "../online/stored-rollout.ts"
import { defineEnvironment } from "./environment.ts"
import { environmentTraining } from "./training.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-environment-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const template = "{% for m in messages %}{{ m.content }}{% endfor %}"
const seen: string[] = []

/** The tiny model with a tokenizer of ASCII, which its vocabulary of 131 has room for. */
const asciiModel = () => {
  const model = tinyModel()
  const decode = (ids: readonly number[]): string => ids.map((id) => String.fromCharCode(id)).join("")
  const tokenizer = {
    ...model.tokenizer,
    encode: (text: string) => Array.from(text, (c) => c.charCodeAt(0)),
    decode,
    streamDecoder: () => ({ push: (id: number) => decode([id]), end: () => "" }),
  } as Tokenizer
  return Object.assign(model, { tokenizer })
}

const mostLetters = Array.from({ length: 90 }, (_, i) => String.fromCharCode(33 + i))

/** Says two letters after each turn; an even share of early letters is worth more. */
const letters = defineEnvironment<{ start: string }, { turns: number }>({
  name: "letters",
  maxTurns: 3,
  reset: ({ start }) => ({ messages: [{ role: "user", content: start }], state: { turns: 0 } }),
  step: (state, { text }) => {
    state.turns++
    seen.push(text)
    return { reward: text.length % 2, messages: [{ role: "user", content: "zz" }], done: state.turns === 3 }
  },
})

test("GRPO trains on episodes: the environment's tokens are masked and its rewards are the completions'", async () => {
  const model = asciiModel()
  const { tokenizer } = model
  const { rows, rollout, reward } = await environmentTraining(letters, [{ start: "abc" }, { start: "bcd" }], {
    tokenizer,
    template,
    turnTokens: 6,
  })
  const data = await grpo.open(rows, { tokenizer, template, maxLength: 100 })
  using engine = new Engine(createReferenceBackend())
  const run = join(folder, "run")
  const result = await train({
    engine,
    model,
    data,
    objective: grpo,
    rollout,
    rewards: [reward],
    // The second update takes the completions of the first, so a checkpoint between them holds what is trained on.
    // An untrained model hardly ever ends a turn by itself: most letters end it.
    settings: { numGenerations: 3, maxCompletionLength: 24, numIterations: 2, stop: mostLetters },
    config: { steps: 2, batch: 2, rank: 4, learningRate: 1e-3, saveEvery: 1 },
    measure: false,
    run,
  })
  expect(result.steps).toBe(2)
  const steps = readEvents(runPaths(run).events).filter((e): e is StepEvent => e.type === "step")
  expect(steps[0]!.metrics!["rewards/letters/episodes/turns"]).toBeGreaterThan(0)
  for (const { loss } of steps) expect(Number.isFinite(loss)).toBe(true)
  expect(readSamples(runPaths(run).samples)).toHaveLength(2 * 3)
  const [file] = readdirSync(runPaths(run).checkpoints, { recursive: true }).filter((f) =>
    String(f).endsWith("rollout.json"),
  )
  const { slices } = readRollout(readFileSync(join(runPaths(run).checkpoints, String(file))))
  const samples = slices.flat().flatMap((group) => group.samples)
  expect(samples).toHaveLength(6)
  for (const { tokens, mask } of samples) {
    // All that the environment says is two z.
    const said = Array.from(tokens).filter((_, i) => mask![i] === 0)
    expect(said.every((id) => id === "z".charCodeAt(0))).toBe(true)
    expect(said.length % 2).toBe(0)
  }
  expect(samples.some(({ mask }) => mask!.includes(0))).toBe(true)
  expect(seen.length).toBeGreaterThanOrEqual(12)
}, 60_000)

test("episodes that were played ahead keep their scores: a run that is interrupted goes on to the same bits", async () => {
  const made = async () => {
    const model = asciiModel()
    const { tokenizer } = model
    const training = await environmentTraining(letters, [{ start: "abc" }, { start: "bcd" }], { tokenizer, template })
    return { model, training, data: await grpo.open(training.rows, { tokenizer, template, maxLength: 100 }) }
  }
  using engine = new Engine(createReferenceBackend())
  const run = async (name: string, resume: boolean, until = Number.POSITIVE_INFINITY) => {
    const { model, training, data } = await made()
    const stop = new AbortController()
    return train({
      engine,
      model,
      data,
      objective: grpo,
      rollout: training.rollout,
      rewards: [training.reward],
      settings: { numGenerations: 3, maxCompletionLength: 24, stop: mostLetters, maxStaleness: 2 },
      ...(resume ? {} : { config: { steps: 5, batch: 2, rank: 4, learningRate: 1e-2 } as const }),
      measure: false,
      run: join(folder, name),
      resume,
      signal: stop.signal,
      onEvent: (event) => event.type === "step" && event.step === until && stop.abort(),
    })
  }
  expect((await run("ahead", false)).status).toBe("completed")
  const first = await run("ahead-broken", false, 2)
  expect(first.status).toBe("interrupted")
  expect((await run("ahead-broken", true)).status).toBe("completed")
  const [whole, broken] = ["ahead", "ahead-broken"].map((name) => join(folder, name))
  const adapter = (path: string) => readFileSync(join(path, "adapter", "adapter_model.safetensors"))
  expect(adapter(broken!).equals(adapter(whole!))).toBe(true)
  expect(readSamples(runPaths(broken!).samples)).toEqual(readSamples(runPaths(whole!).samples))
})

test("an engine elsewhere is told of updates, and methods know that it is elsewhere", async () => {
  const { tokenizer } = asciiModel()
  let told = 0
  const inner = {
    async *generate() {},
    weightsChanged: () => void told++,
    [Symbol.asyncDispose]: async () => undefined,
  }
  const of = async (elsewhere: boolean) =>
    (
      await environmentTraining(letters, [{ start: "abc" }], {
        tokenizer,
        template,
        rollout: { name: "there", elsewhere, create: () => inner },
      })
    ).rollout
  await using engine = await (await of(true)).create(undefined as never, undefined as never)
  engine.weightsChanged!()
  expect(told).toBe(1)
  expect([(await of(true)).elsewhere, (await of(false)).elsewhere]).toEqual([true, undefined])
})

test("prompts that do not tell the row, or depend on the seed, are refused", async () => {
  const { tokenizer } = asciiModel()
  const same = defineEnvironment<{ n: number }, null>({
    name: "same",
    reset: () => ({ messages: [{ role: "user", content: "a" }], state: null }),
  })
  const random = defineEnvironment<{ n: number }, null>({
    name: "random",
    reset: (_row, seed) => ({ messages: [{ role: "user", content: seed === 0 ? "a" : "b" }], state: null }),
  })
  const make = (environment: typeof same, rows: { n: number }[]) =>
    environmentTraining(environment, rows, { tokenizer, template })
  expect(make(same, [{ n: 1 }, { n: 2 }])).rejects.toMatchObject({ code: "SLOTH_ENVIRONMENT_PROMPT" })
  expect(make(random, [{ n: 1 }])).rejects.toMatchObject({ code: "SLOTH_ENVIRONMENT_PROMPT" })
  const { reward } = await make(same, [{ n: 1 }, { n: 1 }])
  const sample = { prompt: "a", completion: "", completionTokens: [1], finishReason: "stop", row: {} } as const
  expect(() => reward.score([sample])).toThrow(expect.objectContaining({ code: "SLOTH_ENVIRONMENT_PROMPT" }))
})
