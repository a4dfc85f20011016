import type { FieldDescription } from "@sloth/core"
import type { CliCommand } from "./command.ts"
import type { CommandEntry } from "./commands/index.ts"
import { flagGroups } from "./flags.ts"
import type { Style } from "./terminal/terminal.ts"
import { columns, wrapText } from "./terminal/text.ts"

const valueWord = (field: FieldDescription): string => {
  switch (field.type) {
    case "boolean":
      return ""
    case "integer":
      return " N"
    case "number":
      return " X"
    case "choice":
      return ` ${(field.choices ?? []).join("|")}`
    default:
      return /folder/i.test(field.description ?? "")
        ? " DIR"
        : /file/i.test(field.description ?? "")
          ? " FILE"
          : " TEXT"
  }
}

const shown = (value: unknown): string => (typeof value === "string" ? value : JSON.stringify(value))

const fieldText = (field: FieldDescription): string => {
  const parts = [field.description ?? ""]
  const range = [
    ...(field.min === undefined || field.max === undefined ? [] : [`${field.min} to ${field.max}`]),
    ...(field.min !== undefined && field.max === undefined ? [`at least ${field.min}`] : []),
    ...(field.max !== undefined && field.min === undefined ? [`at most ${field.max}`] : []),
    ...(field.above === undefined ? [] : [`above ${field.above}`]),
    ...(field.below === undefined ? [] : [`below ${field.below}`]),
    ...(field.unit === undefined ? [] : [field.unit]),
  ]
  if (range.length > 0 && field.max !== Number.MAX_SAFE_INTEGER) parts.push(`(${range.join(", ")})`)
  const { default: fallback } = field
  if (fallback !== undefined && !(Array.isArray(fallback) && fallback.length === 0) && fallback !== false)
    parts.push(`Default: ${shown(fallback)}.`)
  if (field.required) parts.push("Required.")
  return parts.join(" ")
}

const flagRow = (command: CliCommand, field: FieldDescription, style: Style): readonly [string, string] => {
  const alias = command.aliases?.[field.key]
  const optional = command.optionalValues?.[field.key] !== undefined
  const value = valueWord(field).trim()
  const word = value === "" ? "" : optional ? `[=${value}]` : ` ${value}`
  return [`${style.cyan(`${field.flag}${alias === undefined ? "" : `, -${alias}`}`)}${word}`, fieldText(field)]
}

const usage = (command: CliCommand): string =>
  [
    `sloth ${command.name}`,
    ...(command.positionals ?? []).map(({ name, required, many }) => {
      const word = `${name}${many === true ? "..." : ""}`
      return required === true ? `<${word}>` : `[${word}]`
    }),
    "[flags]",
  ].join(" ")

/** Help of one command. */
export const commandHelp = (command: CliCommand, style: Style, width: number): string => {
  const lines: string[] = [...wrapText(command.description, width), "", style.bold("Usage"), `  ${usage(command)}`]
  const positionals = command.positionals ?? []
  if (positionals.length > 0)
    lines.push(
      "",
      style.bold("Arguments"),
      ...columns(
        positionals.map(({ name, description }) => [style.cyan(name), description]),
        width,
      ),
    )
  for (const { title, fields } of flagGroups(command))
    lines.push(
      "",
      style.bold(title),
      ...columns(
        fields.map((field) => flagRow(command, field, style)),
        width,
      ),
    )
  lines.push(
    "",
    style.bold("Common"),
    ...columns(
      [
        [style.cyan("--debug"), "Show stack traces and debug lines."],
        [style.cyan("--help, -h"), "Show this help."],
      ],
      width,
    ),
  )
  if (command.examples.length > 0)
    lines.push(
      "",
      style.bold("Examples"),
      ...command.examples.flatMap((example) => [`  ${style.dim(`# ${example.description}`)}`, `  ${example.command}`]),
    )
  for (const note of command.notes ?? []) lines.push("", ...wrapText(note, width))
  return lines.join("\n")
}

/** Help of the program: what there is to do, in the order in which one does it. */
export const rootHelp = (entries: readonly CommandEntry[], style: Style, width: number): string =>
  [
    `${style.bold("sloth")} fine-tunes language models: a model in, a better model out. No Python.`,
    "",
    style.bold("Usage"),
    "  sloth <command> [flags]",
    "",
    style.bold("Commands"),
    ...columns(
      entries.map(({ name, summary }) => [style.cyan(name), summary]),
      width,
    ),
    "",
    style.bold("Common flags"),
    ...columns(
      [
        [style.cyan("--help, -h"), "Help, with examples; also after a command."],
        [style.cyan("--version, -v"), "Print the version."],
        [style.cyan("--debug"), "Show stack traces and debug lines."],
        [style.cyan("--completions SHELL"), "Print a completion script: bash, zsh, fish."],
      ],
      width,
    ),
    "",
    style.bold("Start here"),
    `  ${style.dim("# train a small model in half a minute and talk to it")}`,
    "  sloth quickstart",
    `  ${style.dim("# then your own: plan first, train, talk, take it elsewhere")}`,
    "  sloth plan --model SmolLM2.gguf --data rows.jsonl",
    "  sloth train --model SmolLM2.gguf --data rows.jsonl --run runs/mine",
    "  sloth chat --model runs/mine --compare",
    "  sloth export --model runs/mine --format gguf-q8_0",
    "",
    ...wrapText(
      "Exit status: 0 done, 1 failed, 2 wrong command line or settings, 130 interrupted after what was done was saved.",
      width,
    ),
  ].join("\n")
