import { describe, expect, test } from "bun:test"
import { thrown } from "../fixtures/thrown.ts"
import { philox, PhiloxStream } from "./internal/philox.ts"
import { epochOrder, splitHeldOut } from "./order.ts"

const rising = (n: number): number[] => Array.from({ length: n }, (_, i) => i)
const sorted = (order: Int32Array): number[] => Array.from(order).sort((a, b) => a - b)

describe("philox", () => {
  test("known answers of Random123 (kat_vectors, philox4x32 with 10 rounds)", () => {
    const all = (c: readonly number[], k: readonly number[]): string[] => {
      const [c0, c1, c2, c3] = c as [number, number, number, number]
      const [k0, k1] = k as [number, number]
      return Array.from(philox(c0, c1, c2, c3, k0, k1, new Uint32Array(4)), (w) => w.toString(16).padStart(8, "0"))
    }
    const ones = 0xffffffff
    expect(all([0, 0, 0, 0], [0, 0])).toEqual(["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"])
    expect(all([ones, ones, ones, ones], [ones, ones])).toEqual(["408f276d", "41c83b0e", "a20bc7c6", "6d5451fd"])
    expect(all([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])).toEqual([
      "d16cfe09",
      "94fdcceb",
      "5001e420",
      "24126ea1",
    ])
  })

  test("bounded draws are even and depend on every part of the address", () => {
    const counts = [0, 0, 0]
    const stream = new PhiloxStream(3, 1, 0)
    for (let i = 0; i < 30_000; i++) {
      const drawn = stream.below(3)
      counts[drawn] = (counts[drawn] as number) + 1
    }
    for (const n of counts) expect(Math.abs(n - 10_000)).toBeLessThan(400)
    const first = (seed: number, stream: number, step: number): number =>
      new PhiloxStream(seed, stream, step).below(2 ** 32)
    const drawn = [first(1, 0, 0), first(0, 1, 0), first(0, 0, 1), first(2 ** 32, 0, 0), first(0, 0, 0)]
    expect(new Set(drawn).size).toBe(5)
  })
})

describe("epochOrder", () => {
  test("is a permutation, the same each time, another for each epoch and seed", () => {
    const order = epochOrder(1000, 42, 0)
    expect(sorted(order)).toEqual(rising(1000))
    expect(epochOrder(1000, 42, 0)).toEqual(order)
    expect(epochOrder(1000, 42, 1)).not.toEqual(order)
    expect(epochOrder(1000, 43, 0)).not.toEqual(order)
  })

  test("stays what it was: runs of earlier versions resume on it", () => {
    expect(Array.from(epochOrder(10, 7, 0))).toEqual([8, 1, 3, 9, 6, 4, 5, 0, 2, 7])
    expect(Array.from(epochOrder(10, 7, 1))).toEqual([7, 2, 0, 5, 9, 4, 8, 6, 3, 1])
  })

  test("sequential keeps the rows' order; nothing and one are fine", () => {
    expect(Array.from(epochOrder(5, 1, 3, "sequential"))).toEqual(rising(5))
    expect(epochOrder(0, 1, 0)).toHaveLength(0)
    expect(Array.from(epochOrder(1, 1, 0))).toEqual([0])
  })

  test("every item can stand everywhere", () => {
    const firsts = new Set<number>()
    for (let epoch = 0; epoch < 200; epoch++) firsts.add(epochOrder(8, 0, epoch)[0] as number)
    expect(firsts.size).toBe(8)
  })
})

describe("splitHeldOut", () => {
  test("parts are apart, complete, in rising order and the same each time", () => {
    const { train, heldOut } = splitHeldOut(100, 0.1, 5)
    expect(heldOut).toHaveLength(10)
    expect(sorted(train)).toEqual(Array.from(train))
    expect([...train, ...heldOut].sort((a, b) => a - b)).toEqual(rising(100))
    expect(splitHeldOut(100, 10, 5).heldOut).toEqual(heldOut)
    expect(splitHeldOut(100, 10, 6).heldOut).not.toEqual(heldOut)
  })

  test("a share holds out at least one; zero holds out none", () => {
    expect(splitHeldOut(3, 0.01, 0).heldOut).toHaveLength(1)
    expect(splitHeldOut(3, 0, 0)).toEqual({ train: Int32Array.of(0, 1, 2), heldOut: new Int32Array() })
  })

  test("refuses to hold out everything, and odd sizes and seeds", async () => {
    for (const size of [3, 4, 1.5, -1, Number.NaN]) {
      expect((await thrown(() => splitHeldOut(3, size, 0))).code).toBe("SLOTH_DATA_HELD_OUT")
    }
    expect((await thrown(() => splitHeldOut(1, 0.5, 0))).code).toBe("SLOTH_DATA_HELD_OUT")
    expect((await thrown(() => epochOrder(3, -1, 0))).code).toBe("SLOTH_DATA_SEED")
  })
})
