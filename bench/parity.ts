/**
 * `bun run parity`: compares Sloth with transformers + PEFT + TRL, llama.cpp and itself, prints a table, and exits with 1 when something fails. A bar that no
 * 16-bit arithmetic reaches is printed as a miss with its parts and counted apart.
 *
 *   --only tiny,smollm2,grpo,steps,threads,preference,exports,kill   parts (all)
 *   --quick                                          fewer texts, steps and kills
 *   --threads N, --json FILE
 */
import { writeFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import type { Check, ParityContext } from "./lib/check.ts"
import { flag, number, text } from "./lib/options.ts"
import { exports_ } from "./parity/exports.ts"
import { smollm2, tiny } from "./parity/golden.ts"
import { grpo } from "./parity/grpo.ts"
import { kill, killOnline } from "./parity/kill.ts"
import { preference } from "./parity/preference.ts"
import { steps, threadsEqual } from "./parity/steps.ts"

const PARTS: Readonly<Record<string, (context: ParityContext) => Promise<void>>> = {
  tiny,
  smollm2,
  grpo,
  steps,
  threads: threadsEqual,
  preference,
  exports: exports_,
  kill: async (context) => {
    await kill(context)
    await killOnline(context)
  },
}
if (flag("help")) {
  console.log(`bun run parity [options]: Sloth against transformers, PEFT, TRL and llama.cpp; the largest differences beside their bars

  --only ${Object.keys(PARTS).join(",")}   parts (all)
  --quick            fewer texts, steps and kills
  --threads N        threads (all cores)
  --json F           also writes the table`)
  process.exit(0)
}
const wanted = text("only")?.split(",") ?? Object.keys(PARTS)
const unknown = wanted.filter((p) => PARTS[p] === undefined)
if (unknown.length > 0) {
  console.error(`No part ${unknown.join(", ")}. Parts: ${Object.keys(PARTS).join(", ")}.`)
  process.exit(2)
}
const checks: Check[] = []
const progress = process.stderr.isTTY === true
const say = (message: string): void => {
  if (progress) process.stderr.write(`\r\u001B[K${message.slice(0, (process.stderr.columns ?? 80) - 1)}`)
}
const add = (check: Check): void => {
  say("")
  checks.push(check)
  if ("skipped" in check) console.log(`skip  ${check.what.padEnd(88)} ${check.skipped}`)
  else
    console.log(
      `${check.ok ? "ok  " : check.known === true ? "miss" : "FAIL"}  ${check.what.padEnd(88)} ${check.value.padEnd(26)} ${check.bar}${check.note === undefined ? "" : `  (${check.note})`}`,
    )
}
const context: ParityContext = { quick: flag("quick"), threads: number("threads", availableParallelism()), add, say }
for (const part of wanted)
  try {
    await PARTS[part]!(context)
  } catch (error) {
    add({ what: part, value: String((error as Error).message), bar: "no error", ok: false })
  }
const json = text("json")
if (json !== undefined) writeFileSync(json, `${JSON.stringify(checks, null, 2)}\n`)
const failed = checks.filter((c) => !("skipped" in c) && !c.ok && c.known !== true).length
const known = checks.filter((c) => "known" in c && c.known === true).length
const skipped = checks.filter((c) => "skipped" in c).length
console.log(
  `\n${checks.length - failed - known - skipped} reached, ${failed} failed${known > 0 ? `, ${known} missed for the reason beside them` : ""}${skipped > 0 ? `, ${skipped} skipped` : ""}`,
)
process.exit(failed > 0 ? 1 : 0)
