import type { SlothConfig } from "@sloth/core"
import type { TrainConfigInput } from "@sloth/train"

/** The `train` section of `sloth.config.ts`: what `sloth train` does without flags. Paths start at the file's folder. */
export interface TrainSection extends TrainConfigInput {
  /** Hub id, folder, .gguf file, run folder, or `nano`. */
  readonly model?: string
  /** File or files to train on. */
  readonly data?: string | readonly string[]
  /** Training method; "sft" when absent. */
  readonly method?: string
  /** The method's own settings. */
  readonly settings?: unknown
  /** File with a chat template (jinja) in place of the model's own. */
  readonly template?: string
}

declare module "@sloth/core" {
  interface ConfigSections {
    train: TrainSection
  }
}

/** What `sloth.config.ts` exports, where it is written without `defineConfig`. */
export interface ProjectConfig extends SlothConfig {
  readonly train?: TrainSection
}
