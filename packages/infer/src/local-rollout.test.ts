import { afterAll, describe, expect, test } from "bun:test"
import { join } from "node:path"
import { loadPeftAdapter } from "@sloth/model"
import { definePlugin } from "@sloth/core"
import { createReferenceBackend, Engine } from "@sloth/tensor"
import { buildTiny } from "../../../tests/support/tiny.ts"
import { goldenDir } from "../../../tests/support/golden.ts"
import { letters } from "../testing/letters.ts"
import { Generator, type KnownPrefix } from "./generator.ts"
import { LocalRollout, localRollout, type LocalCompletion } from "./local-rollout.ts"
import { requestSeed } from "./sampling.ts"
import { scoreCompletions } from "./score.ts"

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
const prompts = [
  { tokens: [1, 5, 9, 30, 77], count: 4 },
  { tokens: Array.from({ length: 35 }, (_, i) => (i * 7) % 131), count: 3 },
]
const collect = async (it: AsyncIterable<LocalCompletion>): Promise<LocalCompletion[]> => {
  const all = await Array.fromAsync(it)
  return all.sort((a, b) => a.prompt - b.prompt || a.index - b.index)
}

describe("LocalRollout", () => {
  test("a plugin can offer it", () => {
    expect(
      definePlugin({
        name: "local",
        version: "1.0.0",
        apiVersion: 1,
        sloth: "*",
        provides: { rollouts: [localRollout] },
      }),
    ).toBeDefined()
  })

  test("keeps what prompts were computed to, without changing what is said", async () => {
    using m = model()
    const long = [40, 50, 33, 32].map((length, row) => ({
      // The first two begin the same: a prompt that is kept is read as a whole all the same.
      tokens: Array.from({ length }, (_, i) => (i * 7 + (row > 1 ? row : 0) * 11) % 131),
      count: 2,
    }))
    const options = { maxTokens: 5, seed: 5 }
    await using plain = localRollout.create(m, { tokenizer: letters })
    const expected = await collect(plain.generate(long, options))
    // Room for all, for two texts, and for so few tokens that texts give up their place.
    for (const limits of [{}, { maxBatch: 2 }, { cacheTokens: 128 }] as { maxBatch?: number; cacheTokens?: number }[]) {
      const kept = new Map<number, KnownPrefix>()
      await using rollout = localRollout.create(m, { tokenizer: letters, ...limits })
      const keep = (prompt: number, prefix: KnownPrefix) => {
        expect(kept.has(prompt)).toBe(false)
        kept.set(prompt, prefix)
      }
      const got = await collect(rollout.generate(long, options, { keepPrompts: 4, keep }))
      const said = (all: readonly LocalCompletion[]) => all.map(({ prompt, index, tokens }) => [prompt, index, tokens])
      expect(said(got)).toEqual(said(expected))
      // The last is too short for its bits not to depend on what else is in its pass.
      if (limits.cacheTokens === undefined) expect([...kept.keys()].sort()).toEqual([0, 1, 2])
      // Where there is no room for a prompt at once it is read like others.
      else expect(kept.size).toBeGreaterThan(0)
      for (const [prompt, { known, from, rows }] of kept) {
        expect(rows).toBe(long[prompt]!.tokens.length)
        expect(from + rows).toBeLessThanOrEqual(known.rows)
        known[Symbol.dispose]()
      }
      for (const { known } of kept.values()) expect(known.bytes).toBe(0)
    }
    // Only as many as asked for, and those belong to who got them also when nobody waits for the end.
    const first: KnownPrefix[] = []
    for await (const completion of plain.generate(long, options, {
      keepPrompts: 1,
      keep: (_, p) => void first.push(p),
    }))
      if (completion.tokens.length > 0) break
    expect(first).toHaveLength(1)
    expect(first[0]!.known.bytes).toBeGreaterThan(0)
    first[0]!.known[Symbol.dispose]()
  }, 60_000)

  test("gives every completion of every prompt its own draw, whatever the batch", async () => {
    using m = model()
    await using wide = localRollout.create(m, { tokenizer: letters })
    await using narrow = new LocalRollout(m, { tokenizer: letters, maxBatch: 2 })
    const options = { maxTokens: 9, seed: 5 }
    const got = await collect(wide.generate(prompts, options))
    expect(got.map((c) => [c.prompt, c.index])).toEqual([
      [0, 0],
      [0, 1],
      [0, 2],
      [0, 3],
      [1, 0],
      [1, 1],
      [1, 2],
    ])
    expect(new Set(got.map((c) => c.tokens.join())).size).toBe(7)
    expect((await collect(narrow.generate(prompts, options))).map((c) => c.tokens)).toEqual(got.map((c) => c.tokens))
    const other = await collect(wide.generate(prompts, { ...options, seed: 6 }))
    expect(other.map((c) => c.tokens)).not.toEqual(got.map((c) => c.tokens))
  })

  test("rescored log-probs are those of the training pass", async () => {
    using m = model()
    await using plain = new LocalRollout(m, { tokenizer: letters })
    await using rescored = new LocalRollout(m, { tokenizer: letters, rescore: true })
    const options = { maxTokens: 9, seed: 5, temperature: 0.8 }
    const sampled = await collect(plain.generate(prompts, options))
    const scored = await collect(rescored.generate(prompts, options))
    const want = await scoreCompletions(
      m,
      prompts.map(({ tokens }, p) => ({
        prompt: tokens,
        completions: sampled.filter((c) => c.prompt === p).map((c) => c.tokens),
      })),
    )
    for (const [i, c] of scored.entries()) {
      expect(c.tokens).toEqual(sampled[i]!.tokens)
      expect(c.logprobs).toEqual([...want[c.prompt]![c.index]!])
      // Rounding of two orders of summation over 3 layers of width 48 in f32: 2^-24 · sqrt(terms) · |logits|, a few 1e-6.
      c.logprobs.forEach((lp, j) => expect(Math.abs(lp - sampled[i]!.logprobs[j]!)).toBeLessThan(2e-5))
    }
  })

  test("a small token budget gives the same scores", async () => {
    using m = model()
    const requests = [
      { prompt: [1, 5, 9], completions: [[4], [8, 2, 7], [3, 3]] },
      { prompt: [7], completions: [[9, 9, 1]] },
    ]
    const whole = await scoreCompletions(m, requests)
    const split = await scoreCompletions(m, requests, { tokenBudget: 4 })
    for (const [i, group] of whole.entries())
      for (const [j, values] of group.entries())
        values.forEach((v, t) => expect(Math.abs(v - split[i]![j]![t]!)).toBeLessThan(2e-5))
    expect(
      await scoreCompletions(m, [{ prompt: [1], completions: [[]] }]).then(
        () => "none",
        (e: { code: string }) => e.code,
      ),
    ).toBe("SLOTH_SCORE_EMPTY")
  })

  test("stop tokens end a completion and belong to it", async () => {
    using m = model()
    await using rollout = new LocalRollout(m, { tokenizer: letters })
    const options = { maxTokens: 9, seed: 5 }
    const [free] = await collect(rollout.generate([prompts[0]!], options))
    const at = free!.tokens[2]!
    const [stopped] = await collect(rollout.generate([prompts[0]!], { ...options, stopTokens: [at] }))
    expect(stopped!.tokens).toEqual(free!.tokens.slice(0, free!.tokens.indexOf(at) + 1))
    expect(stopped!.finishReason).toBe("stop")
    expect(free!.finishReason).toBe("length")
  })

  test("hands its memory back and takes it again; the forecast is what it takes", async () => {
    using m = model()
    await using rollout = new LocalRollout(m, { tokenizer: letters })
    const many = [{ tokens: prompts[1]!.tokens, count: 6 }]
    const live = () => engine.backend.memory.stats().liveBytes
    const first = await collect(rollout.generate(many, { maxTokens: 60, seed: 1 }))
    const full = live()
    rollout.release()
    const empty = live()
    expect(full - empty).toBe(rollout.cacheBytes(many, 60))
    expect(full - empty).toBeGreaterThan(0)
    expect(await collect(rollout.generate(many, { maxTokens: 60, seed: 1 }))).toEqual(first)
    expect(live()).toBe(full)
  })

  test("leaving early frees every block", async () => {
    using m = model()
    using g = new Generator(m, letters, { cacheTokens: 640 })
    const free = g.cache.freeTokens
    for await (const e of g.stream(prompts.map((p) => ({ prompt: p.tokens, options: { maxTokens: 30 } }))))
      if (e.type === "token") break
    expect(g.cache.freeTokens).toBe(free)
  })
})

test("requestSeed gives no two completions the same seed", () => {
  const seeds = new Set<number>()
  for (let seed = 0; seed < 8; seed++)
    for (let p = 0; p < 16; p++) for (let i = 0; i < 16; i++) seeds.add(requestSeed(seed, p, i))
  expect(seeds.size).toBe(8 * 16 * 16)
  for (const s of seeds) expect(Number.isSafeInteger(s) && s >= 0).toBe(true)
})
