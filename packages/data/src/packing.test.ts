import { describe, expect, test } from "bun:test"
import { thrown } from "../fixtures/thrown.ts"
import { packBestFit } from "./packing.ts"

/** The same rule, written plainly: look at every bin, oldest room first. */
const plainBestFit = (lengths: readonly number[], capacity: number): number[][] => {
  const order = lengths.map((_, i) => i).filter((i) => (lengths[i] as number) > 0)
  order.sort((a, b) => (lengths[b] as number) - (lengths[a] as number) || a - b)
  const bins: { items: number[]; room: number; since: number }[] = []
  order.forEach((item, time) => {
    const length = lengths[item] as number
    const fitting = bins.filter((bin) => bin.room >= length).sort((a, b) => a.room - b.room || a.since - b.since)
    let bin = fitting[0]
    if (bin === undefined) bins.push((bin = { items: [], room: capacity, since: time }))
    bin.items.push(item)
    bin.room -= length
    bin.since = time
  })
  return bins.map((bin) => bin.items)
}

describe("packBestFit", () => {
  test("fills the tightest bin that still holds a sequence", () => {
    expect(packBestFit([4, 7, 3, 6, 1], 10)).toEqual([[1, 2], [3, 0], [4]])
    expect(packBestFit([0, 5, 0], 5)).toEqual([[1]])
    expect(packBestFit([], 5)).toEqual([])
  })

  test("agrees with the plain rule on many inputs", () => {
    let state = 1
    const random = (n: number): number => (state = (state * 48271) % 2147483647) % n
    for (let round = 0; round < 60; round++) {
      const capacity = 1 + random(130)
      const lengths = Array.from({ length: random(120) }, () => random(capacity + 1))
      expect(packBestFit(lengths, capacity)).toEqual(plainBestFit(lengths, capacity))
    }
  })

  test("a hundred thousand sequences in a wide bin take little time and waste little", () => {
    const lengths = Int32Array.from({ length: 100_000 }, (_, i) => 1 + ((i * 7919) % 4096))
    const start = performance.now()
    const bins = packBestFit(lengths, 8192)
    expect(performance.now() - start).toBeLessThan(2000)
    const total = lengths.reduce((a, b) => a + b, 0)
    expect(bins.length).toBeLessThan((total / 8192) * 1.01 + 1)
    expect(bins.flat().sort((a, b) => a - b)).toEqual(Array.from(lengths.keys()))
  })

  test("refuses what cannot be packed", async () => {
    const error = await thrown(() => packBestFit([3, 9], 8))
    expect(error.code).toBe("SLOTH_DATA_OVERLONG")
    expect(error.fields).toEqual({ index: 1, length: 9, capacity: 8 })
    expect((await thrown(() => packBestFit([1], 0))).code).toBe("SLOTH_DATA_CAPACITY")
  })
})
