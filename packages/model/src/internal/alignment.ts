import { utf8Length } from "./byte-level.ts"

/** For each UTF-16 unit of a changed text, the range of the original it came from. */
export interface Alignment {
  readonly starts: Int32Array
  readonly ends: Int32Array
}

/** A base character with its marks, or a run of conjoining Hangul letters: what Unicode normalization may change as one. */
const cluster = /[\u1100-\u11ff\ua960-\ua97f\ud7b0-\ud7ff]+|\P{M}\p{M}*|\p{M}+/gsu

/**
 * Aligns a normalized text with its original by normalizing cluster after cluster. Where that does not give the whole (a normalizer that looks further),
 * the part that differs is mapped as one.
 */
export const alignNormalized = (
  original: string,
  normalized: string,
  prefix: string,
  normalizeCluster: (text: string) => string,
): Alignment => {
  const starts = new Int32Array(normalized.length)
  const ends = new Int32Array(normalized.length)
  let at = normalized.startsWith(prefix) ? prefix.length : 0
  ends.fill(Math.min(original.length, String.fromCodePoint(original.codePointAt(0) ?? 0).length), 0, at)
  let exact = true
  for (const match of original.matchAll(cluster)) {
    const part = normalizeCluster(match[0])
    if (!normalized.startsWith(part, at)) {
      exact = false
      break
    }
    // Same length means unit for unit; this keeps marks that were not composed apart from their base.
    const sameLength = part.length === match[0].length
    for (let k = 0; k < part.length; k++) {
      starts[at + k] = match.index + (sameLength ? k : 0)
      ends[at + k] = match.index + (sameLength ? k + 1 : match[0].length)
    }
    at += part.length
  }
  if (exact && at === normalized.length) return { starts, ends }

  const shorter = Math.min(original.length, normalized.length)
  let head = 0
  while (head < shorter && original[head] === normalized[head]) head++
  let tail = 0
  while (tail < shorter - head && original.at(-1 - tail) === normalized.at(-1 - tail)) tail++
  for (let i = 0; i < normalized.length; i++) {
    const shift = original.length - normalized.length
    if (i < head) {
      starts[i] = i
      ends[i] = i + 1
    } else if (i >= normalized.length - tail) {
      starts[i] = i + shift
      ends[i] = i + shift + 1
    } else {
      starts[i] = head
      ends[i] = original.length - tail
    }
  }
  return { starts, ends }
}

/**
 * Ranges in a source text for runs of bytes of the piece that was cut from it. The piece may have a character in front that the source lacks
 * (a space added by the pre-tokenizer), and may spell characters differently (space as U+2581, bytes in the byte alphabet).
 */
export const pieceRanges = (
  source: string,
  from: number,
  to: number,
  piece: string,
  byteLevel: boolean,
  units: readonly number[],
): (readonly [start: number, end: number])[] => {
  // starts[u], ends[u]: the source range of byte u of the piece
  const starts: number[] = []
  const ends: number[] = []
  const sourceChars = Array.from(source.slice(from, to))
  const sizes: number[] = []
  let extra = 0
  if (byteLevel) {
    for (const c of sourceChars) sizes.push(utf8Length(c.codePointAt(0)!))
    extra = piece.length - sizes.reduce((a, b) => a + b, 0)
  } else {
    const pieceChars = [...piece]
    const added = pieceChars.length - sourceChars.length
    pieceChars.forEach((c, i) => {
      const size = utf8Length(c.codePointAt(0)!)
      if (i < added) extra += size
      else sizes.push(size)
    })
    if (added < 0) extra = -1
  }
  if (extra < 0) return units.map(() => [from, to])
  // What was added in front counts as part of the first character, as in the library: an empty range would belong to no span.
  for (let u = 0; u < extra; u++) {
    starts.push(from)
    ends.push(from + (sourceChars[0]?.length ?? 0))
  }
  let at = from
  sourceChars.forEach((c, i) => {
    for (let u = 0; u < sizes[i]!; u++) {
      starts.push(at)
      ends.push(at + c.length)
    }
    at += c.length
  })
  let u = 0
  return units.map((n) => {
    const range = [starts[u] ?? to, ends[u + n - 1] ?? to] as const
    u += n
    return range
  })
}
