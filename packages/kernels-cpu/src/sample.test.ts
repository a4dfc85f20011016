import { describe, expect, test } from "bun:test"

import { expectClose, isas, numbers, onThreads, session } from "../test-kit/session.ts"

interface Row {
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  readonly minP?: number
  readonly penalty?: number
}

const params = (rows: readonly Row[]): Float32Array =>
  Float32Array.from(rows.flatMap((r) => [r.temperature ?? 1, r.topK ?? 0, r.topP ?? 1, r.minP ?? 0, r.penalty ?? 1, 0, 0, 0])) // prettier-ignore

/** Tokens that may be drawn and their probabilities, by sorting everything. */
function distribution(logits: Float32Array, row: Row, history: readonly number[]): Map<number, number> {
  const { temperature = 1, topK = 0, topP = 1, minP = 0, penalty = 1 } = row
  const adjusted = Array.from(logits, (x, id) => (history.includes(id) ? (x > 0 ? x / penalty : x * penalty) : x))
  let kept = adjusted.map((x, id) => ({ id, x: x / temperature })).sort((a, b) => b.x - a.x || a.id - b.id)
  const normalise = (): number[] => {
    const weights = kept.map((t) => Math.exp(t.x - kept[0]!.x))
    const total = weights.reduce((a, b) => a + b, 0)
    return weights.map((w) => w / total)
  }
  if (topK > 0) kept = kept.slice(0, topK)
  if (topP < 1) {
    const p = normalise()
    let [sum, count] = [0, 0]
    while (count < p.length && (count === 0 || sum < topP)) sum += p[count++]!
    kept = kept.slice(0, count)
  }
  if (minP > 0) kept = kept.filter((t) => t.x >= kept[0]!.x + Math.log(minP))
  const p = normalise()
  return new Map(kept.map((t, i) => [t.id, p[i]!]))
}

describe.each(isas)("sample on %s", (isa) => {
  test.each([1, 5, 123, 4099, 49152])("greedy and log-probs, vocab %p", async (vocab) => {
    const rows = 3
    const logits = numbers(rows * vocab, 70, 8)
    if (vocab > 4) logits[vocab + 4] = logits[vocab + 2] = 9
    const [ids, logp] = await onThreads(isa, async (s) => {
      const [id, lp] = [s.alloc(rows * 4), s.alloc(rows * 4)]
      const set = s.f32(params([{ temperature: 0 }, { temperature: 0 }, { topK: 1 }]))
      s.k.sample(id, lp, s.f32(logits), rows, vocab, set, s.i32(new Int32Array(rows * 4)), 0, 0)
      return [await s.readI32(id), await s.readF32(lp)] as const
    })
    for (let r = 0; r < rows; r++) {
      const row = logits.subarray(r * vocab, (r + 1) * vocab)
      const best = row.reduce((a, x, i) => (x > row[a]! ? i : a), 0)
      expect(ids[r]).toBe(best)
      const logSum = row[best]! + Math.log(row.reduce((a, x) => a + Math.exp(x - row[best]!), 0))
      expectClose([logp[r]!], [row[best]! - logSum], 1e-6, 2e-6)
    }
    if (vocab > 4) expect(ids[1]).toBe(2) // the lowest id wins a tie
  })

  const cases: [string, Row][] = [
    ["plain", {}],
    ["temperature", { temperature: 0.4 }],
    ["top-k", { topK: 7 }],
    ["top-p", { topP: 0.6, temperature: 1.5 }],
    ["min-p", { minP: 0.1 }],
    ["all together", { temperature: 0.8, topK: 20, topP: 0.9, minP: 0.02, penalty: 1.3 }],
    ["penalty", { penalty: 1.8, temperature: 0.7 }],
  ]
  test.each(cases)("%s draws from the filtered distribution", async (_, row) => {
    const [rows, vocab] = [4000, 61]
    const one = numbers(vocab, 71, 3)
    const history = [3, 5, 5, 60, -1]
    const [ids, logp] = await onThreads(isa, async (s) => {
      const all = new Float32Array(rows * vocab)
      for (let r = 0; r < rows; r++) all.set(one, r * vocab)
      const rng = Int32Array.from({ length: rows * 4 }, (__, i) => [17, -5, 2, Math.floor(i / 4)][i % 4]!)
      const past = Int32Array.from({ length: rows * history.length }, (__, i) => history[i % history.length]!)
      const [id, lp] = [s.alloc(rows * 4), s.alloc(rows * 4)]
      const set = s.f32(params(Array.from({ length: rows }, () => row)))
      s.k.sample(id, lp, s.f32(all), rows, vocab, set, s.i32(rng), s.i32(past), history.length)
      return [await s.readI32(id), await s.readF32(lp)] as const
    })
    const expected = distribution(one, row, history)
    const counts = new Map<number, number>()
    for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1)
    for (const id of counts.keys()) expect(expected.has(id)).toBe(true)
    let chi = 0
    let cells = 0
    for (const [id, p] of expected) {
      if (p * rows < 5) continue
      chi += ((counts.get(id) ?? 0) - p * rows) ** 2 / (p * rows)
      cells++
    }
    // The draw is fixed by its seed, so this cannot flicker; the bound is six standard deviations of chi squared.
    expect(chi).toBeLessThan(cells + 6 * Math.sqrt(2 * cells) + 10)
    const total = Math.log(one.reduce((a, x) => a + Math.exp(x), 0))
    expectClose(
      logp,
      Float64Array.from(ids, (id) => one[id]! - total),
      1e-6,
      2e-6,
    )
  })

  test("logits of -infinity are never drawn and NaN neither", async () => {
    await session(isa, 2, async (s) => {
      const logits = numbers(300, 72)
      for (let i = 0; i < 300; i++) if (i % 3 !== 0) logits[i] = i % 3 === 1 ? -Infinity : NaN
      logits.fill(-Infinity, 200)
      const [id, lp] = [s.alloc(4), s.alloc(4)]
      const finite = logits.map((x) => (Number.isNaN(x) ? -Infinity : x))
      for (let draw = 0; draw < 50; draw++) {
        s.k.sample(id, lp, s.f32(finite), 1, 300, s.f32(params([{ topP: 0.99 }])), s.i32([draw, 0, 0, 0]), 0, 0)
        const chosen = (await s.readI32(id))[0]!
        expect(Number.isFinite(logits[chosen]!)).toBe(true)
      }
      s.k.sample(id, lp, s.f32(logits), 1, 300, s.f32(params([{ topK: 5 }])), s.i32([1, 0, 0, 0]), 0, 0)
      const chosen = (await s.readI32(id))[0]!
      expect(chosen >= 0 && chosen < 300).toBe(true)
    })
  })
})
