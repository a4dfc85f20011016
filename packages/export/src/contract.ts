import type { ConfigSchema } from "@sloth/core"
import type { CausalLM, LoraConfig, ModelFiles } from "@sloth/model"

/** What an exporter writes: a model in memory with where it came from. */
export interface TrainedModel {
  readonly model: CausalLM
  readonly files: ModelFiles
  /** The LoRA attached to it, if any. */
  readonly lora: LoraConfig | undefined
  /** Name of the base model for records, such as a hub id. */
  readonly base: string
  /** Token ids of texts that the export is compared on: some tens of tokens each. */
  readonly texts: readonly (readonly number[])[]
}

/** How the file written compares with the model in memory. */
export interface Verification {
  /** Tokens whose log-probs were compared. */
  readonly tokens: number
  /** Largest and mean absolute difference of log-probs, in nats. */
  readonly largest: number
  readonly mean: number
  /** Share of positions whose likeliest next token is the same, 0 to 1. */
  readonly agreement: number
  /**
   * Tensors that were read back from the file and hold, bit for bit, what the model in memory gives in the format that was asked for. The log-probs then differ by the
   * format's own rounding alone. Absent where an exporter compares log-probs only.
   */
  readonly tensors?: number
  /** What is allowed, and why. */
  readonly allowed: { readonly largest: number; readonly mean: number; readonly reason: string }
}

/** What an export made. */
export interface ExportReport {
  readonly format: string
  /** The file or folder. */
  readonly path: string
  readonly bytes: number
  readonly seconds: number
  readonly verification: Verification
  /** What the next program calls it: a command to try. */
  readonly hint: string
}

/** Options that every exporter takes. */
export interface ExportOptions {
  /** Tells what is happening, for a progress line. */
  readonly onProgress?: (what: string, done: number, total: number) => void
  /** Bytes of a shard of a safetensors export. */
  readonly maxShardBytes?: number
}

/** Writes one format; nothing is reported as done before it was read back and compared. */
export interface Exporter<Name extends string = string> {
  readonly name: Name
  /** One line for help. */
  readonly description: string
  /** True when it writes only the adapter: such a format needs one. */
  readonly adapterOnly: boolean
  /** File ending, or "" for a folder. */
  readonly extension: string
  readonly config?: ConfigSchema
  /** Errors: SLOTH_EXPORT_*, SLOTH_DISK_FULL. Whatever stood at `to` before survives a failure. */
  export(trained: TrainedModel, to: string, options?: ExportOptions): Promise<ExportReport>
}
