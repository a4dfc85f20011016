import { afterAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import { loadPeftAdapter, packedContext } from "@sloth/model"
import { createReferenceBackend, Engine, linearLogprobs, SequenceLayout } from "@sloth/tensor"
import { buildTiny } from "../../../tests/support/tiny.ts"
import { goldenDir } from "../../../tests/support/golden.ts"
import { letters } from "../testing/letters.ts"
import { Generator } from "./generator.ts"
import { StopFinder } from "./sampling.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

const model = () => {
  const m = buildTiny(engine, "untied")
  loadPeftAdapter(m, join(goldenDir, "tiny", "untied", "adapter"))
  return m
}
const prompts = [[1, 5, 9, 30, 77], [1, 5], Array.from({ length: 41 }, (_, i) => (i * 7) % 131)]
const long = { maxTokens: 24, ignoreEnd: true }

describe("Generator", () => {
  test("greedy tokens and log-probs are those of a pass over the whole text", async () => {
    using m = model()
    using g = new Generator(m, letters, { prefillChunk: 16 })
    for (const [i, c] of (await g.generate(prompts.map((prompt) => ({ prompt, options: long })))).entries()) {
      const tokens = [...prompts[i]!, ...c.tokens]
      const logprobs = engine.scope(() => {
        const ctx = packedContext(engine, SequenceLayout.fromLengths([tokens.length - 1]))
        const hidden = m.hidden(ctx, engine.from(Int32Array.from(tokens.slice(0, -1))))
        return linearLogprobs(hidden, m.head.weight.tensor, engine.from(Int32Array.from(tokens.slice(1))), m.head)
          .logprobs
      })
      const all = await logprobs.readFloats()
      logprobs.dispose()
      expect(c.tokens).toHaveLength(24)
      c.logprobs.forEach((lp, j) => expect(Math.abs(lp - all[prompts[i]!.length - 1 + j]!)).toBeLessThan(2e-5))
    }
  })

  test("a batch gives what each request gives alone; equal prompts share their cache", async () => {
    using m = model()
    using g = new Generator(m, letters, { maxBatch: 4 })
    const requests = [0, 1, 2, 3, 4, 5].map((seed) => ({
      prompt: prompts[seed % 2]!,
      options: { ...long, temperature: 0.9, topK: 20, topP: 0.95, seed },
    }))
    const together = await g.generate(requests)
    for (const [i, request] of requests.entries()) {
      const [alone] = await g.generate([request])
      expect(alone!.tokens).toEqual(together[i]!.tokens)
    }
    expect(new Set(together.map((c) => c.tokens.join())).size).toBe(6)
  })

  test("prompts that begin alike share that part, whenever they come", async () => {
    using m = model()
    const common = Array.from({ length: 37 }, (_, i) => (i * 13) % 131)
    const requests = Array.from({ length: 7 }, (_, seed) => ({
      prompt: seed === 0 ? common : [...common, ...[5, 9, 77].slice(0, seed % 4), seed],
      options: { maxTokens: 6 + seed, ignoreEnd: true, temperature: 0.9, seed },
    }))
    using alone = new Generator(m, letters)
    const want = []
    for (const r of requests) want.push((await alone.generate([r]))[0]!.tokens)
    // All at once in small chunks, and a few at a time so that late ones find the beginning read.
    for (const maxBatch of [16, 3]) {
      using g = new Generator(m, letters, { maxBatch, prefillChunk: 16 })
      // The forks, by how many tokens they took over.
      const shared: number[] = []
      const fork = g.cache.fork.bind(g.cache)
      g.cache.fork = (sequence, length) => {
        shared.push(length!)
        return fork(sequence, length)
      }
      expect((await g.generate(requests)).map((c) => c.tokens)).toEqual(want)
      expect(shared).toHaveLength(6)
      expect(new Set(shared)).toEqual(new Set([32]))
    }
    // An equal prompt takes over all but the last token, also when it comes late.
    using g = new Generator(m, letters, { maxBatch: 2 })
    const shared: number[] = []
    const fork = g.cache.fork.bind(g.cache)
    g.cache.fork = (sequence, length) => (shared.push(length!), fork(sequence, length))
    await g.generate([5, 1, 2].map((maxTokens) => ({ prompt: common, options: { maxTokens, ignoreEnd: true } })))
    expect(shared).toEqual([36, 36])
  })

  test("a kept text is continued without reading it again", async () => {
    using m = model()
    using g = new Generator(m, letters)
    const first = []
    for await (const e of g.stream([{ prompt: prompts[0]!, options: long }], { keep: true }))
      if (e.type === "token") first.push(e.id)
    const next = [...prompts[0]!, ...first.slice(0, 10), 99, 98]
    const kept: number[] = []
    for await (const e of g.stream([{ prompt: next, options: long }], { keep: true }))
      if (e.type === "token") kept.push(e.id)
    using fresh = new Generator(m, letters)
    expect((await fresh.generate([{ prompt: next, options: long }]))[0]!.tokens).toEqual(kept)
  })

  test("stops at a text, at the limit, when aborted", async () => {
    using m = model()
    using g = new Generator(m, letters)
    const [free] = await g.generate([{ prompt: prompts[0]!, options: long }])
    const at = free!.tokens[3]!
    const [stopped] = await g.generate([{ prompt: prompts[0]!, options: { ...long, stop: [`<${at}>`] } }])
    expect(stopped!.finish).toBe("stop")
    expect(stopped!.text).toBe(
      free!.tokens
        .slice(0, free!.tokens.indexOf(at))
        .map((t) => `<${t}>`)
        .join(""),
    )
    expect(free!.finish).toBe("length")
    const control = new AbortController()
    let seen = 0
    for await (const e of g.stream([{ prompt: prompts[0]!, options: long }], { signal: control.signal })) {
      if (e.type === "token" && ++seen === 5) control.abort()
      if (e.type === "finish") expect(e.completion.finish).toBe("aborted")
    }
    expect(seen).toBe(5)
  })

  test("wrong requests get coded errors", async () => {
    using m = model()
    using g = new Generator(m, letters, { cacheTokens: 64 })
    const code = (p: Promise<unknown>) =>
      p.then(
        () => "none",
        (e: { code: string }) => e.code,
      )
    expect(await code(g.generate([{ prompt: [] }]))).toBe("SLOTH_GENERATE_PROMPT")
    expect(await code(g.generate([{ prompt: [131] }]))).toBe("SLOTH_GENERATE_PROMPT")
    expect(await code(g.generate([{ prompt: [1], options: { temperature: -1, topP: 2 } }]))).toBe(
      "SLOTH_GENERATE_OPTION",
    )
    expect(await code(g.generate([{ prompt: Array.from({ length: 80 }, () => 1) }]))).toBe("SLOTH_GENERATE_CACHE")
  })
})

test("StopFinder holds back what may become a stop text", () => {
  const f = new StopFinder(["END", "\n\n"])
  expect(f.push("a E")).toBe("a ")
  expect(f.push("N")).toBe("")
  expect(f.push("x")).toBe("ENx")
  expect(f.push("y\n")).toBe("y")
  expect(f.push("\nz")).toBe("")
  expect(f.found).toBe(true)
})
