import { afterAll, describe, expect, test } from "bun:test"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { buildTiny } from "../../../tests/support/tiny.ts"
import { letters } from "../testing/letters.ts"
import { Generator } from "./generator.ts"
import { PagedCache, type KvCacheFormat } from "./paged-cache.ts"

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

const codeOf = (make: () => unknown): string => {
  try {
    make()
    return "none"
  } catch (error) {
    return (error as { code: string }).code
  }
}

describe("cache formats", () => {
  test("f16 takes half the memory and shares, grows and copies blocks as f32 does", async () => {
    using m = buildTiny(engine, "untied")
    using exact = new Generator(m, letters)
    using half = new Generator(m, letters, { kvCache: "f16" })
    expect(half.cache.bytesPerToken * 2).toBe(exact.cache.bytesPerToken)
    const prompt = Array.from({ length: 21 }, (_, i) => (i * 11) % 131)
    const requests = [0, 1, 2, 3].map((seed) => ({
      prompt,
      options: { maxTokens: 60, temperature: 1, seed, ignoreEnd: true },
    }))
    // Together the blocks of the prompt are shared, an unfinished one is copied, and the cache grows several times.
    const together = await half.generate(requests)
    for (const [i, request] of requests.entries())
      expect((await half.generate([request]))[0]!.tokens).toEqual(together[i]!.tokens)
    expect(half.cache.bytes).toBe(half.cache.bytesFor(half.cache.bytes / half.cache.bytesPerToken))
  })

  test("a format that the model's heads do not fit, or that is unknown, is refused", () => {
    using m = buildTiny(engine, "untied")
    const make = (format: string) => () => new PagedCache(m, { maxTokens: 64, format: format as KvCacheFormat })
    expect(codeOf(make("q8_0"))).toBe("SLOTH_GENERATE_KV_CACHE")
    expect(codeOf(make("q4_0"))).toBe("SLOTH_GENERATE_KV_CACHE")
    expect(codeOf(make("f16"))).toBe("none")
  })
})
