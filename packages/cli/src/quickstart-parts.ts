import type { RunCallback } from "@sloth/core"
import { formatSeconds } from "@sloth/train"
import { EXIT } from "./errors.ts"
import { shortPath } from "./export-lines.ts"
import type { Terminal } from "./terminal/terminal.ts"

/** Ends a quickstart's training after so many seconds, counted from {@link TrainingClock.start}, unless the user asked for a number of steps. */
export class TrainingClock {
  readonly callback: RunCallback
  #since = Number.POSITIVE_INFINITY

  constructor(mostSeconds: number, steps: number | undefined) {
    this.callback = {
      name: "quickstart-clock",
      on: {
        step: ({ step }, control) => {
          const seconds = (performance.now() - this.#since) / 1000
          if (steps === undefined && step >= 5 && seconds > mostSeconds)
            control.stop(`the quickstart's ${mostSeconds} seconds of training are over`)
        },
      },
    }
  }

  start(): void {
    this.#since = performance.now()
  }
}

/** Says that training was interrupted and how it goes on; the exit status. */
export const tellInterrupted = (
  terminal: Terminal,
  outcome: { readonly steps: number; readonly resumeCommand?: string | undefined },
): number => {
  terminal.say(`Interrupted at step ${outcome.steps}; everything is saved.`)
  terminal.say(`  continue: ${terminal.errorStyle.bold(outcome.resumeCommand ?? "")}`)
  return EXIT.interrupted
}

/** Says that all is done, where the report is, and what to try next: commands as they are printed, each with what it does. */
export const tellDone = (
  terminal: Terminal,
  done: { readonly seconds: number; readonly report: string },
  next: readonly (readonly [command: string, what: string])[],
): void => {
  const { bold, dim, green } = terminal.errorStyle
  terminal.say(`${green("✓")} ${bold(`done in ${formatSeconds(done.seconds)}`)}; the report: ${shortPath(done.report)}`)
  terminal.say()
  terminal.say(bold("Next"))
  for (const [command, what] of next) terminal.say(`  ${command}  ${dim(`# ${what}`)}`)
}
