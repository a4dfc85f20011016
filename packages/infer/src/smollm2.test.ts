import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import type { CausalLM, Tokenizer } from "@sloth/model"
import { Engine, linearLogprobs } from "@sloth/tensor"
import { cpuBackend } from "../../../tests/support/cpu.ts"
import { goldenJson } from "../../../tests/support/golden.ts"
import { openSmollm2, SMOLLM2_ABSENT, smollm2Path } from "../../../tests/support/smollm2.ts"
import { cachedContext } from "./cached-context.ts"
import { chatPrompt } from "./chat.ts"
import { Generator } from "./generator.ts"
import { LocalRollout } from "./local-rollout.ts"
import { PagedCache, type KvCacheFormat } from "./paged-cache.ts"

const backend = smollm2Path === undefined ? undefined : await cpuBackend()
if (smollm2Path === undefined) console.log(`(skip) ${SMOLLM2_ABSENT}`)
else if (backend === undefined) console.log("(skip) the native CPU backend is not available")

describe.skipIf(backend === undefined)("generation with SmolLM2-135M-Instruct Q4_1", () => {
  let engine: Engine
  let model: CausalLM
  let tokenizer: Tokenizer
  beforeAll(async () => {
    engine = new Engine(backend!)
    const files = await openSmollm2()
    model = files.build(engine)
    tokenizer = files.tokenizer
  })
  afterAll(() => {
    model[Symbol.dispose]()
    expect(engine.backend.memory.stats().liveBuffers).toBe(0)
    engine[Symbol.dispose]()
  })

  /** Differences to the golden log-probs when a text is fed through the cache, eight tokens at first, then one by one. */
  const differences = async (format: KvCacheFormat, texts: number): Promise<number[]> => {
    const golden = goldenJson<{ texts: { tokens: number[]; logprobs: number[] }[] }>("smollm2", "logprobs.json")
    const found: number[] = []
    for (const { tokens, logprobs } of golden.texts.slice(0, texts)) {
      using cache = new PagedCache(model, { maxTokens: 1024, format })
      const sequence = cache.create()
      for (let at = 0; at < tokens.length - 1;) {
        const rows = at === 0 ? 8 : 1
        cache.reserve(sequence, rows)
        const lp = engine.noGrad(() =>
          engine.scope(() => {
            const context = cachedContext(engine, cache, [{ sequence, rows }])
            const hidden = model.hidden(context, engine.from(Int32Array.from(tokens.slice(at, at + rows))))
            const targets = engine.from(Int32Array.from(tokens.slice(at + 1, at + rows + 1)))
            return linearLogprobs(hidden, model.head.weight.tensor, targets, model.head).logprobs
          }),
        )
        sequence.length += rows
        const values = await lp.readFloats()
        lp.dispose()
        for (const [i, value] of values.entries()) found.push(Math.abs(value - logprobs[at + i + 1]!))
        at += rows
      }
    }
    return found
  }
  const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length

  test("what the formats of the cache cost in log-probs", async () => {
    const of = {
      f32: await differences("f32", 2),
      f16: await differences("f16", 2),
      q8_0: await differences("q8_0", 2),
    }
    for (const [format, values] of Object.entries(of))
      console.log(
        `${format}: mean ${mean(values).toExponential(1)}, largest ${Math.max(...values).toExponential(1)} nats`,
      )
    // The bar of the golden log-probs: f32 on both sides, 30 layers of sums in different order.
    expect(Math.max(...of.f32)).toBeLessThan(2e-3)
    // A stored f16 is off by up to 2^-11 of itself, a q8_0 by up to 1/254 of its block's largest, 8 times as much; a block's largest is some 2 to 4 times its typical element.
    // So the mean effects of the two must be 16 to 32 times apart; a factor of two more either way is for sampling error.
    expect(mean(of.q8_0) / mean(of.f16)).toBeGreaterThan(8)
    expect(mean(of.q8_0) / mean(of.f16)).toBeLessThan(64)
    expect(mean(of.f16)).toBeGreaterThan(mean(of.f32))
  }, 300_000)

  test("guesses leave greedy answers as they are, bit of text by bit of text", async () => {
    const text = "The quick brown fox jumps over the lazy dog. A small boat sails on the blue sea."
    const prompt = chatPrompt(tokenizer, [{ role: "user", content: `Repeat this text exactly:\n${text}` }])
    const options = { maxTokens: 96, ignoreEnd: true }
    using plain = new Generator(model, tokenizer)
    const [want] = await plain.generate([{ prompt, options }])
    using guessing = new Generator(model, tokenizer, { speculate: { kind: "lookup" } })
    const [got] = await guessing.generate([{ prompt, options }])
    expect(got!.tokens).toEqual([...want!.tokens])
    expect(got!.speculation!.accepted).toBeGreaterThan(16)
  }, 120_000)

  test("log-probs of the sampler and of training passes differ by rounding", async () => {
    await using rollout = new LocalRollout(model, { tokenizer })
    const prompt = chatPrompt(tokenizer, [{ role: "user", content: "Tell me a story about a small boat." }])
    const all = await Array.fromAsync(rollout.generate([{ tokens: prompt, count: 4 }], { maxTokens: 32, seed: 3 }))
    const [scores] = await rollout.score([{ prompt, completions: all.map((c) => c.tokens) }])
    let largest = 0
    for (const [i, c] of all.entries())
      for (const [t, lp] of c.logprobs.entries()) largest = Math.max(largest, Math.abs(lp - scores![i]![t]!))
    // Each side is within 1e-4 of the exact value (the largest error against transformers' f32 over 1,761 tokens is 5e-5, half of which is theirs).
    expect(largest).toBeLessThan(2e-4)
  }, 120_000)
})
