import { existsSync } from "node:fs"
import * as Schema from "effect/Schema"
import { field, formatBytes, runPaths, SlothError, withDefault } from "@sloth/core"
import type { Exporter } from "@sloth/export"
import { defineCommand } from "../command.ts"
import { adapterField, jsonField, modelField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import { columns } from "../terminal/text.ts"
import { exportLines } from "../export-lines.ts"
import { writeReport } from "../report/write-report.ts"

/** `sloth export`. */
export const command = defineCommand({
  name: "export",
  summary: "Write a model for other programs, and check what was written.",
  description:
    "Writes a model in a format, reads the file back and compares its log-probs with the model in memory before saying that it is done. Files appear whole or not at all. Without --format the formats are listed.",
  session: true,
  aliases: { model: "m", format: "f", to: "o" },
  options: Schema.Struct({
    model: modelField.pipe(Schema.optionalKey),
    format: field
      .list(Schema.String, { description: "Format to write; may be repeated. Without it the formats are listed." })
      .pipe(Schema.optionalKey),
    to: field
      .text({ description: "File or folder to write; exports/ of the run, or a name in this folder, when absent." })
      .pipe(Schema.optionalKey),
    adapter: adapterField.pipe(Schema.optionalKey),
    maxShardBytes: field
      .int({ description: "Largest file of a safetensors export.", unit: "bytes", min: 1 })
      .pipe(Schema.optionalKey),
    json: jsonField.pipe(withDefault(false)),
  }),
  examples: [
    { command: "sloth export", description: "list the formats" },
    {
      command: "sloth export --model runs/mine --format gguf-q8_0",
      description: "one file for llama.cpp, Ollama, LM Studio",
    },
    {
      command: "sloth export --model runs/mine --format peft --to adapter",
      description: "the adapter alone, for PEFT and vLLM",
    },
    {
      command: "sloth export --model base.gguf --adapter runs/mine/adapter --format gguf-lora --to mine.gguf",
      description: "the adapter alone, for llama.cpp --lora",
    },
  ],
  run: (input) =>
    withSession(input, async ({ sloth }) => {
      const { terminal } = input
      const { model, format, to, adapter, maxShardBytes, json } = input.options
      if (format === undefined || format.length === 0) {
        const formats = sloth.registry.list("exporters") as unknown as readonly Exporter[]
        if (json)
          terminal.print(
            JSON.stringify(formats.map(({ name, description, adapterOnly }) => ({ name, description, adapterOnly }))),
          )
        else
          for (const line of columns(
            formats.map(({ name, description }) => [terminal.style.cyan(name), description ?? ""]),
            terminal.width,
          ))
            terminal.print(line)
        return 0
      }
      if (model === undefined)
        throw new SlothError("SLOTH_CLI_USAGE", {
          what: "--model is missing.",
          next: "Name the model to export, such as a run folder.",
        })
      if (to !== undefined && format.length > 1)
        throw new SlothError("SLOTH_CLI_USAGE", {
          what: "--to names one place, but there are several formats.",
          next: "Leave --to out, or export one format at a time.",
        })
      for (const name of format) sloth.registry.get("exporters", name)
      using opened = await sloth.open(model, adapter === undefined ? {} : { adapter })
      const reports = []
      for (const name of format) {
        const report = await sloth.export({
          model: opened,
          format: name as never,
          ...(to === undefined ? {} : { to }),
          ...(maxShardBytes === undefined ? {} : { maxShardBytes }),
          ...(terminal.live && !json
            ? {
                onProgress: (what: string, done: number, total: number) =>
                  terminal.sayRaw(`\r\u001b[K${name}: ${done}/${total} ${what}`),
              }
            : {}),
        })
        if (terminal.live && !json) terminal.sayRaw("\r\u001b[K")
        reports.push(report)
        if (!json) for (const line of exportLines(report, terminal.style, opened.source.base)) terminal.print(line)
      }
      const { run } = opened.source
      if (run !== undefined && existsSync(runPaths(run).report)) writeReport(run)
      if (json) terminal.print(JSON.stringify(reports.length === 1 ? reports[0] : reports))
      else
        terminal.say(terminal.errorStyle.dim(`${formatBytes(reports.reduce((n, { bytes }) => n + bytes, 0))} written`))
      return 0
    }),
})
