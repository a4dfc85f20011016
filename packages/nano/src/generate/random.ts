/** A small seeded random source (sfc32, Chris Doty-Humphrey's PractRand generator): equal seeds give equal text on every machine. */
export class Random {
  #a: number
  #b: number
  #c: number
  #counter = 1

  constructor(seed: number, stream = 0) {
    this.#a = seed >>> 0
    this.#b = Math.floor(seed / 4294967296) >>> 0
    this.#c = stream >>> 0
    // the first outputs of a sparse state are related to the seed: throw them away
    for (let k = 0; k < 16; k++) this.bits()
  }

  /** 32 random bits as an unsigned integer. */
  bits(): number {
    const t = (((this.#a + this.#b) | 0) + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + t
    this.#c |= 0
    return t >>> 0
  }

  /** A number in [0, 1). */
  unit(): number {
    return this.bits() / 4294967296
  }

  /** An integer from `low` to `high`, both included. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.unit() * (high - low + 1))
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.unit() < p
  }

  /** One item of a list that is not empty. */
  pick<T>(items: readonly T[]): T {
    const item = items[Math.floor(this.unit() * items.length)]
    if (item === undefined) throw new RangeError("pick needs a list that is not empty")
    return item
  }

  /** `count` different items in random order (all of them when the list is shorter). */
  sample<T>(items: readonly T[], count: number): T[] {
    const pool = [...items]
    const n = Math.min(count, pool.length)
    for (let k = 0; k < n; k++) {
      const j = this.integer(k, pool.length - 1)
      const held = pool[k] as T
      pool[k] = pool[j] as T
      pool[j] = held
    }
    return pool.slice(0, n)
  }

  /** The same items in random order. */
  shuffle<T>(items: readonly T[]): T[] {
    return this.sample(items, items.length)
  }

  /** One key of a table of weights, with probability in proportion to its weight. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const keys = Object.keys(weights) as K[]
    let total = 0
    for (const k of keys) total += weights[k]
    let x = this.unit() * total
    for (const k of keys) {
      x -= weights[k]
      if (x < 0) return k
    }
    return keys[keys.length - 1] as K
  }
}
