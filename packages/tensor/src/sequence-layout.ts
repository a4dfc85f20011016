import { SlothError } from "@sloth/core"

/** A run of packed rows that attends causally to itself and fully to its ancestors. */
export interface Segment {
  /** First row. */
  readonly start: number
  /** Rows. */
  readonly length: number
  /** Index of the segment it continues, or null for the start of a text. */
  readonly parent: number | null
}

/**
 * The only notion of "batch": packed token rows as a forest of segments. There is no padding and no mask. Segments stand in row order and cover all rows;
 * a parent comes before its children. Positions count along the path from the root, so children of one prompt all continue at its end.
 */
export class SequenceLayout {
  readonly segments: readonly Segment[]
  /** Rows in all. */
  readonly tokens: number
  /** Position of each row on its path. */
  readonly positions: Int32Array
  /** (start, length, parent or -1) a segment, as kernels read it. */
  readonly table: Int32Array

  constructor(segments: readonly Segment[]) {
    let row = 0
    const ends: number[] = []
    for (const [i, s] of segments.entries()) {
      if (
        s.start !== row ||
        s.length < 1 ||
        !Number.isInteger(s.length) ||
        (s.parent !== null && !(s.parent >= 0 && s.parent < i))
      )
        throw new SlothError("SLOTH_LAYOUT_SEGMENT", {
          what: `Segment ${i} (start ${s.start}, length ${s.length}, parent ${s.parent}) does not fit: it must start at row ${row} and its parent must come before it.`,
          fields: { segment: i, ...s },
        })
      row += s.length
      ends.push((s.parent === null ? 0 : ends[s.parent]!) + s.length)
    }
    this.segments = segments
    this.tokens = row
    this.positions = new Int32Array(row)
    this.table = new Int32Array(segments.length * 3)
    for (const [i, s] of segments.entries()) {
      const first = ends[i]! - s.length
      for (let j = 0; j < s.length; j++) this.positions[s.start + j] = first + j
      this.table.set([s.start, s.length, s.parent ?? -1], i * 3)
    }
  }

  /** Independent texts one after the other. */
  static fromLengths(lengths: readonly number[]): SequenceLayout {
    let start = 0
    return new SequenceLayout(
      lengths.map((length) => {
        const segment = { start, length, parent: null }
        start += length
        return segment
      }),
    )
  }

  /** Longest path, in tokens. */
  get maxLength(): number {
    let max = 0
    for (const p of this.positions) if (p >= max) max = p + 1
    return max
  }
}
