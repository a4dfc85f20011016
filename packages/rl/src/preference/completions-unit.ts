import type { LogprobBatch, TrainingUnit, UnitSegment } from "@sloth/train"

/** A whole text, prompt and completion, with the tokens of the completion that count. */
export interface ScoredText {
  /** int32 `[tokens]`. */
  readonly tokens: Int32Array
  /** 1 where the token belongs to the completion and is scored, uint8 `[tokens]`; the first is never scored. */
  readonly scored: Uint8Array
}

/** Completions of one prompt as a forest: what the texts begin with in common is computed once. */
export interface CompletionsUnit extends TrainingUnit {
  /** Scored positions of each completion in the order of its tokens, relative to the unit's first position. */
  readonly completions: readonly Int32Array[]
  /** Positions of the prompt's tokens; empty unless asked for. */
  readonly prompt: Int32Array
}

/** Index of the first scored token; the length where there is none. */
const firstScored = ({ tokens, scored }: ScoredText): number => {
  const at = scored.indexOf(1)
  return at < 0 ? tokens.length : at
}

/**
 * Puts texts that share their prompt into one unit. The shared part ends before the first scored token of any of them, so that each completion keeps positions of its
 * own; rows after the last token that predicts something are left out. With `scorePrompt` the prompt of the first text is predicted too.
 */
export const completionsUnit = (
  texts: readonly ScoredText[],
  row: number,
  options: { readonly scorePrompt?: boolean } = {},
): CompletionsUnit => {
  let shared = texts.length === 1 ? 0 : Math.min(...texts.map(firstScored))
  for (const { tokens } of texts.slice(1)) {
    let same = 0
    while (same < shared && tokens[same] === texts[0]!.tokens[same]) same++
    shared = same
  }
  const ends = texts.map(({ scored }) => scored.lastIndexOf(1))
  const segments: UnitSegment[] = shared > 0 ? [{ length: shared, parent: null }] : []
  const rows: Int32Array[] = shared > 0 ? [texts[0]!.tokens.subarray(0, shared)] : []
  const starts: number[] = []
  let start = shared
  for (const [i, { tokens }] of texts.entries()) {
    starts.push(start)
    // The last scored token predicts nothing, so it needs no row.
    const own = tokens.subarray(shared, Math.max(shared, ends[i]!))
    if (own.length === 0) continue
    segments.push({ length: own.length, parent: shared > 0 ? 0 : null })
    rows.push(own)
    start += own.length
  }

  /** Row that predicts token `t` of text `i`. */
  const rowOf = (i: number, t: number): number => (t <= shared ? t - 1 : starts[i]! + t - 1 - shared)
  const entries: { row: number; target: number; text: number; prompt: boolean }[] = []
  for (const [i, { tokens, scored }] of texts.entries())
    for (let t = 1; t <= ends[i]!; t++) {
      const isPrompt = scored[t] === 0
      if (isPrompt && (i > 0 || options.scorePrompt !== true)) continue
      entries.push({ row: rowOf(i, t), target: tokens[t]!, text: i, prompt: isPrompt })
    }
  entries.sort((a, b) => a.row - b.row || a.text - b.text)
  const positions = (wanted: (e: (typeof entries)[number]) => boolean): Int32Array =>
    Int32Array.from(entries.flatMap((e, p) => (wanted(e) ? [p] : [])))

  const tokens = new Int32Array(start)
  let at = 0
  for (const part of rows) {
    tokens.set(part, at)
    at += part.length
  }
  return {
    tokens,
    segments,
    scoredRows: Int32Array.from(entries, (e) => e.row),
    targets: Int32Array.from(entries, (e) => e.target),
    sourceTokens: texts.reduce((n, text) => n + text.tokens.length, 0),
    row,
    completions: texts.map((_, i) => positions((e) => e.text === i && !e.prompt)),
    prompt: positions((e) => e.prompt),
  }
}

/** The log-probs of a list of positions of a unit, in doubles. */
export const pick = (values: Float32Array, start: number, positions: Int32Array): Float64Array =>
  Float64Array.from(positions, (p) => values[start + p]!)

/** Log-probs of completion `k` of each unit of a micro-batch; `reference` where the batch has it. */
export const completionLogprobs = (
  batch: LogprobBatch<CompletionsUnit>,
  k: number,
): { readonly policy: Float64Array; readonly reference?: Float64Array }[] =>
  batch.units.map(({ completions }, u) => {
    const policy = pick(batch.logprobs, batch.starts[u]!, completions[k]!)
    return batch.reference === undefined
      ? { policy }
      : { policy, reference: pick(batch.reference, batch.starts[u]!, completions[k]!) }
  })

/** Adds gradients of some positions of unit `u` into the gradient of the micro-batch. */
export const putGradient = (
  dlogp: Float64Array,
  start: number,
  positions: Int32Array,
  gradient: Float64Array | number,
): void => {
  for (let k = 0; k < positions.length; k++)
    dlogp[start + positions[k]!]! += typeof gradient === "number" ? gradient : gradient[k]!
}
