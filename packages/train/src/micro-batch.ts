import { packBestFit } from "@sloth/data"
import { SequenceLayout, type KnownSpan, type Segment } from "@sloth/tensor"
import type { TrainingUnit } from "./objective.ts"

/** How the units of an optimizer step are put into micro-batches. */
export interface SplitOptions {
  /** Most tokens in a micro-batch; a longer unit gets one of its own. */
  readonly tokenBudget: number
  /** False runs one unit at a time. */
  readonly packing: boolean
}

/**
 * Splits units into micro-batches, by best fit within the token budget. Returns indices; the same input gives the same split.
 */
export const splitUnits = (units: readonly TrainingUnit[], options: SplitOptions): number[][] => {
  if (!options.packing) return units.map((_, i) => [i])
  const long = units.flatMap((unit, i) => (unit.tokens.length > options.tokenBudget ? [[i]] : []))
  // Empty lengths are left out by the packer, so long units do not come twice.
  const lengths = units.map((unit) => (unit.tokens.length > options.tokenBudget ? 0 : unit.tokens.length))
  return [...long, ...packBestFit(lengths, options.tokenBudget)]
}

/** Packed units, ready for one pass. */
export interface MicroBatch<Unit extends TrainingUnit = TrainingUnit> {
  readonly units: readonly Unit[]
  readonly layout: SequenceLayout
  /** int32 `[tokens]`. */
  readonly tokens: Int32Array
  /** Rows that predict, int32 `[scored]`. */
  readonly rows: Int32Array
  /** int32 `[scored]`. */
  readonly targets: Int32Array
  /** Rows that predict anything, ascending and each once: `read[at[i]]` is `rows[i]`. */
  readonly read: Int32Array
  readonly at: Int32Array
  /** First scored position of each unit, and their number at the end. */
  readonly starts: readonly number[]
  /** Rows that an earlier pass has computed. */
  readonly known: readonly KnownSpan[]
}

/** The known rows of a micro-batch; `later` are the micro-batches of the step that come after it. */
export const knownSpans = (batch: MicroBatch, later: readonly MicroBatch[]): KnownSpan[] =>
  batch.known.map((span) => ({
    ...span,
    last: !later.some(({ known }) => known.some((other) => other.known === span.known)),
  }))

/** Puts units one after the other. */
export const buildMicroBatch = <Unit extends TrainingUnit>(units: readonly Unit[]): MicroBatch<Unit> => {
  const tokens = new Int32Array(units.reduce((n, u) => n + u.tokens.length, 0))
  const scored = units.reduce((n, u) => n + u.targets.length, 0)
  const rows = new Int32Array(scored)
  const targets = new Int32Array(scored)
  const segments: Segment[] = []
  const starts = [0]
  const known: KnownSpan[] = []
  let row = 0
  let position = 0
  for (const unit of units) {
    const firstSegment = segments.length
    let start = row
    for (const { length, parent } of unit.segments) {
      segments.push({ start, length, parent: parent === null ? null : firstSegment + parent })
      start += length
    }
    tokens.set(unit.tokens, row)
    targets.set(unit.targets, position)
    if (unit.prefix !== undefined)
      known.push({
        known: unit.prefix.known,
        from: unit.prefix.from,
        first: row,
        count: unit.prefix.rows,
        last: false,
      })
    for (let i = 0; i < unit.scoredRows.length; i++) rows[position + i] = row + unit.scoredRows[i]!
    row += unit.tokens.length
    position += unit.targets.length
    starts.push(position)
  }
  const read = Int32Array.from(new Set(rows)).sort()
  const place = new Int32Array(tokens.length)
  for (const [i, r] of read.entries()) place[r] = i
  return {
    units,
    layout: new SequenceLayout(segments),
    tokens,
    rows,
    targets,
    read,
    at: rows.map((r) => place[r]!),
    starts,
    known,
  }
}
