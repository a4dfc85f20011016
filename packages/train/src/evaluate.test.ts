import { afterAll, expect, setDefaultTimeout, test } from "bun:test"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { evaluateExamples, scoreExamples } from "./evaluate.ts"
import { countingExamples, examplesOf, randomFiles, readGolden, tinyFiles } from "./internal/testing/tiny.ts"

setDefaultTimeout(60_000)

const engine = new Engine(createReferenceBackend())
afterAll(() => {
  expect(engine.backend.memory.stats().liveBuffers).toBe(0)
  engine[Symbol.dispose]()
})

for (const name of ["untied", "tied", "llama3"])
  test(`${name}: log-probs are those of transformers, whatever the token budget`, async () => {
    const golden = readGolden(name)
    using model = tinyFiles(name).build(engine)
    const all = golden.rows.map((r) => ({ tokens: r.tokens, mask: r.tokens.map(() => 1) }))
    for (const tokenBudget of [4096, 30]) {
      const scored = await scoreExamples(model, examplesOf(all), { tokenBudget })
      for (const [i, row] of scored.entries()) {
        expect(row.tokens).toEqual([...golden.rows[i]!.tokens])
        expect(row.logprobs[0]).toBeNull()
        for (const [t, value] of golden.logprobs[i]!.entries())
          if (value !== null) expect(Math.abs(row.logprobs[t]! - value)).toBeLessThan(1e-4)
      }
    }
  })

test("tokens that are not scored are null, rows with none too, and the loss is the mean of the others", async () => {
  using model = randomFiles().build(engine)
  const examples = countingExamples(20)
  const none = { tokens: Int32Array.of(1, 2, 3), mask: new Uint8Array(3), row: 20 }
  const scored = await scoreExamples(model, [...examples, none])
  expect(scored[20]).toEqual({ row: 20, tokens: [1, 2, 3], logprobs: [null, null, null] })
  for (const [i, e] of examples.entries())
    expect(scored[i]!.logprobs.map((v) => v !== null)).toEqual(Array.from(e.mask, (m, t) => t > 0 && m === 1))
  const values = scored.flatMap((r) => r.logprobs).filter((v): v is number => v !== null)
  const mean = -values.reduce((a, b) => a + b, 0) / values.length
  for (const tokenBudget of [2048, 24]) {
    const evaluation = await evaluateExamples(model, examples, { tokenBudget })
    expect(evaluation.loss).toBeCloseTo(mean, 5)
    expect(evaluation.perplexity).toBeCloseTo(Math.exp(mean), 3)
    expect(evaluation.scoredTokens).toBe(values.length)
  }
})

test("an abort stops between passes", async () => {
  using model = randomFiles().build(engine)
  const signal = AbortSignal.abort()
  expect(scoreExamples(model, countingExamples(3), { signal })).rejects.toThrow()
})
