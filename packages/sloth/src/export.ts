import { existsSync } from "node:fs"
import { basename, join, relative, resolve } from "node:path"
import { EventLog, isSlothError, RunDirectory, runPaths, SlothError } from "@sloth/core"
import type { ExportOptions, Exporter, ExportReport } from "@sloth/export"
import type { SlothContext } from "./context.ts"
import type { OpenedModel } from "./opened-model.ts"
import { readRunRecord } from "./run-record.ts"
import { verificationTexts } from "./verification-texts.ts"

/** What to write and where. */
export interface ExportRequest<Format extends string = string> extends ExportOptions {
  readonly format: Format
  /** File or folder to write; `exports/` of the run, or a name made from the model's in the working folder, when absent. */
  readonly to?: string
  /** Token ids of texts to compare on; rows of the run's data, or built-in sentences, when absent. */
  readonly texts?: readonly (readonly number[])[]
  readonly signal?: AbortSignal
}

/** Where an export goes when nothing is said. */
export const defaultTarget = (
  context: SlothContext,
  opened: OpenedModel,
  exporter: Pick<Exporter, "name" | "extension">,
): string => {
  const { run } = opened.source
  if (run !== undefined) return join(runPaths(run).exports, `${basename(run)}-${exporter.name}${exporter.extension}`)
  const name = opened.source.base
    .split(/[\\/]/)
    .at(-1)!
    .replace(/\.gguf$/i, "")
  return resolve(context.cwd, `${name}-${exporter.name}${exporter.extension}`)
}

/** Adds the export to the events of its run; a run that is being written to at this moment is left alone. */
const record = async (context: SlothContext, run: string, report: ExportReport): Promise<void> => {
  let directory: RunDirectory
  try {
    directory = await RunDirectory.resume(run)
  } catch (error) {
    if (!isSlothError(error)) throw error
    context.logger.warn(
      "SLOTH_EXPORT_NOT_RECORDED",
      `The export is not noted in the events of ${run}: ${error.message}`,
    )
    return
  }
  try {
    using log = await EventLog.open(directory.paths.events)
    const inside = relative(directory.paths.root, report.path)
    log.append({
      type: "export",
      time: new Date().toISOString(),
      format: report.format,
      path: inside.startsWith("..") ? report.path : inside,
      bytes: report.bytes,
      seconds: report.seconds,
      verified: true,
      maxLogprobDifference: report.verification.largest,
    })
  } finally {
    directory.close()
  }
}

/** Adapter files are written from the trainable tensors; an adapter that was opened frozen counts as one while it is written. */
const markAdapters = ({ model }: OpenedModel): (() => void) => {
  const frozen = [...model.linears.values()]
    .flatMap((layer) => Object.values(layer.adapter?.tensors ?? {}))
    .filter((tensor) => !tensor.requiresGrad)
  for (const tensor of frozen) model.engine.parameter(tensor)
  return () => {
    for (const tensor of frozen) tensor.slot = undefined
  }
}

/**
 * Writes a model in a format, reads it back and compares it with the one in memory.
 * Errors: SLOTH_PLUGIN_UNKNOWN_ID for a format that nothing provides, SLOTH_EXPORT_*, SLOTH_DISK_SPACE, SLOTH_DISK_FULL.
 */
export const exportModel = async (
  context: SlothContext,
  opened: OpenedModel,
  request: ExportRequest,
): Promise<ExportReport> => {
  const exporter = context.registry.get("exporters", request.format) as unknown as Exporter
  const { run } = opened.source
  const runRecord = run !== undefined && existsSync(runPaths(run).config) ? readRunRecord(run) : undefined
  const texts = request.texts ?? (await verificationTexts(context, opened.tokenizer, runRecord))
  request.signal?.throwIfAborted()
  if (texts.length === 0 || texts.some((text) => text.length < 2))
    throw new SlothError("SLOTH_EXPORT_TEXTS", {
      what: "There is nothing to compare the export on.",
      next: "Give texts of at least two tokens each.",
    })
  const to = request.to === undefined ? defaultTarget(context, opened, exporter) : resolve(context.cwd, request.to)
  const done = markAdapters(opened)
  const report = await exporter
    .export({ model: opened.model, files: opened.files, lora: opened.lora, base: opened.source.base, texts }, to, {
      ...(request.onProgress === undefined ? {} : { onProgress: request.onProgress }),
      ...(request.maxShardBytes === undefined ? {} : { maxShardBytes: request.maxShardBytes }),
    })
    .finally(done)
  if (run !== undefined && runRecord !== undefined) await record(context, run, report)
  return report
}
