import { describe, expect, test } from "bun:test"

import { dynamicMap, nearestCode } from "./dynamic-map.ts"
import golden from "./golden/dynamic-map.json" with { type: "json" }

describe("the dynamic 8-bit maps", () => {
  for (const signed of [true, false]) {
    test(signed ? "signed" : "unsigned", () => {
      const expected = new Float32Array(
        Uint8Array.from(Buffer.from(signed ? golden.signed : golden.unsigned, "hex")).buffer,
      )
      const map = dynamicMap(signed)
      expect(map.length).toBe(256)
      // torch makes the midpoints in f32: three roundings of values up to 1 times the power of ten of their decade.
      for (let i = 0; i < 256; i++) {
        const decade = 10 ** Math.max(-6, Math.ceil(Math.log10(Math.abs(map[i]!) || 1e-7)))
        expect(Math.abs(map[i]! - expected[i]!)).toBeLessThanOrEqual(3 * 2 ** -24 * decade)
      }
    })

    test(`${signed ? "signed" : "unsigned"}: every value is its own code and midpoints go to the lower one`, () => {
      const map = dynamicMap(signed)
      for (let i = 0; i < 256; i++) expect(nearestCode(map, map[i]!)).toBe(i)
      for (let i = 0; i < 255; i++) {
        const middle = (map[i]! + map[i + 1]!) / 2
        expect(nearestCode(map, middle)).toBe(i)
        expect(nearestCode(map, middle + 1e-12)).toBe(i + 1)
      }
      expect(nearestCode(map, 5)).toBe(255)
      expect(nearestCode(map, -5)).toBe(0)
    })
  }
})
