/** One line of the parity table. */
export type Check =
  | {
      readonly what: string
      readonly value: string
      readonly bar: string
      readonly ok: boolean
      /** True for a bar that cannot be reached and is missed for the reason in the note: it is counted as missed, not as failed. */
      readonly known?: boolean
      readonly note?: string
    }
  | { readonly what: string; readonly skipped: string }

/** A figure that must not exceed its bar. */
export const atMost = (what: string, value: number, bar: number, unit = "", note?: string): Check => ({
  what,
  value: `${value.toExponential(2)}${unit}`,
  bar: `≤ ${bar}${unit}`,
  ok: value <= bar,
  ...(note === undefined ? {} : { note }),
})

/** A figure that is above its bar by its nature: printed as a miss with its reason, counted apart; below the bar it is reached like any other. */
export const missed = (what: string, value: number, bar: number, unit: string, note?: string): Check => {
  const check = atMost(what, value, bar, unit, note)
  return "ok" in check && !check.ok && Number.isFinite(value) ? { ...check, known: true } : check
}

/** Something that must be exactly so. */
export const exactly = (what: string, value: string, bar: string, note?: string): Check => ({
  what,
  value,
  bar,
  ok: value === bar,
  ...(note === undefined ? {} : { note }),
})

/** What a parity section works with. */
export interface ParityContext {
  readonly quick: boolean
  readonly threads: number
  readonly add: (check: Check) => void
  readonly say: (text: string) => void
}
