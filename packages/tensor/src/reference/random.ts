import type { RequiredKernels } from "@sloth/core"

import type { Call, Define } from "./call.ts"

/** High word of the product of two unsigned 32-bit integers, by 16-bit halves. */
function highWord(a: number, b: number): number {
  const aLow = a & 0xffff
  const aHigh = a >>> 16
  const bLow = b & 0xffff
  const bHigh = b >>> 16
  const middle = aHigh * bLow + (((aLow * bLow) / 0x10000) >>> 0)
  const cross = aLow * bHigh + (middle & 0xffff)
  return (aHigh * bHigh + ((middle / 0x10000) >>> 0) + ((cross / 0x10000) >>> 0)) >>> 0
}

/**
 * One block of Philox4x32-10: four random 32-bit words for a 128-bit counter and a 64-bit key.
 * Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), section 4.3.
 */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter
  let [k0, k1] = key
  for (let round = 0; round < 10; round++) {
    const next0 = (highWord(0xcd9e8d57, c2) ^ c1 ^ k0) >>> 0
    const next2 = (highWord(0xd2511f53, c0) ^ c3 ^ k1) >>> 0
    c1 = Math.imul(0xcd9e8d57, c2) >>> 0
    c3 = Math.imul(0xd2511f53, c0) >>> 0
    c0 = next0
    c2 = next2
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  return [c0, c1, c2, c3]
}

/** Low and high 32-bit word of an integer seed as a 64-bit two's complement number. */
export const seedWords = (seed: number): [number, number] => [seed >>> 0, Math.floor(seed / 0x100000000) >>> 0]

/** Random words addressed by (seed, stream, step, element): element i is word i % 4 of block floor(i / 4). */
export function philoxWords(seed: number, stream: number, step: number): (element: number) => number {
  const key = seedWords(seed)
  let block = -1
  let words: readonly number[] = []
  return (element) => {
    const wanted = Math.floor(element / 4)
    if (wanted !== block) {
      block = wanted
      words = philox([block >>> 0, step >>> 0, stream >>> 0, 0], key)
    }
    return words[element % 4]!
  }
}

/** A word as a uniform number in [0, 1) with 24 bits. */
export const uniformOf = (word: number): number => (word >>> 8) * 2 ** -24

/** The largest f32 below a number. */
function f32Below(value: number): number {
  const rounded = Math.fround(value)
  if (rounded < value) return rounded
  const scratch = new Float32Array([rounded])
  const bits = new Int32Array(scratch.buffer)
  if (rounded === 0) bits[0] = 0x80000001 | 0
  else bits[0]! += rounded > 0 ? -1 : 1
  return scratch[0]!
}

const checkStream = (c: Call, n: number, seed: number, stream: number): void => {
  c.whole("n", n)
  c.whole("seed", seed, Number.MIN_SAFE_INTEGER)
  c.whole("stream", stream, 0, 0xffffffff)
}

/** Kernels that draw random numbers; results are rounded to f32 on every backend, float64 ones too. */
export const randomKernels = (define: Define): Pick<RequiredKernels, "dropout" | "randomUniform" | "randomNormal"> => ({
  dropout: define("dropout", (c, out, x, p, n, seed, stream, step, first) => {
    checkStream(c, n, seed, stream)
    c.whole("step", step, 0, 0xffffffff)
    c.whole("first", first)
    c.require(p >= 0 && p <= 1, "p", `must be in [0, 1], not ${p}`)
    const source = c.float("x", x, n)
    const target = c.floatOut("out", out, n)
    const word = philoxWords(seed, stream, step)
    const factor = 1 / (1 - p)
    for (let i = 0; i < n; i++) target[i] = uniformOf(word(first + i)) >= p ? source[i]! * factor : 0
  }),

  randomUniform: define("randomUniform", (c, out, low, high, n, seed, stream) => {
    checkStream(c, n, seed, stream)
    c.finite("low", low)
    c.finite("high", high)
    c.require(low <= high, "low", `${low} is above high ${high}`)
    const target = c.floatOut("out", out, n)
    const word = philoxWords(seed, stream, 0)
    const top = f32Below(high)
    for (let i = 0; i < n; i++) {
      const value = Math.fround(low + (high - low) * uniformOf(word(i)))
      // Rounding to f32 must not reach the open end.
      target[i] = value >= high && low < high ? top : value
    }
  }),

  randomNormal: define("randomNormal", (c, out, mean, std, n, seed, stream) => {
    checkStream(c, n, seed, stream)
    c.finite("mean", mean)
    c.finite("std", std)
    const target = c.floatOut("out", out, n)
    const word = philoxWords(seed, stream, 0)
    for (let i = 0; i < n; i += 2) {
      // Box and Muller 1958; the + 1 keeps the logarithm finite.
      const u1 = ((word(i) >>> 8) + 1) * 2 ** -24
      const angle = 2 * Math.PI * uniformOf(word(i + 1))
      const radius = Math.sqrt(-2 * Math.log(u1))
      target[i] = Math.fround(mean + std * radius * Math.cos(angle))
      if (i + 1 < n) target[i + 1] = Math.fround(mean + std * radius * Math.sin(angle))
    }
  }),
})
