/**
 * Philox4x32-10: 128 counter bits and 64 key bits in, 128 random bits out, no state.
 * Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; constants as in Random123.
 */
export const philox = (
  c0: number,
  c1: number,
  c2: number,
  c3: number,
  k0: number,
  k1: number,
  out: Uint32Array,
): Uint32Array => {
  for (let round = 0; round < 10; round++) {
    const h0 = mulHigh(0xd2511f53, c0)
    const l0 = Math.imul(0xd2511f53, c0) >>> 0
    const h1 = mulHigh(0xcd9e8d57, c2)
    const l1 = Math.imul(0xcd9e8d57, c2) >>> 0
    c0 = (h1 ^ c1 ^ k0) >>> 0
    c1 = l1
    c2 = (h0 ^ c3 ^ k1) >>> 0
    c3 = l0
    k0 = (k0 + 0x9e3779b9) >>> 0
    k1 = (k1 + 0xbb67ae85) >>> 0
  }
  out[0] = c0
  out[1] = c1
  out[2] = c2
  out[3] = c3
  return out
}

/** Upper 32 bits of the product of two 32-bit numbers, by 16-bit halves: every sum stays below 2^53. */
const mulHigh = (a: number, b: number): number => {
  const ah = a >>> 16
  const al = a & 0xffff
  const bh = b >>> 16
  const bl = b & 0xffff
  const middle = ah * bl + Math.floor((al * bl) / 0x10000)
  const low = al * bh + (middle % 0x10000)
  return ah * bh + Math.floor(middle / 0x10000) + Math.floor(low / 0x10000)
}

/** Draws whole numbers below a bound, without bias, from the Philox stream addressed by (seed, stream, step). */
export class PhiloxStream {
  readonly #k0: number
  readonly #k1: number
  readonly #stream: number
  readonly #step: number
  readonly #block = new Uint32Array(4)
  #next = 4
  #index = 0

  constructor(seed: number, stream: number, step: number) {
    this.#k0 = seed >>> 0
    this.#k1 = Math.floor(seed / 0x1_0000_0000) >>> 0
    this.#stream = stream
    this.#step = step
  }

  #word(): number {
    if (this.#next === 4) {
      const high = Math.floor(this.#index / 0x1_0000_0000)
      philox(this.#index >>> 0, high >>> 0, this.#step >>> 0, this.#stream >>> 0, this.#k0, this.#k1, this.#block)
      this.#index += 1
      this.#next = 0
    }
    return this.#block[this.#next++] as number
  }

  /** A number from 0 to `bound` - 1, each equally likely: words over the largest multiple of the bound are drawn again. */
  below(bound: number): number {
    const limit = 0x1_0000_0000 - (0x1_0000_0000 % bound)
    let word = this.#word()
    while (word >= limit) word = this.#word()
    return word % bound
  }
}
