/**
 * Runs all tests, one process for each package, two at a time, and ends with one line: `N passed, N failed` (`, N skipped` where some were).
 * `bun run test <words>` runs only the packages or files whose path contains one of the words.
 */
import { spawn } from "node:child_process"
import { readdirSync } from "node:fs"
import { join, relative } from "node:path"

const root = join(import.meta.dirname, "..")
const words = process.argv.slice(2)

const testFiles = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap((e) =>
    e.isDirectory()
      ? ["node_modules", "dist", "build"].includes(e.name) || e.name.startsWith(".")
        ? []
        : testFiles(join(folder, e.name))
      : e.name.endsWith(".test.ts")
        ? [join(folder, e.name)]
        : [],
  )

/** Files of one package run in one process; what crosses packages runs file by file. */
const groups = new Map<string, string[]>()
for (const file of ["packages", "plugins", "tests", "examples"].flatMap((d) => testFiles(join(root, d)))) {
  const path = relative(root, file)
  if (words.length > 0 && !words.some((w) => path.includes(w))) continue
  const parts = path.split("/")
  const key = parts[0] === "packages" || parts[0] === "plugins" ? parts.slice(0, 2).join("/") : path
  groups.set(key, [...(groups.get(key) ?? []), path])
}

interface Outcome {
  readonly passed: number
  readonly failed: number
  readonly skipped: number
}

const run = (key: string, files: readonly string[]): Promise<Outcome> =>
  new Promise((resolve) => {
    const started = performance.now()
    const child = spawn(process.execPath, ["test", "--timeout", "120000", ...files.map((f) => `./${f}`)], {
      cwd: root,
      env: { ...process.env, FORCE_COLOR: "0" },
    })
    let output = ""
    child.stdout.on("data", (d: Buffer) => (output += d.toString()))
    child.stderr.on("data", (d: Buffer) => (output += d.toString()))
    child.on("close", (code, signal) => {
      const count = (word: string) => Number(new RegExp(`^\\s*(\\d+) ${word}$`, "m").exec(output)?.[1] ?? 0)
      const passed = count("pass")
      // A process that died before its summary counts as a failure, whatever had passed.
      const failed = Math.max(count("fail"), code === 0 ? 0 : 1)
      const skipped = count("skip") + count("todo")
      const seconds = ((performance.now() - started) / 1000).toFixed(1)
      console.log(
        `${failed > 0 ? "FAIL" : "ok  "} ${key.padEnd(44)} ${passed} passed${failed > 0 ? `, ${failed} failed` : ""}${skipped > 0 ? `, ${skipped} skipped` : ""}  ${seconds} s`,
      )
      if (failed > 0) console.log(`${output.slice(-12000)}\n${signal === null ? "" : `ended by ${signal}`}`)
      else for (const line of new Set(output.split("\n"))) if (line.startsWith("(skip)")) console.log(`     ${line}`)
      resolve({ passed, failed, skipped })
    })
  })

const queue = [...groups]
const outcomes: Outcome[] = []
await Promise.all(
  [0, 1].map(async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) outcomes.push(await run(...next))
  }),
)
const total = (key: keyof Outcome) => outcomes.reduce((n, o) => n + o[key], 0)
const [passed, failed, skipped] = [total("passed"), total("failed"), total("skipped")]
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`)
process.exit(failed > 0 || passed === 0 ? 1 : 0)
