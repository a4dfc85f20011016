import { describe, expect, test } from "bun:test"
import { completionsUnit, type ScoredText } from "./completions-unit.ts"

/** A text whose scored tokens are negative in the list. */
const text = (...tokens: number[]): ScoredText => ({
  tokens: Int32Array.from(tokens, Math.abs),
  scored: Uint8Array.from(tokens, (t) => (t < 0 ? 1 : 0)),
})

describe("completionsUnit", () => {
  test("shares the prompt; the last token of a completion needs no row", () => {
    const unit = completionsUnit([text(1, 2, 3, -4, -5), text(1, 2, 3, -6, -7, -8)], 9)
    expect([...unit.tokens]).toEqual([1, 2, 3, 4, 6, 7])
    expect(unit.segments).toEqual([
      { length: 3, parent: null },
      { length: 1, parent: 0 },
      { length: 2, parent: 0 },
    ])
    // Both first tokens are predicted by the prompt's last row.
    expect([...unit.scoredRows]).toEqual([2, 2, 3, 4, 5])
    expect([...unit.targets]).toEqual([4, 6, 5, 7, 8])
    expect(unit.completions.map((c) => [...c])).toEqual([
      [0, 2],
      [1, 3, 4],
    ])
    expect(unit.sourceTokens).toBe(11)
    expect(unit.row).toBe(9)
    expect(unit.prompt).toHaveLength(0)
  })
  test("a completion of one token has no segment of its own", () => {
    const unit = completionsUnit([text(1, 2, -4), text(1, 2, -6)], 0)
    expect([...unit.tokens]).toEqual([1, 2])
    expect(unit.segments).toEqual([{ length: 2, parent: null }])
    expect([...unit.scoredRows]).toEqual([1, 1])
    expect([...unit.targets]).toEqual([4, 6])
  })
  test("a shared beginning of the completions is not shared: each has positions of its own", () => {
    const unit = completionsUnit([text(1, 2, -4, -5), text(1, 2, -4, -6)], 0)
    expect([...unit.tokens]).toEqual([1, 2, 4, 4])
    expect([...unit.targets]).toEqual([4, 4, 5, 6])
  })
  test("prompts that end differently, and unscored tokens inside a completion", () => {
    const unit = completionsUnit([text(1, 2, 3, -4), text(1, 2, 9, 8, -4, 7, -5)], 0)
    expect([...unit.tokens]).toEqual([1, 2, 3, 9, 8, 4, 7])
    expect([...unit.scoredRows]).toEqual([2, 4, 6])
    expect([...unit.targets]).toEqual([4, 4, 5])
    expect(unit.completions.map((c) => [...c])).toEqual([[0], [1, 2]])
  })
  test("texts without a common beginning stand alone", () => {
    const unit = completionsUnit([text(1, -2, -3), text(5, -6)], 0)
    expect(unit.segments).toEqual([
      { length: 2, parent: null },
      { length: 1, parent: null },
    ])
    expect([...unit.tokens]).toEqual([1, 2, 5])
    expect([...unit.scoredRows]).toEqual([0, 1, 2])
    expect([...unit.targets]).toEqual([2, 3, 6])
  })
  test("the first text's prompt, where it is learnt", () => {
    const unit = completionsUnit([text(1, 2, 3, -4, -5), text(1, 2, 3, -6)], 0, { scorePrompt: true })
    expect([...unit.scoredRows]).toEqual([0, 1, 2, 2, 3])
    expect([...unit.targets]).toEqual([2, 3, 4, 6, 5])
    expect([...unit.prompt]).toEqual([0, 1])
    expect(unit.completions.map((c) => [...c])).toEqual([[2, 4], [3]])
  })
  test("one text alone is a plain segment", () => {
    const unit = completionsUnit([text(1, 2, -3, -4)], 0)
    expect(unit.segments).toEqual([{ length: 3, parent: null }])
    expect([...unit.scoredRows]).toEqual([1, 2])
    expect([...unit.completions[0]!]).toEqual([0, 1])
  })
})
