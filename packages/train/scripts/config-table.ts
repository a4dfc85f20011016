/**
 * Writes the tables of docs/train.md from the schema of the training configuration: `bun packages/train/scripts/config-table.ts`; with `--check` it only compares.
 */
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describeConfig } from "@sloth/core"
import { TRAIN_CONFIG_NAMES, TrainConfigSchema } from "../src/index.ts"

const page = join(import.meta.dirname, "..", "..", "..", "docs", "train.md")

const cell = (text: string): string => text.replaceAll("|", "\\|")

const shown = (value: unknown): string =>
  value === undefined ? "" : `\`${typeof value === "string" ? value : JSON.stringify(value)}\``

/** The settings with what they mean. */
const settings = (): string =>
  [
    "| key | value | default | meaning |",
    "| --- | --- | --- | --- |",
    ...describeConfig(TrainConfigSchema).map(
      (f) => `| \`${f.key}\` | ${cell(f.expected)} | ${shown(f.default)} | ${cell(f.description ?? "")} |`,
    ),
  ].join("\n")

/** The settings with their names in TRL and Unsloth. */
const names = (): string =>
  [
    "| Sloth | TRL | Unsloth | difference |",
    "| --- | --- | --- | --- |",
    ...Object.entries(TRAIN_CONFIG_NAMES).map(
      ([key, n]) => `| \`${key}\` | ${cell(n.trl ?? "")} | ${cell(n.unsloth ?? "")} | ${cell(n.note ?? "")} |`,
    ),
  ].join("\n")

/** The page with its generated parts made anew. */
export const withTables = (text: string): string => {
  let out = text
  for (const [name, table] of [
    ["settings", settings()],
    ["names", names()],
  ] as const) {
    const [start, end] = [`<!-- generated: ${name} -->`, `<!-- end: ${name} -->`]
    const [from, to] = [out.indexOf(start), out.indexOf(end)]
    if (from < 0 || to < from) throw new Error(`docs/train.md has no part "${name}".`)
    out = `${out.slice(0, from + start.length)}\n\n${table}\n\n${out.slice(to)}`
  }
  return out
}

if (import.meta.main) {
  const before = readFileSync(page, "utf8")
  const after = withTables(before)
  if (process.argv.includes("--check")) process.exit(before === after ? 0 : 1)
  writeFileSync(page, after)
}
