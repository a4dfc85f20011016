import { SlothError } from "@sloth/core"
import { byteToChar } from "./internal/byte-level.ts"
import { preRule } from "./internal/gguf-pre.ts"
import { nativeParts } from "./internal/native-tokenizers.ts"
import type { TokenizerJson } from "./internal/tokenizer-json.ts"

/** Settings of {@link trainTokenizer}. */
export interface TrainTokenizerOptions {
  /** Number of ids wanted, special tokens and the 256 bytes included. Fewer come out where the texts have no more pairs to join. */
  readonly vocabSize: number
  /** Tokens with an id of their own that text is never cut into; they get the first ids, in this order. */
  readonly specialTokens?: readonly string[]
  /** A pair is joined only if it occurs at least this often. Default 2. */
  readonly minFrequency?: number
}

interface Word {
  readonly symbols: number[]
  readonly count: number
}

interface Candidate {
  readonly left: number
  readonly right: number
  count: number
}

/** More frequent first; of equals the pair with the smaller ids, so that the result never depends on the order of maps. */
const before = (a: Candidate, b: Candidate): boolean =>
  a.count !== b.count ? a.count > b.count : a.left !== b.left ? a.left < b.left : a.right < b.right

class CandidateHeap {
  private readonly items: Candidate[] = []

  push(item: Candidate): void {
    const { items } = this
    let i = items.length
    items.push(item)
    while (i > 0) {
      const parent = (i - 1) >> 1
      if (!before(item, items[parent]!)) break
      items[i] = items[parent]!
      i = parent
    }
    items[i] = item
  }

  pop(): Candidate | undefined {
    const { items } = this
    const top = items[0]
    const last = items.pop()
    if (top === undefined || last === undefined || items.length === 0) return top
    let i = 0
    for (;;) {
      let child = 2 * i + 1
      if (child >= items.length) break
      if (child + 1 < items.length && before(items[child + 1]!, items[child]!)) child++
      if (!before(items[child]!, last)) break
      items[i] = items[child]!
      i = child
    }
    items[i] = last
    return top
  }
}

/** Counts of neighbouring pairs with the words they occur in. */
class PairIndex {
  private readonly stride: number
  private readonly counts = new Map<number, number>()
  private readonly places = new Map<number, Set<number>>()

  constructor(stride: number) {
    this.stride = stride
  }

  key(left: number, right: number): number {
    return left * this.stride + right
  }

  add(left: number, right: number, count: number, word: number): void {
    const key = this.key(left, right)
    this.counts.set(key, (this.counts.get(key) ?? 0) + count)
    if (count < 0) return
    const place = this.places.get(key)
    if (place === undefined) this.places.set(key, new Set([word]))
    else place.add(word)
  }

  count(left: number, right: number): number {
    return this.counts.get(this.key(left, right)) ?? 0
  }

  takePlaces(left: number, right: number): number[] {
    const key = this.key(left, right)
    const list = [...(this.places.get(key) ?? [])]
    this.places.delete(key)
    this.counts.delete(key)
    return list
  }

  candidates(): Candidate[] {
    return [...this.counts].map(([key, count]) => ({
      left: Math.floor(key / this.stride),
      right: key % this.stride,
      count,
    }))
  }
}

/** Replaces a pair by its joined symbol in one word and reports how the neighbouring pairs changed. */
const joinInWord = (
  symbols: number[],
  left: number,
  right: number,
  joined: number,
  changed: (left: number, right: number, by: 1 | -1) => void,
): void => {
  for (let i = 0; i + 1 < symbols.length; i++) {
    if (symbols[i] !== left || symbols[i + 1] !== right) continue
    const previous = symbols[i - 1]
    const next = symbols[i + 2]
    if (previous !== undefined) {
      changed(previous, left, -1)
      changed(previous, joined, 1)
    }
    if (next !== undefined) {
      changed(right, next, -1)
      changed(joined, next, 1)
    }
    symbols.splice(i, 2, joined)
  }
}

const rule = preRule("smollm")

const countWords = (texts: Iterable<string>): Map<string, number> => {
  const preTokenizer = nativeParts(null, rule.preTokenizer, null).preTokenizer!
  const words = new Map<string, number>()
  for (const text of texts) {
    if (text === "") continue
    for (const [piece] of preTokenizer.preTokenizeString(text)) words.set(piece, (words.get(piece) ?? 0) + 1)
  }
  return words
}

/**
 * Trains a byte-level BPE tokenizer and returns its tokenizer.json. Digits stand alone and the rest is cut as in GPT-2, the way GGUF calls `smollm`.
 * The same texts and settings give the same file, byte for byte.
 *
 * The library's own trainer is not used: its npm binding takes no vocabulary size and reads line by line, so that it never sees a blank line.
 *
 * **Errors**: `SLOTH_TOKENIZER_TRAIN` where the vocabulary has no room for bytes and special tokens, or a special token is empty or repeated.
 * **Source**: Sennrich et al. 2016, algorithm 1; order of equal pairs as in tokenizers 0.23 `models/bpe/trainer.rs`.
 */
export const trainTokenizer = (texts: Iterable<string>, options: TrainTokenizerOptions): string => {
  const special = options.specialTokens ?? []
  const minFrequency = Math.max(1, options.minFrequency ?? 2)
  const first = special.length + 256
  if (options.vocabSize < first || new Set(special).size !== special.length || special.includes("")) {
    throw new SlothError("SLOTH_TOKENIZER_TRAIN", {
      what: `A vocabulary of ${options.vocabSize} cannot hold 256 bytes and the special tokens ${JSON.stringify(special)}.`,
      next: `Ask for at least ${first} ids, and give every special token once.`,
      fields: { vocabSize: options.vocabSize, specialTokens: special },
    })
  }
  const vocab = new Map<string, number>()
  const tokens: string[] = []
  const addToken = (token: string): number => {
    const known = vocab.get(token)
    if (known !== undefined) return known
    const id = tokens.length
    tokens.push(token)
    vocab.set(token, id)
    return id
  }
  for (const token of special) addToken(token)
  for (const c of [...byteToChar].sort()) addToken(c)

  const words: Word[] = [...countWords(texts)].map(([piece, count]) => ({
    symbols: Array.from(piece, (c) => vocab.get(c)!),
    count,
  }))
  const pairs = new PairIndex(options.vocabSize)
  for (const [w, { symbols, count }] of words.entries()) {
    for (let i = 0; i + 1 < symbols.length; i++) pairs.add(symbols[i]!, symbols[i + 1]!, count, w)
  }
  const heap = new CandidateHeap()
  for (const candidate of pairs.candidates()) heap.push(candidate)

  const merges: [string, string][] = []
  while (tokens.length < options.vocabSize) {
    const best = heap.pop()
    if (best === undefined) break
    const count = pairs.count(best.left, best.right)
    if (count !== best.count) {
      // The count fell since the entry was made; put it back at its true place.
      if (count > 0) heap.push({ ...best, count })
      continue
    }
    if (count < minFrequency) break
    const left = tokens[best.left]!
    const right = tokens[best.right]!
    const joined = addToken(left + right)
    merges.push([left, right])
    const touched = new Map<number, readonly [number, number]>()
    for (const w of pairs.takePlaces(best.left, best.right)) {
      const word = words[w]!
      joinInWord(word.symbols, best.left, best.right, joined, (a, b, by) => {
        if (a === best.left && b === best.right) return
        pairs.add(a, b, by * word.count, w)
        if (by > 0) touched.set(pairs.key(a, b), [a, b])
      })
    }
    for (const [a, b] of touched.values()) heap.push({ left: a, right: b, count: pairs.count(a, b) })
  }

  const json: TokenizerJson = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: rule.preTokenizer,
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: rule.ignoreMerges,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges,
    },
  }
  return `${JSON.stringify(json)}\n`
}
