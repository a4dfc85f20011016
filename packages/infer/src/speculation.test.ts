import { afterAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import { loadPeftAdapter, type CausalLM, type Tokenizer } from "@sloth/model"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { goldenDir } from "../../../tests/support/golden.ts"
import { buildTiny } from "../../../tests/support/tiny.ts"
import { letters } from "../testing/letters.ts"
import { Generator, type Completion, type GenerateRequest } from "./generator.ts"
import { lookupTokens } from "./internal/prompt-lookup.ts"
import type { SamplingOptions } from "./sampling.ts"
import { scoreCompletions } from "./score.ts"
import type { Speculation } from "./speculation.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

/** The tuned model guesses with its own base: close, but not equal. */
const tuned = (): CausalLM => {
  const m = buildTiny(engine, "untied")
  loadPeftAdapter(m, join(goldenDir, "tiny", "untied", "adapter"))
  return m
}
const repetitive = Array.from({ length: 30 }, (_, i) => [7, 19, 3, 88, 41][i % 5]!)
const prompts = [repetitive, [1, 5, 9, 30, 77], [...repetitive.slice(3), 2, 7, 19], repetitive]

const run = async (
  m: CausalLM,
  speculate: Speculation | undefined,
  options: Partial<SamplingOptions>,
  maxBatch = 16,
) => {
  using g = new Generator(m, letters, { speculate, maxBatch })
  const requests: GenerateRequest[] = prompts.map((prompt, seed) => ({ prompt, options: { ...options, seed } }))
  return await g.generate(requests)
}

const same = (got: readonly Completion[], want: readonly Completion[]) => {
  for (const [i, c] of got.entries()) {
    expect(c.tokens).toEqual([...want[i]!.tokens])
    expect(c.text).toBe(want[i]!.text)
    expect(c.finish).toBe(want[i]!.finish)
    // Kernels that choose their tiling by the number of rows add the same products up in another order: a few 2^-24 · √48 of logits of a few nats.
    c.logprobs.forEach((lp, j) => expect(Math.abs(lp - want[i]!.logprobs[j]!)).toBeLessThan(2e-5))
  }
}
const counts = (all: readonly Completion[]) => ({
  proposed: all.reduce((n, c) => n + c.speculation!.proposed, 0),
  accepted: all.reduce((n, c) => n + c.speculation!.accepted, 0),
})

test("lookupTokens goes on where the longest run stood last", () => {
  expect(lookupTokens([1, 2, 3, 9, 1, 2, 3], 2, 2, 4)).toEqual([9, 1])
  expect(lookupTokens([5, 1, 2, 7, 4, 1, 2, 8, 1, 2], 1, 2, 4)).toEqual([8])
  expect(lookupTokens([4, 1, 2, 7, 5, 1, 2, 8, 4, 1, 2], 1, 2, 4)).toEqual([7])
  expect(lookupTokens([1, 2, 3, 4], 3, 1, 4)).toEqual([])
  expect(lookupTokens([6, 6, 6], 5, 2, 4)).toEqual([6, 6, 6, 6, 6])
  expect(lookupTokens([1, 2, 1, 2], 0, 1, 4)).toEqual([])
})

describe("speculation", () => {
  const options: [string, Partial<SamplingOptions>][] = [
    ["greedy", { maxTokens: 40, ignoreEnd: true }],
    ["sampled", { maxTokens: 40, temperature: 0.8, topK: 8, topP: 0.9, minP: 0.02 }],
    ["penalised", { maxTokens: 24, temperature: 0.5, repetitionPenalty: 1.3, ignoreEnd: true }],
  ]
  test.each(options)("by lookup gives what plain generation gives: %s", async (_label, o) => {
    using m = tuned()
    const plain = await run(m, undefined, o)
    const guessed = await run(m, { kind: "lookup", minNgram: 1 }, o)
    same(guessed, plain)
    expect(counts(guessed).proposed).toBeGreaterThan(0)
    expect(plain[0]!.speculation).toBeUndefined()
    // Also when texts wait for each other.
    same(await run(m, { kind: "lookup", tokens: 3 }, o, 2), plain)
  })

  test.each(options)("by a draft model gives what plain generation gives: %s", async (_label, o) => {
    using m = tuned()
    using base = buildTiny(engine, "untied")
    const plain = await run(m, undefined, o)
    const guessed = await run(m, { kind: "draft", model: base, tokenizer: letters, tokens: 3 }, o)
    same(guessed, plain)
    const { proposed, accepted } = counts(guessed)
    expect(accepted).toBeGreaterThan(0)
    expect(accepted).toBeLessThanOrEqual(proposed)
  })

  test("a draft that is the model itself is always right", async () => {
    using m = tuned()
    using twin = tuned()
    const c = counts(
      await run(
        m,
        { kind: "draft", model: twin, tokenizer: letters },
        { maxTokens: 21, temperature: 1, ignoreEnd: true },
      ),
    )
    expect(c.proposed).toBeGreaterThan(0)
    expect(c.accepted).toBe(c.proposed)
  })

  test("stop texts, stop tokens and limits cut in the middle of right guesses", async () => {
    using m = tuned()
    using twin = tuned()
    const speculate: Speculation = { kind: "draft", model: twin, tokenizer: letters, tokens: 8 }
    const [free] = await run(m, undefined, { maxTokens: 20, temperature: 1, ignoreEnd: true })
    const at = free!.tokens[6]!
    for (const o of [{ stop: [`<${at}>`] }, { stopTokens: [at] }, { maxTokens: 5 }]) {
      const all = { maxTokens: 20, temperature: 1, ignoreEnd: true, ...o }
      same(await run(m, speculate, all), await run(m, undefined, all))
    }
  })

  test("has exactly the model's distribution", async () => {
    using m = tuned()
    const [k, length, seeds] = [3, 3, 900]
    // A text that the model likes, so that what stood in it before has a chance to come again.
    using plain = new Generator(m, letters)
    const [liked] = await plain.generate([{ prompt: [1, 5, 9], options: { maxTokens: 40, ignoreEnd: true } }])
    const text = [1, 5, 9, ...liked!.tokens]
    // The exact distribution over completions of three tokens, each from the three likeliest.
    const exact = new Map<string, number>()
    const extend = async (tokens: readonly number[], p: number): Promise<void> => {
      if (tokens.length === length) return void exact.set(tokens.join(), p)
      const prompt = [...text, ...tokens]
      const [scores] = await scoreCompletions(m, [
        { prompt, completions: Array.from({ length: 131 }, (_, id) => [id]) },
      ])
      const top = scores!
        .map(([lp], id) => ({ id, p: Math.exp(lp!) }))
        .toSorted((a, b) => b.p - a.p)
        .slice(0, k)
      const total = top.reduce((n, t) => n + t.p, 0)
      for (const t of top) await extend([...tokens, t.id], (p * t.p) / total)
    }
    await extend([], 1)
    const seen = new Map<string, number>()
    using base = buildTiny(engine, "untied")
    for (const speculate of [
      { kind: "lookup", minNgram: 1 },
      { kind: "draft", model: base, tokenizer: letters, tokens: 2 },
    ] as const) {
      seen.clear()
      using g = new Generator(m, letters, { speculate })
      const all = await g.generate(
        Array.from({ length: seeds }, (_, seed) => ({
          prompt: text,
          options: { maxTokens: length, temperature: 1, topK: k, ignoreEnd: true, seed },
        })),
      )
      for (const c of all) seen.set(c.tokens.join(), (seen.get(c.tokens.join()) ?? 0) + 1)
      const { proposed, accepted } = counts(all)
      expect(accepted).toBeGreaterThan(0)
      expect(accepted).toBeLessThan(proposed)
      expect([...seen.keys()].filter((key) => !exact.has(key))).toEqual([])
      // Bernstein's inequality for each of the 27 outcomes, with a chance of 1e-9 in all that a right sampler fails (the seeds are fixed, so it never flakes).
      const log = Math.log((2 * exact.size) / 1e-9)
      for (const [key, p] of exact) {
        const bound = Math.sqrt((2 * p * (1 - p) * log) / seeds) + log / (3 * seeds)
        expect(Math.abs((seen.get(key) ?? 0) / seeds - p)).toBeLessThan(bound)
      }
    }
  }, 120_000)

  test("refuses a draft with another tokenizer, and numbers out of range", () => {
    using m = tuned()
    const code = (speculate: Speculation): string => {
      try {
        using _ = new Generator(m, letters, { speculate })
        return "none"
      } catch (error) {
        return (error as { code: string }).code
      }
    }
    const other = { ...letters, idToToken: (id: number) => `other ${id}` } as Tokenizer
    const named = { ...letters, idToToken: (id: number) => `${id}` } as Tokenizer
    expect(code({ kind: "draft", model: m, tokenizer: letters })).toBe("none")
    using _ = new Generator(m, named, {})
    expect(code({ kind: "draft", model: m, tokenizer: other })).toBe("SLOTH_GENERATE_DRAFT_TOKENIZER")
    expect(code({ kind: "lookup", tokens: 0 })).toBe("SLOTH_GENERATE_OPTION")
    expect(code({ kind: "lookup", minNgram: 5, maxNgram: 3 })).toBe("SLOTH_GENERATE_OPTION")
  })
})

describe("a cache that is too small", () => {
  test("texts wait, give their place up and come back with the tokens they had", async () => {
    using m = tuned()
    const requests: GenerateRequest[] = Array.from({ length: 9 }, (_, seed) => ({
      prompt: prompts[seed % 3]!,
      options: { maxTokens: 30 + seed, temperature: 1, seed, ignoreEnd: true },
    }))
    using wide = new Generator(m, letters)
    const want = await wide.generate(requests)
    for (const speculate of [undefined, { kind: "lookup", minNgram: 1 } as const]) {
      // The longest text takes 5 blocks; 9 of them would take 40.
      for (const blocks of [5, 7, 12]) {
        using g = new Generator(m, letters, { cacheTokens: blocks * 16, prefillChunk: 16, speculate })
        const got = await g.generate(requests)
        expect(got.map((c) => c.tokens)).toEqual(want.map((c) => c.tokens))
        expect(g.cache.freeTokens).toBe(blocks * 16)
      }
    }
  })

  test("a text that outgrows it alone gets a coded error, and the generator goes on working", async () => {
    using m = tuned()
    using g = new Generator(m, letters, { cacheTokens: 32 })
    const request = (maxTokens: number) => [{ prompt: prompts[1]!, options: { maxTokens, ignoreEnd: true } }]
    await expect(g.generate(request(60))).rejects.toMatchObject({ code: "SLOTH_GENERATE_CACHE" })
    expect(g.cache.freeTokens).toBe(32)
    expect((await g.generate(request(20)))[0]!.tokens).toHaveLength(20)
  })
})
