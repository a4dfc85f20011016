import { fileURLToPath } from "node:url"

const at = (path: string): string => fileURLToPath(new URL(`../${path}`, import.meta.url))

/** Where nano's files lie on disk: the model folder (Hugging Face layout) and the embedded data sets (jsonl). */
export interface NanoFiles {
  /** Folder with config.json, tokenizer.json, tokenizer_config.json, generation_config.json and the weights. */
  readonly model: string
  /** Conversations of the `sloth quickstart` instruction set. */
  readonly quickstart: string
  /** Conversations of the same kind that are not trained on, for evaluation. */
  readonly quickstartHeldOut: string
  /** Tasks with checkable answers: `{"prompt", "answer", "check"}`. */
  readonly rl: string
  /** Tasks of the same kind, for evaluation. */
  readonly rlHeldOut: string
  /** The tasks of `rl` that nano can learn from its own attempts in a minute: writing things down in a given form. */
  readonly rlWriting: string
  /** Tasks of the same kind, for evaluation. */
  readonly rlWritingHeldOut: string
}

/** Paths of the files that this package carries. */
export function nanoFiles(): NanoFiles {
  return {
    model: at("model"),
    quickstart: at("data/quickstart.jsonl"),
    quickstartHeldOut: at("data/quickstart-held-out.jsonl"),
    rl: at("data/rl.jsonl"),
    rlHeldOut: at("data/rl-held-out.jsonl"),
    rlWriting: at("data/rl-writing.jsonl"),
    rlWritingHeldOut: at("data/rl-writing-held-out.jsonl"),
  }
}
