/** Writes the committed data sets: `bun packages/nano/scripts/write-data.ts`. Deterministic: running it again changes nothing. */
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"
import { generateQuickstart } from "../src/generate/quickstart.ts"
import { generateTasks } from "../src/generate/tasks.ts"
import { nanoFiles } from "../src/files.ts"

const files = nanoFiles()
const write = (path: string, rows: readonly object[]): void => {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, rows.map((r) => `${JSON.stringify(r)}\n`).join(""))
  console.log(`${rows.length} rows  ${path}`)
}

write(files.quickstart, generateQuickstart({ rows: 480 }))
write(files.quickstartHeldOut, generateQuickstart({ rows: 60, heldOut: true }))
const tasks = generateTasks({ rows: 1000 })
write(files.rl, tasks)
write(
  files.rlHeldOut,
  generateTasks({ seed: 12, rows: 200, exclude: new Set(tasks.map((t) => t.prompt[0]?.content as string)) }),
)
