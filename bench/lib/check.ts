/** One line of the parity table. */
export type Check =
  | {
      readonly what: string
      readonly value: string
      readonly bar: string
      readonly ok: boolean
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
