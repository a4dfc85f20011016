import { closeSync, mkdirSync, openSync, writeSync } from "node:fs"
import { hostname } from "node:os"
import { isAbsolute, join } from "node:path"
import { fileError, type RunEvent, type RunInfo, type Tracker, type TrackerSession } from "@sloth/core"
import { eventRecord, type EventBody } from "./internal/event-file.ts"

/** Options of {@link tensorboardTracker}. */
export interface TensorboardOptions {
  /** Where event files go: a path, or a name inside the run folder; "tensorboard" when absent. */
  readonly directory?: string
}

/** The curves of an event: "train/loss", "eval/perplexity", ... */
const scalarsOf = (event: RunEvent): (readonly [string, number])[] => {
  if (event.type === "step") {
    const { loss, gradNorm, learningRate, tokensPerSecond, peakRssBytes, metrics = {} } = event
    return Object.entries({ loss, gradNorm, learningRate, tokensPerSecond, peakRssBytes, ...metrics }).map(
      ([name, value]) => [`train/${name}`, value],
    )
  }
  if (event.type === "eval") {
    const { name, loss, perplexity, metrics = {} } = event
    const figures = { loss, ...(perplexity === undefined ? {} : { perplexity }), ...metrics }
    const prefix = name === undefined ? "eval" : `eval/${name}`
    return Object.entries(figures).map(([figure, value]) => [`${prefix}/${figure}`, value])
  }
  return []
}

const open = (run: RunInfo, options: TensorboardOptions): TrackerSession => {
  const given = options.directory ?? "tensorboard"
  const folder = isAbsolute(given) ? given : join(run.directory, given)
  // TensorBoard takes any file with "tfevents" in its name, in the order of the names.
  const path = join(folder, `events.out.tfevents.${Math.floor(Date.now() / 1000)}.${hostname()}.${process.pid}.sloth`)
  let file: number
  try {
    mkdirSync(folder, { recursive: true })
    file = openSync(path, "a")
  } catch (error) {
    throw fileError(error, path, "create")
  }
  const write = (step: number, body: EventBody): void => {
    // One call for one record, of a few hundred bytes: a reader that follows the file never sees half of one.
    writeSync(file, eventRecord(Date.now() / 1000, step, body))
  }
  write(0, { kind: "version" })
  // After a resumption steps come again that an earlier file may hold.
  if (run.resumedFromStep !== undefined) write(run.resumedFromStep + 1, { kind: "start" })
  return {
    event: (event) => {
      const values = scalarsOf(event)
      if (values.length > 0 && "step" in event && event.step !== undefined)
        write(event.step, { kind: "scalars", values })
    },
    close: () => closeSync(file),
  }
}

/**
 * Follows a run with TensorBoard event files: `train/` and `eval/` curves over steps. Errors on opening: SLOTH_FILE_*.
 * Source of the format: TensorFlow 2, `event.proto`, `summary.proto` and `record_writer.cc`.
 */
export const tensorboardTracker = (options: TensorboardOptions = {}): Tracker => ({
  name: "tensorboard",
  open: (run) => open(run, options),
})
