/**
 * Puts measured figures into docs/benchmarks.md, between its marks: `bun bench/write-docs.ts <bench.json>... [--parity <parity.json>]`. Of several reports the later ones replace the sections
 * they have in common with earlier ones.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type { Check } from "./lib/check.ts"
import { root } from "./lib/child.ts"
import { statusOf, type Line, type Report } from "./lib/figures.ts"
import { barText, groupsOf, scoreText, short, spreadText, statusText, TITLES } from "./lib/format.ts"
import { text } from "./lib/options.ts"
import { median } from "./lib/stats.ts"

const cell = (s: string): string => s.replaceAll("|", "\\|")

const tableRow = (line: Line): string =>
  "missing" in line
    ? `| ${cell(line.name)} | ${cell(line.missing)} | | | |`
    : `| ${cell(line.name)}${line.note === undefined ? "" : ` (${cell(line.note)})`} | ${short(line.value.median)} ${line.unit} ${spreadText(line)} | ${scoreText(line)} | ${barText(line)} | ${statusText[statusOf(line)]} |`

const HEAD = "| | measured | score | bar | |\n| --- | --- | --- | --- | --- |"

/** Kernel groups in one row each: worst and middle of their fractions. */
const kernelTable = (lines: readonly Line[]): string =>
  [
    "| kernel | cases | middle | worst | bar of the worst | |\n| --- | --- | --- | --- | --- | --- |",
    ...groupsOf(lines).map(({ group, lines: all, worst }) => {
      if (worst === undefined || "missing" in worst) return `| ${cell(group)} | ${all.length} | not measured | | | |`
      const scores = all.flatMap((l) => ("missing" in l || l.score === undefined ? [] : [l.score]))
      const middle = { ...worst, score: median(scores) }
      return `| ${cell(group)} | ${scores.length} | ${scoreText(middle)} | ${scoreText(worst)}: ${cell(worst.name)} | ${barText(worst)} | ${statusText[statusOf(worst)]} |`
    }),
  ].join("\n")

const parityPath = text("parity")
const paths = process.argv.slice(2).filter((a, i, all) => !a.startsWith("--") && all[i - 1] !== "--parity")
const reports = paths.map((p) => JSON.parse(readFileSync(p, "utf8")) as Report)
if (reports.length === 0) {
  console.error("Usage: bun bench/write-docs.ts <bench.json>... [--parity <parity.json>]")
  process.exit(2)
}
const bySection = new Map<string, { report: Report; lines: Line[] }>()
for (const report of reports)
  for (const section of new Set(report.lines.map((l) => l.section)))
    bySection.set(section, { report, lines: report.lines.filter((l) => l.section === section) })

const out: string[] = []
for (const [section, title] of Object.entries(TITLES)) {
  const found = bySection.get(section)
  if (found === undefined) continue
  const { machine, started, command } = found.report
  out.push(
    `### ${title}`,
    `${machine.processor}, ${machine.isa}, ${machine.threads} threads, ${started.slice(0, 10)}, load ${machine.loadAtStart[0]!.toFixed(1)} at the start: \`${command}\``,
  )
  if (section === "kernels") out.push(kernelTable(found.lines))
  else
    for (const { group, lines } of groupsOf(found.lines))
      out.push(`**${group}**`, [HEAD, ...lines.map(tableRow)].join("\n"))
}
if (parityPath !== undefined) {
  const checks = JSON.parse(readFileSync(parityPath, "utf8")) as Check[]
  out.push(
    "### Parity",
    "`bun run parity`",
    [
      "| compared | measured | bar | |\n| --- | --- | --- | --- |",
      ...checks.map((c) =>
        "skipped" in c
          ? `| ${cell(c.what)} | ${cell(c.skipped)} | | skipped |`
          : `| ${cell(c.what)} | ${cell(c.value)} | ${cell(c.bar)} | ${c.ok ? "reached" : c.known === true ? `missed: ${cell(c.note ?? "")}` : "MISSED"} |`,
      ),
    ].join("\n"),
  )
}
const page = join(root, "docs/benchmarks.md")
const [open, close] = ["<!-- figures -->", "<!-- /figures -->"]
const old = readFileSync(page, "utf8")
const [from, to] = [old.indexOf(open), old.indexOf(close)]
if (from < 0 || to < from) {
  console.error(`${page} has lost its marks ${open} and ${close}`)
  process.exit(1)
}
writeFileSync(page, `${old.slice(0, from + open.length)}\n\n${out.join("\n\n")}\n\n${old.slice(to)}`)
