import { statusOf, type Line, type Status } from "./figures.ts"
import { relativeSpread } from "./stats.ts"

/** A number with three significant digits, or none behind the point where it is large, or a power of ten where it is tiny. */
export const short = (x: number): string => {
  const size = Math.abs(x)
  if (!Number.isFinite(x)) return "-"
  if (x !== 0 && size < 1e-3) return x.toExponential(1)
  return x.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2)
}

/** The score of a line as people read it: shares in percent, ratios with their unit. */
export const scoreText = (line: Line): string => {
  if ("missing" in line || line.score === undefined) return ""
  const of = line.scoreOf ?? ""
  if (of === "off") return `${(line.score * 100).toFixed(1)} % ${of}`
  if (of.startsWith("of ")) return `${(line.score * 100).toFixed(line.score < 0.1 ? 1 : 0)} % ${of}`
  return `${short(line.score)} ${of}`.trim()
}

/** The bar of a line in the same words. */
export const barText = (line: Line): string => {
  if ("missing" in line || line.bar === undefined) return ""
  const percent = line.scoreOf === "off" || line.scoreOf?.startsWith("of ") === true
  const one = (x: number) => (percent ? `${+(x * 100).toFixed(1)} %` : `${x}`)
  const sign = line.bar.below === true ? "≤" : "≥"
  return `${sign} ${one(line.bar.must)}${line.bar.aim === undefined ? "" : `, aim ${one(line.bar.aim)}`}`
}

/** What the status of a line is called. */
export const statusText: Readonly<Record<Status, string>> = {
  aim: "aim reached",
  must: "bar reached",
  below: "BELOW",
  none: "",
}

/** "±4 %" of repeated measurements. */
export const spreadText = (line: Line): string =>
  "missing" in line || line.value.samples < 2 ? "" : `±${(100 * relativeSpread(line.value)).toFixed(0)} %`

/** Lines of a group as one with the smallest score named; groups of fewer than `from` lines stay as they are. */
export interface Summary {
  readonly group: string
  readonly lines: readonly Line[]
  /** The line with the worst score. */
  readonly worst: Line | undefined
}

/** Lines by group, in the order of their first appearance. */
export const groupsOf = (lines: readonly Line[]): Summary[] => {
  const groups = new Map<string, Line[]>()
  for (const line of lines) groups.set(line.group, [...(groups.get(line.group) ?? []), line])
  return [...groups].map(([group, all]) => {
    const scored = all.flatMap((l) => ("missing" in l || l.score === undefined ? [] : [l]))
    const worst = scored.reduce<(typeof scored)[number] | undefined>(
      (w, l) => (w === undefined || l.score! < w.score! ? l : w),
      undefined,
    )
    return { group, lines: all, worst }
  })
}

/** One line of the text table. */
export const textLine = (line: Line): string =>
  "missing" in line
    ? `  ${line.name.padEnd(58)} ${line.missing}`
    : `  ${line.name.padEnd(58)} ${short(line.value.median).padStart(8)} ${line.unit.padEnd(9)} ${spreadText(line).padEnd(7)} ${scoreText(line).padEnd(24)} ${barText(line).padEnd(22)} ${statusText[statusOf(line)]}${line.note === undefined ? "" : `  (${line.note})`}`.trimEnd()

/** Headings of the sections, in the order of reports. */
export const TITLES: Readonly<Record<string, string>> = {
  machine: "The machine's limits",
  kernels: "Kernels as fractions of the limits",
  train: "Training",
  generate: "Generation",
  grpo: "Reinforcement learning",
  start: "Start-up",
  budget: "Memory budgets",
  context: "Long context",
  contention: "A second process",
  endurance: "Long runs",
}
