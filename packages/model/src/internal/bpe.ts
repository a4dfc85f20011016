import { utf8Length } from "./byte-level.ts"
import { tokenizerError, type BpeJson } from "./tokenizer-json.ts"

/** Ids of a piece and how many of the piece's units each covers. A unit is a byte of the piece's text. */
export interface BpeResult {
  readonly ids: readonly number[]
  readonly units: readonly number[]
}

/** Below this many symbols a plain scan for the best pair is faster than a heap. */
const scanLimit = 24
const cacheLimit = 65_536
const cachedPieceLength = 64

/**
 * The merging step of byte-pair encoding, synchronous: the native library offers it only as a promise.
 * Ids are those of the native library; the tests compare the two.
 *
 * **Source**: Sennrich et al. 2016; behaviour on unknown characters as in tokenizers 0.23 `models/bpe/model.rs`.
 */
export class Bpe {
  private readonly vocab: ReadonlyMap<string, number>
  private readonly model: BpeJson
  private readonly byteLevel: boolean
  private readonly cache = new Map<string, BpeResult>()
  /** Rank of a pair, keyed by left * stride + right. Built on first use: decoding alone never needs it. */
  private ranks: Map<number, number> | undefined
  private merged: number[] = []
  private stride = 0

  /** `byteLevel`: pieces are already in the byte alphabet, so one character is one byte. */
  constructor(model: BpeJson, vocab: ReadonlyMap<string, number>, byteLevel: boolean) {
    this.model = model
    this.vocab = vocab
    this.byteLevel = byteLevel
  }

  /** Splits one pre-tokenized piece into ids. */
  encode(piece: string): BpeResult {
    const known = this.cache.get(piece)
    if (known !== undefined) return known
    const result = this.encodeUncached(piece)
    if (piece.length <= cachedPieceLength) {
      if (this.cache.size >= cacheLimit) this.cache.clear()
      this.cache.set(piece, result)
    }
    return result
  }

  private unitsOf(codePoint: number): number {
    return this.byteLevel ? 1 : utf8Length(codePoint)
  }

  private buildRanks(): Map<number, number> {
    const ranks = new Map<number, number>()
    const prefix = this.model.continuing_subword_prefix?.length ?? 0
    let stride = 0
    for (const id of this.vocab.values()) stride = Math.max(stride, id + 1)
    for (const [i, [left, right]] of this.model.merges.entries()) {
      const a = this.vocab.get(left)
      const b = this.vocab.get(right)
      const c = this.vocab.get(left + right.slice(prefix))
      if (a === undefined || b === undefined || c === undefined) {
        throw tokenizerError(
          "JSON",
          `tokenizer.json: merge ${i} (${JSON.stringify(left)} + ${JSON.stringify(right)}) uses a token that the vocab lacks.`,
          "Download or export the tokenizer again.",
          { index: i, left, right },
        )
      }
      ranks.set(a * stride + b, i)
      this.merged[i] = c
    }
    this.stride = stride
    this.ranks = ranks
    return ranks
  }

  private encodeUncached(piece: string): BpeResult {
    if (this.model.ignore_merges) {
      const id = this.vocab.get(piece)
      if (id !== undefined) {
        let units = 0
        for (const c of piece) units += this.unitsOf(c.codePointAt(0)!)
        return { ids: [id], units: [units] }
      }
    }
    const ids: number[] = []
    const units: number[] = []
    this.symbols(piece, ids, units)
    const ranks = this.ranks ?? this.buildRanks()
    if (ids.length > scanLimit) this.mergeWithHeap(ids, units, ranks)
    else this.mergeByScan(ids, units, ranks)
    return { ids, units }
  }

  /** Fills the starting symbols: one a character, bytes or the unknown token where the vocab lacks the character. */
  private symbols(piece: string, ids: number[], units: number[]): void {
    const { continuing_subword_prefix: prefix, end_of_word_suffix: suffix, unk_token: unkToken } = this.model
    const unk = unkToken === null ? undefined : this.vocab.get(unkToken)
    const chars = [...piece]
    let fusable = false
    for (const [i, c] of chars.entries()) {
      let symbol = c
      if (prefix !== null && i > 0) symbol = prefix + symbol
      if (suffix !== null && i === chars.length - 1) symbol += suffix
      const id = this.vocab.get(symbol)
      const size = this.unitsOf(c.codePointAt(0)!)
      if (id !== undefined) {
        ids.push(id)
        units.push(size)
        fusable = false
        continue
      }
      const bytes = this.model.byte_fallback ? this.fallback(symbol) : undefined
      if (bytes !== undefined) {
        for (const b of bytes) {
          ids.push(b)
          units.push(1)
        }
        fusable = false
      } else if (unk !== undefined) {
        if (fusable && this.model.fuse_unk) units[units.length - 1]! += size
        else {
          ids.push(unk)
          units.push(size)
        }
        fusable = true
      }
    }
  }

  private fallback(symbol: string): number[] | undefined {
    const ids: number[] = []
    for (const b of Buffer.from(symbol)) {
      const id = this.vocab.get(`<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`)
      if (id === undefined) return undefined
      ids.push(id)
    }
    return ids
  }

  private mergeByScan(ids: number[], units: number[], ranks: ReadonlyMap<number, number>): void {
    const stride = this.stride
    for (;;) {
      let best = Infinity
      let at = -1
      for (let i = 0; i + 1 < ids.length; i++) {
        const rank = ranks.get(ids[i]! * stride + ids[i + 1]!)
        if (rank !== undefined && rank < best) {
          best = rank
          at = i
        }
      }
      if (at < 0) return
      ids[at] = this.merged[best]!
      units[at]! += units[at + 1]!
      ids.splice(at + 1, 1)
      units.splice(at + 1, 1)
    }
  }

  /** Same result as the scan: the lowest rank first, the leftmost of equals. */
  private mergeWithHeap(ids: number[], units: number[], ranks: ReadonlyMap<number, number>): void {
    const stride = this.stride
    const count = ids.length
    const next = Int32Array.from({ length: count }, (_, i) => (i + 1 < count ? i + 1 : -1))
    const previous = Int32Array.from({ length: count }, (_, i) => i - 1)
    const gone = new Uint8Array(count)
    // Heap of rank * count + position: one number orders by rank, then by position.
    const heap: number[] = []
    const push = (left: number): void => {
      const right = left < 0 ? -1 : next[left]!
      if (right < 0) return
      const rank = ranks.get(ids[left]! * stride + ids[right]!)
      if (rank === undefined) return
      const key = rank * count + left
      let i = heap.length
      heap.push(key)
      while (i > 0) {
        const parent = (i - 1) >> 1
        if (heap[parent]! <= key) break
        heap[i] = heap[parent]!
        i = parent
      }
      heap[i] = key
    }
    const pop = (): number => {
      const top = heap[0]!
      const last = heap.pop()!
      if (heap.length > 0) {
        let i = 0
        for (;;) {
          let child = 2 * i + 1
          if (child >= heap.length) break
          if (child + 1 < heap.length && heap[child + 1]! < heap[child]!) child++
          if (heap[child]! >= last) break
          heap[i] = heap[child]!
          i = child
        }
        heap[i] = last
      }
      return top
    }
    for (let i = 0; i + 1 < count; i++) push(i)
    while (heap.length > 0) {
      const key = pop()
      const left = key % count
      const rank = (key - left) / count
      const right = next[left]!
      // An entry is stale when either side has been merged since it was pushed.
      if (gone[left] === 1 || right < 0 || ranks.get(ids[left]! * stride + ids[right]!) !== rank) continue
      ids[left] = this.merged[rank]!
      units[left]! += units[right]!
      gone[right] = 1
      const after = next[right]!
      next[left] = after
      if (after >= 0) previous[after] = left
      push(previous[left]!)
      push(left)
    }
    let kept = 0
    for (let i = 0; i < count; i++) {
      if (gone[i] === 1) continue
      ids[kept] = ids[i]!
      units[kept] = units[i]!
      kept++
    }
    ids.length = kept
    units.length = kept
  }
}
