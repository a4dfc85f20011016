import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import * as Schema from "effect/Schema"
import { CONFIG_FILE_NAMES, field, fileError, SlothError, withDefault } from "@sloth/core"
import { defineCommand } from "../command.ts"
import { shortPath } from "../export-lines.ts"
import { sampleData } from "../sample-data.ts"

const DATA = join("data", "train.jsonl")

/** The configuration that `init` writes; the import is a type only, so the file works without an installed package. */
const configText = (typescript: boolean): string => {
  const body = `{
  // Plugins by name or path, loaded from this project: "my-sloth-plugin", "./my-plugin.ts".
  plugins: [],
  // What \`sloth train\` does without flags; a flag wins over what stands here. \`sloth train --help\` lists all settings.
  train: {
    model: "nano",
    data: "data/train.jsonl",
    steps: 60,
    batch: 8,
    learningRate: 2e-3,
    rank: 16,
    alpha: 32,
  },
}`
  return typescript
    ? `import type { ProjectConfig } from "@sloth/sloth"\n\nexport default ${body} satisfies ProjectConfig\n`
    : `/** @type {import("@sloth/sloth").ProjectConfig} */\nexport default ${body}\n`
}

const write = (path: string, text: string): void => {
  try {
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, text)
  } catch (error) {
    throw fileError(error, path, "write")
  }
}

/** True where this runtime can import a TypeScript file. */
const readsTypeScript = (): boolean =>
  process.versions["bun"] !== undefined || "Deno" in globalThis || "typescript" in process.features

/** `sloth init`. */
export const command = defineCommand({
  name: "init",
  summary: "Write sloth.config.ts and sample data into this folder.",
  description:
    "Writes a configuration and a small data set to start from: after it, `sloth train` works without flags. Where the runtime cannot read TypeScript the configuration is sloth.config.mjs. Nothing is overwritten unless --force.",
  session: false,
  positionals: [{ name: "folder", description: "Where to write; this folder when absent." }],
  options: Schema.Struct({
    force: field.boolean({ description: "Overwrite what is there." }).pipe(withDefault(false)),
  }),
  examples: [
    { command: "sloth init", description: "start here" },
    { command: "sloth init my-model && cd my-model && sloth train", description: "start in a new folder and train" },
  ],
  run: async (input) => {
    const { terminal } = input
    const folder = resolve(input.cwd, input.positionals[0] ?? ".")
    const typescript = readsTypeScript()
    const config = join(folder, typescript ? "sloth.config.ts" : "sloth.config.mjs")
    const data = join(folder, DATA)
    const there = [...CONFIG_FILE_NAMES.map((name) => join(folder, name)), data].filter((path) => existsSync(path))
    if (there.length > 0 && !input.options.force)
      throw new SlothError("SLOTH_INIT_EXISTS", {
        what: `${there.map(shortPath).join(" and ")} ${there.length === 1 ? "is" : "are"} there already.`,
        next: "Use --force to overwrite, or another folder.",
        fields: { paths: there },
      })
    write(config, configText(typescript))
    write(data, sampleData())
    const at = folder === input.cwd ? "" : `cd ${shortPath(folder)} && `
    terminal.print(`${terminal.style.green("✓")} ${shortPath(config)}`)
    terminal.print(`${terminal.style.green("✓")} ${shortPath(data)}`)
    terminal.print(terminal.style.dim("next:"))
    terminal.print(`  ${at}sloth plan`)
    terminal.print(`  ${at}sloth train`)
  },
})
