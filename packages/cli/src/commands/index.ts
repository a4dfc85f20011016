import type { CliCommand } from "../command.ts"

/** A command before it is loaded: its code is only read when it runs. */
export interface CommandEntry {
  readonly name: string
  readonly summary: string
  load(): Promise<{ readonly command: CliCommand }>
}

/** All commands, in the order in which one needs them. */
export const commands: readonly CommandEntry[] = [
  {
    name: "quickstart",
    summary: "Train the embedded model in half a minute and see what changed.",
    load: () => import("./quickstart.ts"),
  },
  {
    name: "init",
    summary: "Write sloth.config.ts and sample data into this folder.",
    load: () => import("./init.ts"),
  },
  {
    name: "pull",
    summary: "Download a model: says the size first, resumes, verifies hashes.",
    load: () => import("./pull.ts"),
  },
  {
    name: "inspect",
    summary: "Say what a model, GGUF file, adapter, data file or run is.",
    load: () => import("./inspect.ts"),
  },
  {
    name: "plan",
    summary: "Say all that training would do: memory, disk, time; do nothing.",
    load: () => import("./plan.ts"),
  },
  {
    name: "train",
    summary: "Fine-tune a model on a data file.",
    load: () => import("./train.ts"),
  },
  {
    name: "generate",
    summary: "Answer one prompt.",
    load: () => import("./generate.ts"),
  },
  {
    name: "chat",
    summary: "Talk to a model; --compare shows base and tuned side by side.",
    load: () => import("./chat.ts"),
  },
  {
    name: "samples",
    summary: "Browse the completions of a run, with what each reward gave them.",
    load: () => import("./samples.ts"),
  },
  {
    name: "score",
    summary: "Print the log-probability of every token of some rows.",
    load: () => import("./score.ts"),
  },
  {
    name: "eval",
    summary: "Print loss and perplexity of a model on a data file.",
    load: () => import("./eval.ts"),
  },
  {
    name: "export",
    summary: "Write a model for other programs, and check what was written.",
    load: () => import("./export.ts"),
  },
  {
    name: "doctor",
    summary: "Say what runs natively here, what falls back, and what that costs.",
    load: () => import("./doctor.ts"),
  },
]
