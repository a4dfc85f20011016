import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { ropeFrequencies, ropeTables, type RopeScaling } from "./rope-tables.ts"

interface Case {
  readonly name: string
  readonly headDim: number
  readonly theta: number
  readonly maxPositionEmbeddings: number
  readonly scaling: Record<string, unknown>
  readonly seqLen: number | null
  readonly inverseFrequencies: number[]
  readonly attentionFactor: number
  readonly positions: number[]
  readonly cos: number[][]
  readonly sin: number[][]
}
const { cases } = JSON.parse(readFileSync(join(import.meta.dirname, "../../../tests/golden/rope.json"), "utf8")) as {
  cases: Case[]
}

/** The scaling of a case in Sloth's words. */
const scalingOf = ({ scaling: s, maxPositionEmbeddings }: Case): RopeScaling | undefined => {
  const originalMaxPositions = (s["original_max_position_embeddings"] as number | undefined) ?? maxPositionEmbeddings
  const number = (key: string) => s[key] as number
  switch (s["rope_type"]) {
    case "linear":
    case "dynamic":
      return { type: s["rope_type"], factor: number("factor") }
    case "llama3":
      return {
        type: "llama3",
        factor: number("factor"),
        lowFreqFactor: number("low_freq_factor"),
        highFreqFactor: number("high_freq_factor"),
        originalMaxPositions,
      }
    case "yarn":
      return {
        type: "yarn",
        factor: number("factor"),
        originalMaxPositions,
        betaFast: number("beta_fast"),
        betaSlow: number("beta_slow"),
        attentionFactor: number("attention_factor"),
        mscale: number("mscale"),
        mscaleAllDim: number("mscale_all_dim"),
        truncate: s["truncate"] !== false,
      }
    case "longrope":
      return {
        type: "longrope",
        shortFactor: s["short_factor"] as number[],
        longFactor: s["long_factor"] as number[],
        originalMaxPositions,
        factor: number("factor"),
        attentionFactor: number("attention_factor"),
      }
    default:
      return undefined
  }
}

describe("rotary tables against transformers", () => {
  test("every rule is among the cases", () => {
    expect([...new Set(cases.map((c) => c.scaling["rope_type"]))].toSorted()).toEqual([
      "default",
      "dynamic",
      "linear",
      "llama3",
      "longrope",
      "yarn",
    ])
  })
  for (const c of cases)
    test(c.name, () => {
      const config = { theta: c.theta, rotary: c.headDim, maxPositions: c.maxPositionEmbeddings, scaling: scalingOf(c) }
      const length = c.seqLen ?? 1
      const { inverse, factor } = ropeFrequencies(config, length)
      // transformers makes the frequencies in f32: a few roundings of 2^-24 each.
      for (const [i, f] of c.inverseFrequencies.entries()) expect(Math.abs(inverse[i]! / f - 1)).toBeLessThan(1e-6)
      expect(Math.abs(factor / c.attentionFactor - 1)).toBeLessThan(1e-6)
      const { cos, sin } = ropeTables(config, Math.max(...c.positions) + 1, length)
      const half = c.headDim / 2
      // An angle of p radians carries the rounding of its f32 frequency: p · 2^-22 or so.
      for (const [i, p] of c.positions.entries())
        for (let j = 0; j < half; j++) {
          const allowed = 1e-6 + p * 1e-6
          expect(Math.abs(cos[p * half + j]! - c.cos[i]![j]!)).toBeLessThan(allowed)
          expect(Math.abs(sin[p * half + j]! - c.sin[i]![j]!)).toBeLessThan(allowed)
        }
    })
})
