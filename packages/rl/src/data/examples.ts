import type { ScoredText } from "../preference/completions-unit.ts"

/** A pair of completions of one prompt, tokenised. */
export interface PreferenceExample {
  readonly chosen: ScoredText
  readonly rejected: ScoredText
  /** A third completion that is learnt as it is, for TPO. */
  readonly gold?: ScoredText
  /** Summed log-probs (nats) of the completions under a reference, where the row brings them. */
  readonly reference?: { readonly chosen: number; readonly rejected: number }
  /** By how much the chosen completion should be the better one, for reward models; 0 when absent. */
  readonly margin?: number
  /** Row of the data set, from 0. */
  readonly row: number
}

/** A completion that was rated good or bad, tokenised. */
export interface RatedExample {
  readonly text: ScoredText
  readonly desirable: boolean
  /** Summed log-prob (nats) of the completion under a reference, where the row brings it. */
  readonly reference?: number
  /** Row of the data set, from 0. */
  readonly row: number
}

/** A prompt with the steps of a solution, each rated right or wrong, tokenised. */
export interface StepsExample {
  /** int32 `[tokens]`. */
  readonly tokens: Int32Array
  /** The last token of each step, int32 `[steps]`, ascending, never 0. */
  readonly ends: Int32Array
  /** True for a right step, `[steps]`. */
  readonly labels: readonly boolean[]
  /** Row of the data set, from 0. */
  readonly row: number
}
