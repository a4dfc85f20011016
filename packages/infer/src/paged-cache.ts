import { SlothError } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import { bytesFor, weightFormat, type Engine, type Tensor, type WeightFormat } from "@sloth/tensor"

/** How keys and values are kept: exact, in half the memory, or in a good quarter of it (blocks of 32 with 8 bits each). */
export type KvCacheFormat = "f32" | "f16" | "q8_0"

/** The formats that `kvCache` takes. */
export const KV_CACHE_FORMATS: readonly KvCacheFormat[] = ["f32", "f16", "q8_0"]

/** One text in the cache: the blocks that hold its keys and values. */
export interface CachedSequence {
  /** Block numbers in order of positions. */
  readonly blocks: number[]
  /** Tokens whose keys and values are written. */
  length: number
}

/** What a pass reads and writes of a cache. */
export type CacheMemory = Pick<PagedCache, "blockSize" | "format" | "version" | "layer">

/**
 * Keys and values of many texts in fixed blocks, so that memory is never fragmented and texts with a common beginning share it. It grows on demand up to `maxTokens`.
 * Source: PagedAttention, Kwon et al. 2023.
 */
export class PagedCache implements Disposable {
  readonly engine: Engine
  readonly blockSize: number
  readonly maxTokens: number
  readonly format: WeightFormat
  /** Of every layer, once for each model. */
  readonly #widths: readonly number[]
  readonly #layers: number
  #keys: Tensor[] = []
  #values: Tensor[] = []
  #blocks = 0
  #version = 0
  #free: number[] = []
  /** How many sequences use each block. */
  #users: number[] = []

  /** `twin` keeps what a second model of the same shape says of the same texts, in the same blocks. Errors: SLOTH_GENERATE_KV_CACHE for a format that is unknown or does not fit the model's heads. */
  constructor(
    model: CausalLM,
    options: {
      readonly maxTokens: number
      readonly blockSize?: number
      readonly format?: KvCacheFormat
      readonly twin?: boolean
    },
  ) {
    const wanted = options.format ?? "f32"
    if (!KV_CACHE_FORMATS.includes(wanted))
      throw new SlothError("SLOTH_GENERATE_KV_CACHE", {
        what: `The cache cannot be kept as ${JSON.stringify(wanted)}.`,
        next: `Choose one of ${KV_CACHE_FORMATS.join(", ")}.`,
        fields: { format: wanted },
      })
    this.format = weightFormat(wanted)
    const odd = model.cache.find((l) => l.headDim % this.format.blockSize !== 0)
    if (odd !== undefined)
      throw new SlothError("SLOTH_GENERATE_KV_CACHE", {
        what: `The cache cannot be kept as ${wanted}: the model's heads have ${odd.headDim} channels.`,
        why: `${wanted} stores whole blocks of ${this.format.blockSize}.`,
        next: "Choose f16.",
        fields: { format: wanted, headDim: odd.headDim },
      })
    this.engine = model.engine
    this.blockSize = options.blockSize ?? 16
    this.maxTokens = options.maxTokens
    const widths = model.cache.map((l) => l.kvHeads * l.headDim)
    this.#layers = widths.length
    this.#widths = options.twin === true ? [...widths, ...widths] : widths
  }

  /** Bytes of keys and values a token takes. */
  get bytesPerToken(): number {
    return this.#widths.reduce((a, w) => a + 2 * bytesFor(this.format, w), 0)
  }

  /** Changes when the cache moves to other memory. */
  get version(): number {
    return this.#version
  }

  /** Tokens that could still be written. */
  get freeTokens(): number {
    return (this.#most - this.#blocks + this.#free.length) * this.blockSize
  }

  /** Bytes that the cache has allocated. */
  get bytes(): number {
    return this.#blocks * this.blockSize * this.bytesPerToken
  }

  /** Bytes allocated once `tokens` tokens are held, with the room to grow that is taken along. */
  bytesFor(tokens: number): number {
    let blocks = 0
    while (blocks * this.blockSize < tokens && blocks < this.#most) blocks = this.#grown(blocks)
    return blocks * this.blockSize * this.bytesPerToken
  }

  get #most(): number {
    return Math.floor(this.maxTokens / this.blockSize)
  }

  #grown(blocks: number): number {
    return Math.min(this.#most, Math.max(blocks * 2, 16))
  }

  /** Keys and values of a layer, [blocks, blockSize, kvHeads · headDim] in the cache's format. */
  layer(i: number): { keys: Tensor; values: Tensor } {
    return { keys: this.#keys[i]!, values: this.#values[i]! }
  }

  /** The keys and values of the second model, where there is one: the same blocks in other memory. */
  get twin(): CacheMemory {
    return new CacheTwin(this, this.#layers)
  }

  #grow(blocks: number): void {
    const most = this.#most
    if (blocks > most)
      throw new SlothError("SLOTH_GENERATE_CACHE", {
        what: `The cache for keys and values is full: ${blocks * this.blockSize} tokens are needed, ${most * this.blockSize} allowed.`,
        next: "Generate fewer texts at a time, shorter ones, or allow a larger cache.",
        fields: { needed: blocks * this.blockSize, allowed: most * this.blockSize },
      })
    const size = this.#grown(this.#blocks)
    const larger = (old: Tensor | undefined, width: number): Tensor => {
      const t = this.engine.unscoped([size, this.blockSize, width], this.format.id)
      if (old !== undefined) {
        this.engine.backend.kernels.copy(t.handle, old.handle, bytesFor(this.format, old.size))
        old.dispose()
      }
      return t
    }
    this.#keys = this.#widths.map((w, i) => larger(this.#keys[i], w))
    this.#values = this.#widths.map((w, i) => larger(this.#values[i], w))
    this.#version++
    for (let b = size - 1; b >= this.#blocks; b--) this.#free.push(b)
    this.#blocks = size
  }

  #take(): number {
    if (this.#free.length === 0) this.#grow(this.#blocks + 1)
    const block = this.#free.pop()!
    this.#users[block] = 1
    return block
  }

  /** A new, empty text. */
  create(): CachedSequence {
    return { blocks: [], length: 0 }
  }

  /** Whether there is room for `tokens` more tokens. */
  fits(sequence: CachedSequence, tokens: number): boolean {
    const blocks = Math.ceil((sequence.length + tokens) / this.blockSize) - sequence.blocks.length
    return blocks * this.blockSize <= this.freeTokens
  }

  /** Makes room for `tokens` more tokens. */
  reserve(sequence: CachedSequence, tokens: number): void {
    const needed = Math.ceil((sequence.length + tokens) / this.blockSize)
    while (sequence.blocks.length < needed) sequence.blocks.push(this.#take())
  }

  /** A second text with the same `length` first tokens, all of them when absent: whole blocks are shared, an unfinished one is copied. */
  fork(sequence: CachedSequence, length: number = sequence.length): CachedSequence {
    const whole = Math.floor(length / this.blockSize)
    const child: CachedSequence = { blocks: sequence.blocks.slice(0, whole), length }
    for (const b of child.blocks) this.#users[b]!++
    if (length % this.blockSize !== 0) {
      const from = sequence.blocks[whole]!
      const to = this.#take()
      child.blocks.push(to)
      for (const [i, width] of this.#widths.entries())
        for (const t of [this.#keys[i]!, this.#values[i]!]) {
          const bytes = this.blockSize * bytesFor(this.format, width)
          const { memory, kernels } = this.engine.backend
          const source = memory.view(t.handle, from * bytes, bytes)
          const target = memory.view(t.handle, to * bytes, bytes)
          kernels.copy(target, source, bytes)
          memory.free(source)
          memory.free(target)
        }
    }
    return child
  }

  /** Forgets the tokens from position `length` on; the blocks stay with the text. */
  truncate(sequence: CachedSequence, length: number): void {
    // A block that another text shares must not be written by this one.
    const kept = Math.ceil(length / this.blockSize)
    for (const b of sequence.blocks.splice(kept)) this.#drop(b)
    sequence.length = length
    const last = sequence.blocks.at(-1)
    if (last !== undefined && length % this.blockSize !== 0 && this.#users[last]! > 1) {
      const own = this.fork(sequence)
      for (const b of sequence.blocks) this.#drop(b)
      sequence.blocks.splice(0, sequence.blocks.length, ...own.blocks)
    }
  }

  /** Gives a text's blocks back. */
  release(sequence: CachedSequence): void {
    for (const b of sequence.blocks) this.#drop(b)
    sequence.blocks.length = 0
    sequence.length = 0
  }

  #drop(block: number): void {
    if (--this.#users[block]! === 0) this.#free.push(block)
  }

  [Symbol.dispose](): void {
    for (const t of [...this.#keys, ...this.#values]) t.dispose()
    this.#keys = []
    this.#values = []
    this.#blocks = 0
    this.#free = []
    this.#users = []
  }
}

/** The second half of a cache for two models. */
class CacheTwin implements CacheMemory {
  readonly blockSize: number
  readonly format: WeightFormat
  readonly #cache: PagedCache
  readonly #first: number

  constructor(cache: PagedCache, first: number) {
    this.blockSize = cache.blockSize
    this.format = cache.format
    this.#cache = cache
    this.#first = first
  }

  get version(): number {
    return this.#cache.version
  }

  layer(i: number): { keys: Tensor; values: Tensor } {
    return this.#cache.layer(this.#first + i)
  }
}
