/**
 * `bun run bench`: the machine's limits, every kernel as a fraction of them, whole jobs against peers. See docs/benchmarks.md.
 *
 *   --only machine,kernels,train,generate,grpo,start,budget,contention,endurance,context,forecast   sections (default: the first six)
 *   --filter WORD      only groups of kernels, training and generation whose name has the word
 *   --quick            small shapes, few repetitions: does everything once in a few minutes
 *   --rounds N         times each competitor runs (3)
 *   --threads N        threads of every competitor (all cores)
 *   --context N        tokens of the section "context" (32768)
 *   --json F, --html F files to write (default: bench/results/<time>.json and .html)
 */
import { execFileSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { dirname, join } from "node:path"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { root } from "./lib/child.ts"
import type { BenchContext } from "./lib/context.ts"
import { statusOf, type Line, type Report } from "./lib/figures.ts"
import { groupsOf, scoreText, statusText, textLine } from "./lib/format.ts"
import { flag, number, text, typed } from "./lib/options.ts"
import { Peaks } from "./lib/peaks.ts"
import { reportHtml } from "./lib/report-html.ts"
import { budget, forecast, longContext } from "./sections/budget.ts"
import { contention } from "./sections/contention.ts"
import { endurance } from "./sections/endurance.ts"
import { generate } from "./sections/generate.ts"
import { grpo } from "./sections/grpo.ts"
import { kernels } from "./sections/kernels.ts"
import { machine } from "./sections/machine.ts"
import { start } from "./sections/start.ts"
import { train } from "./sections/train.ts"

const SECTIONS: Readonly<Record<string, (context: BenchContext) => Promise<void>>> = {
  kernels,
  train,
  generate,
  grpo,
  start,
  budget,
  contention,
  endurance,
  forecast,
  context: (context) => longContext(context, number("context", context.quick ? 2048 : 32768)),
}
const USUAL = ["machine", "kernels", "train", "generate", "start", "budget"]

const USAGE = `bun run bench [options]: the machine's limits, every kernel as a fraction of them, whole jobs against peers

  --only ${[...USUAL, ...Object.keys(SECTIONS).filter((s) => !USUAL.includes(s))].join(",")}   sections (default: the first ${USUAL.length})
  --filter WORD      only groups of kernels, training and generation whose name has the word
  --quick            small shapes, few repetitions: does everything once in a few minutes
  --rounds N         times each competitor runs (3)
  --threads N        threads of every competitor (all cores)
  --context N        tokens of the section "context" (32768)
  --json F, --html F files to write (default: bench/results/<time>.json and .html)

  bun run bench --only kernels --filter attention
  bun run bench --only train,generate --rounds 1     # peers: bun run bench:peers`
if (flag("help")) {
  console.log(USAGE)
  process.exit(0)
}
const KNOWN = ["only", "filter", "quick", "rounds", "threads", "context", "json", "html", "help"]
const strange = process.argv.slice(2).find((word) => word.startsWith("--") && !KNOWN.includes(word.slice(2)))
if (strange !== undefined) {
  console.error(`There is no option ${strange}.\n\n${USAGE}`)
  process.exit(2)
}

const wanted = (text("only") ?? USUAL.join(",")).split(",")
const unknown = wanted.filter((s) => s !== "machine" && SECTIONS[s] === undefined)
if (unknown.length > 0) {
  console.error(`No section ${unknown.join(", ")}. Sections: machine, ${Object.keys(SECTIONS).join(", ")}.`)
  process.exit(2)
}
const filter = text("filter")
const started = new Date()
const threads = number("threads", availableParallelism())
const lines: Line[] = []
let printed = 0
const progress = process.stderr.isTTY === true
const say = (message: string): void => {
  if (!progress) {
    if (message !== "") console.error(`- ${message}`)
  } else process.stderr.write(`\r\u001B[K${message.slice(0, (process.stderr.columns ?? 80) - 1)}`)
}
const clear = (): void => say("")

using peaks = await Peaks.open()
const precisions = await (async () => {
  using backend = await createCpuBackend({ threads: 1 })
  return backend.device.precisions
})()
const context: BenchContext = {
  peaks,
  threads,
  quick: flag("quick"),
  rounds: number("rounds", flag("quick") ? 1 : 3),
  precisions,
  filter,
  add: (line) => {
    // Groups of kernels come interleaved and are printed together.
    if (line.section !== "kernels" && lines.length > printed && lines.at(-1)!.group !== line.group) print()
    lines.push(line)
  },
  say,
}

/** Prints what is new, groups of many kernels in one line. */
const print = (): void => {
  clear()
  const fresh = lines.slice(printed)
  printed = lines.length
  for (const { group, lines: all, worst } of groupsOf(fresh)) {
    if (all[0]!.section !== "kernels" || all.length < 6 || worst === undefined || "missing" in worst) {
      console.log(`\n${group}`)
      for (const line of all) console.log(textLine(line))
    } else
      console.log(
        `${group.padEnd(46)} worst ${scoreText(worst).padEnd(16)} ${statusText[statusOf(worst)].padEnd(12)} ${worst.name}`,
      )
  }
}

say("machine")
const machineReport = await machine(context)
console.log(
  `${machineReport.processor}, ${machineReport.isa}, ${threads} threads, ${machineReport.runtime}; load ${machineReport.loadAtStart[0]!.toFixed(2)}`,
)
print()
for (const section of wanted) {
  if (section === "machine") continue
  await SECTIONS[section]!(context)
  print()
}

let commit: string | undefined
try {
  commit = execFileSync("git", ["rev-parse", "--short", "HEAD"], { cwd: root, encoding: "utf8" }).trim()
} catch {
  // Not a checkout.
}
const report: Report = {
  started: started.toISOString(),
  seconds: (Date.now() - started.getTime()) / 1000,
  command: `bun run bench ${typed()}`.trim(),
  commit,
  machine: machineReport,
  lines,
}
const stamp = started.toISOString().slice(0, 19).replace(/[:T]/g, "-")
const write = (option: string, extension: string, content: string): void => {
  const path = text(option) ?? join(root, "bench/results", `${stamp}.${extension}`)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, content)
  console.log(`${extension}: ${path}`)
}
const barred = lines.filter((l) => !("missing" in l) && l.bar !== undefined)
const count = (status: string) => barred.filter((l) => statusOf(l) === status).length
console.log(
  `\n${barred.length} bars: ${count("aim")} at their aim, ${count("must")} reached, ${count("below")} below; ${lines.filter((l) => "missing" in l).length} lines could not be measured`,
)
write("json", "json", `${JSON.stringify(report, null, 1)}\n`)
write("html", "html", reportHtml(report))
process.exit(0)
