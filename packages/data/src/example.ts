import type { RowOrigin } from "./rows.ts"

/** One packed-ready training sequence. */
export interface Example {
  /** Token ids, int32 `[tokens]`. */
  readonly tokens: Int32Array
  /** 1 where the token is scored as a target (predicted from those before it), uint8 `[tokens]`; the first is always 0. */
  readonly mask: Uint8Array
  /** Row it came from, from 0; the pieces of a split row share it. */
  readonly row: number
}

/** What became of the rows; all counts are over the whole data set. */
export interface DataReport {
  /** Rows read, faulty ones included. */
  readonly rows: number
  readonly examples: number
  /** Tokens of all examples. */
  readonly tokens: number
  /** Tokens that are scored. */
  readonly scoredTokens: number
  /** Tokens of the longest example. */
  readonly longest: number
  /** The limit on the length of an example, in tokens; undefined if there is none. */
  readonly maxLength: number | undefined
  /** Rows cut at the limit. */
  readonly truncated: number
  /** Tokens lost by cutting and dropping. */
  readonly tokensLost: number
  /** Rows left out because they are over the limit. */
  readonly dropped: number
  /** Rows made into several examples. */
  readonly split: number
  /** Rows without a scored token (after cutting): they teach nothing and are left out. */
  readonly unscored: number
  /** Faulty rows left out (`onBadRow: "skip"`). */
  readonly skipped: number
  /** Answers after which the template prints no end-of-turn token. */
  readonly openEnded: number
  /** First few reasons for rows left out as faulty. */
  readonly reasons: readonly { readonly origin: RowOrigin; readonly reason: string }[]
}

const count = (n: number): string => n.toLocaleString("en-US")

/** Prints a report as lines of text, the uneventful counts left out. */
export const formatReport = (report: DataReport): string => {
  const share = report.tokens === 0 ? 0 : (100 * report.scoredTokens) / report.tokens
  const limit = report.maxLength === undefined ? "" : `the limit of ${count(report.maxLength)} tokens`
  const lines = [
    `${count(report.rows)} rows -> ${count(report.examples)} examples, ${count(report.tokens)} tokens ` +
      `(${count(report.scoredTokens)} scored, ${share.toFixed(1)} %), longest ${count(report.longest)}`,
  ]
  const add = (n: number, text: string): void => {
    if (n > 0) lines.push(`  ${count(n)} ${text}`)
  }
  add(report.truncated, `rows truncated to ${limit} (${count(report.tokensLost)} tokens lost)`)
  add(report.dropped, `rows dropped for being over ${limit} (${count(report.tokensLost)} tokens lost)`)
  add(report.split, `rows split at ${limit}`)
  add(report.unscored, "rows left out because no token of them is scored")
  add(report.skipped, "faulty rows left out")
  for (const { reason } of report.reasons) lines.push(`    ${reason}`)
  add(report.openEnded, "answers end without an end-of-turn token: the model will not learn from them when to stop")
  return lines.join("\n")
}
