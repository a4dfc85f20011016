import type { Spread } from "./stats.ts"

/** A bar that a figure is held against. */
export interface Bar {
  readonly must: number
  readonly aim?: number
  /** True where less is better, such as memory. */
  readonly below?: boolean
}

/** One measured line of the report. */
export interface Figure {
  /** "machine", "kernels", "train", ... */
  readonly section: string
  /** Lines that stand together. */
  readonly group: string
  readonly name: string
  /** What was measured, in `unit`. */
  readonly value: Spread
  readonly unit: string
  /** The number that bars are about: a fraction of the limit, or a ratio to a peer. */
  readonly score?: number
  /** What the score is: "of f32 peak", "x llama.cpp". */
  readonly scoreOf?: string
  readonly bar?: Bar
  /** Place in the roofline plot. */
  readonly roof?: { readonly flopsPerByte: number; readonly flopsPerSecond: number; readonly series: string }
  readonly note?: string
}

/** A line that could not be measured, and why. */
export interface Missing {
  readonly section: string
  readonly group: string
  readonly name: string
  readonly missing: string
}

export type Line = Figure | Missing

export type Status = "aim" | "must" | "below" | "none"

/** How a figure stands to its bar. */
export const statusOf = (line: Line): Status => {
  if ("missing" in line || line.bar === undefined || line.score === undefined || Number.isNaN(line.score)) return "none"
  const { must, aim, below } = line.bar
  const reaches = (bar: number) => (below === true ? line.score! <= bar : line.score! >= bar)
  return aim !== undefined && reaches(aim) ? "aim" : reaches(must) ? (aim === undefined ? "aim" : "must") : "below"
}

/** The limits that were measured, in operations and bytes per second by threads. */
export interface MachineReport {
  readonly processor: string
  readonly system: string
  readonly runtime: string
  readonly memoryBytes: number
  readonly isa: string
  readonly isas: readonly string[]
  readonly threads: number
  readonly loadAtStart: readonly number[]
  /** Measured limits by kind: f32, int8, bf16, read. */
  readonly limits: Readonly<
    Record<string, { readonly instructions: string; readonly byThreads: Readonly<Record<number, Spread>> }>
  >
}

/** Everything a run of the harness found. */
export interface Report {
  readonly started: string
  readonly seconds: number
  readonly command: string
  readonly commit: string | undefined
  readonly machine: MachineReport
  readonly lines: readonly Line[]
}
