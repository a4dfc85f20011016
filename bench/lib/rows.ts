/** A row of token ids with the tokens that are learnt. */
export interface Row {
  readonly tokens: readonly number[]
  readonly mask: readonly number[]
}

/** Reproducible token ids of SmolLM2's vocabulary (the formula that the Python peer uses too). */
export const tokenIds = (row: number, length: number, vocab = 49152): number[] =>
  Array.from({ length }, (_, k) => ((row * 7919 + k * k * 31 + k * 101) % (vocab - 20)) + 17)

/** `rows` rows of equal length, every token scored. */
export const evenRows = (rows: number, length: number, vocab?: number): Row[] =>
  Array.from({ length: rows }, (_, r) => ({
    tokens: tokenIds(r, length, vocab),
    mask: Array<number>(length).fill(1),
  }))

/**
 * Rows as an instruction set has them: lengths of a log-normal distribution (median 180, a tenth above 500) cut to `longest`, the first third to two thirds of each row is the question and not
 * scored. The numbers come from a fixed congruential generator, so they are the same everywhere.
 */
export const instructionRows = (rows: number, longest: number, vocab?: number): Row[] => {
  let state = 12345
  const uniform = (): number => {
    state = (state * 1103515245 + 12345) % 2147483648
    return (state + 0.5) / 2147483648
  }
  return Array.from({ length: rows }, (_, r) => {
    const normal = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())
    const length = Math.max(24, Math.min(longest, Math.round(180 * Math.exp(0.8 * normal))))
    const question = Math.round(length * (1 / 3 + uniform() / 3))
    return { tokens: tokenIds(r, length, vocab), mask: Array.from({ length }, (_, i) => (i < question ? 0 : 1)) }
  })
}
