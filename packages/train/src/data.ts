import { createHash } from "node:crypto"
import { formatReport, openDataset, type Dataset, type DatasetOptions, type Example } from "@sloth/data"
import { datasetOptionsOf, type TrainConfig } from "./config.ts"
import {
  decodeSettings,
  type Objective,
  type OpenedRows,
  type OpenRowsOptions,
  type TrainingUnit,
} from "./objective.ts"

/** Rows to train on and rows to evaluate on. A `Dataset` of `@sloth/data` is one. */
export interface TrainData<Row = Example> {
  readonly examples: readonly Row[]
  /** Rows that are only evaluated. */
  readonly heldOut?: readonly Row[]
  /** SHA-256 (hex) of the training rows, for resuming; computed from the units when absent. */
  readonly examplesHash?: string
  /** Printable sentence on what the rows are. */
  readonly statement?: string
}

/**
 * Opens training and evaluation rows as a configuration says (mask, maxLength, overlong, evalData or evalFraction, seed).
 * Errors: those of `openDataset`.
 */
export const openTrainData = async (
  source: string | readonly string[] | readonly object[],
  config: TrainConfig,
  options: Omit<DatasetOptions, "mask" | "maxLength" | "overlong" | "heldOut" | "seed">,
): Promise<Dataset> => {
  const settings = { ...options, ...datasetOptionsOf(config) }
  const data = await openDataset(source, settings)
  if (config.evalData === undefined) return data
  const evaluation = await openDataset(config.evalData, { ...settings, heldOut: 0 })
  return { ...data, heldOut: evaluation.examples }
}

/**
 * Opens the rows of a method: by its own `open` where it has one, else as texts and conversations. `settings` are the method's, as given.
 * Errors: those of `openDataset` and of the method; SLOTH_CONFIG_INVALID for the settings.
 */
export const openMethodData = async <Row = Example>(
  objective: Objective<Row>,
  source: string | readonly string[] | readonly object[],
  config: TrainConfig,
  options: Pick<OpenRowsOptions, "tokenizer" | "registry" | "template" | "signal"> &
    Pick<DatasetOptions, "cacheDir"> & { readonly settings?: unknown },
): Promise<OpenedRows<Row>> => {
  const settings = decodeSettings(objective, options.settings)
  const { tokenizer, registry, template, cacheDir, signal } = options
  const given = {
    tokenizer,
    ...(registry === undefined ? {} : { registry }),
    ...(template === undefined ? {} : { template }),
    ...(signal === undefined ? {} : { signal }),
  }
  if (objective.open === undefined) {
    const data = await openTrainData(source, config, cacheDir === undefined ? given : { ...given, cacheDir })
    return { ...data, summary: formatReport(data.report) } as unknown as OpenedRows<Row>
  }
  const how = { ...given, ...(datasetOptionsOf(config) as Required<ReturnType<typeof datasetOptionsOf>>), settings }
  const data = await objective.open(source, how)
  if (config.evalData === undefined) return data
  const evaluation = await objective.open(config.evalData as string | readonly string[], { ...how, heldOut: 0 })
  return { ...data, heldOut: evaluation.examples }
}

/** SHA-256 (hex) of what the trainer sees of the rows: tokens and everything that an objective added to its units. */
export const hashUnits = (units: readonly TrainingUnit[]): string => {
  const hash = createHash("sha256")
  const add = (value: unknown): void => {
    if (ArrayBuffer.isView(value)) {
      hash.update(`${value.constructor.name} ${value.byteLength} `)
      hash.update(new Uint8Array(value.buffer, value.byteOffset, value.byteLength))
    } else if (typeof value === "object" && value !== null) {
      const entries = Object.entries(value)
      hash.update(`${Array.isArray(value) ? "list" : "object"} ${entries.length} `)
      for (const [key, inner] of entries) {
        hash.update(`${JSON.stringify(key)} `)
        add(inner)
      }
    } else hash.update(`${typeof value} ${JSON.stringify(value ?? null)} `)
  }
  // The number of a row is only its name.
  for (const unit of units) add({ ...unit, row: undefined })
  return hash.digest("hex")
}
