import { appendFileSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { definePlugin } from "@sloth/core"
import type { Tracker } from "@sloth/core"
import { ggufExporters, writeFolder, type Exporter } from "@sloth/export"

/** Follows a run and writes its losses as a CSV file. */
const csvTracker = {
  name: "csv",
  open: (run) => {
    const path = join(run.directory, "losses.csv")
    // A run that goes on keeps what it wrote before.
    if (run.resumedFromStep === undefined) writeFileSync(path, "step,loss,learningRate\n")
    return {
      event: (event) => {
        if (event.type === "step") appendFileSync(path, `${event.step},${event.loss},${event.learningRate}\n`)
      },
    }
  },
} as const satisfies Tracker

/** Writes a folder that `ollama create` takes: a GGUF file and a Modelfile with a system message. */
const ollamaExporter = (system: string) =>
  ({
    name: "ollama",
    description: "a folder for `ollama create`: a Q8_0 GGUF file with a Modelfile",
    adapterOnly: false,
    extension: "",
    export: async (trained, to, options) => {
      const lines = ["FROM ./model.gguf", ...(system === "" ? [] : [`SYSTEM ${JSON.stringify(system)}`])]
      const modelfile = `${lines.join("\n")}\n`
      // The folder appears whole or not at all, and only over an earlier one with a Modelfile.
      const report = await writeFolder(
        to,
        "Modelfile",
        async (folder) => writeFileSync(join(folder, "Modelfile"), modelfile),
        // The exporter that comes with Sloth writes the weights, reads them back and compares.
        (folder) => ggufExporters[0].export(trained, join(folder, "model.gguf"), options),
      )
      return {
        ...report,
        format: "ollama",
        path: to,
        bytes: report.bytes + Buffer.byteLength(modelfile),
        hint: `ollama create ${basename(to)} -f ${join(to, "Modelfile")}`,
      }
    },
  }) as const satisfies Exporter<"ollama">

/** A tracker and an exporter as one plugin; `sloth.config.ts` or `--plugin` would load it by its path. */
export const garden = (options: { readonly system?: string } = {}) =>
  definePlugin({
    name: "sloth-plugin-garden",
    version: "1.0.0",
    apiVersion: 1,
    sloth: "^0.1.0",
    provides: { trackers: [csvTracker], exporters: [ollamaExporter(options.system ?? "")] },
  })

export default garden()
