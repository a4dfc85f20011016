import {
  EventLog,
  isSlothError,
  openTracker,
  RunDirectory,
  SlothError,
  type Logger,
  type RunCallback,
  type RunEvent,
  type RunInfo,
  type Tracker,
  type TrackerSession,
  type RunControl,
} from "@sloth/core"

/** What callbacks have asked for and has not been done yet. */
export class ControlRequests implements RunControl {
  stopReason: string | undefined
  checkpointWanted = false
  evaluationWanted = false

  stop(reason: string): void {
    this.stopReason ??= reason
  }

  checkpoint(): void {
    this.checkpointWanted = true
  }

  evaluate(): void {
    this.evaluationWanted = true
  }
}

/** Who hears of a run's events. */
export interface SessionOptions {
  readonly trackers: readonly Tracker[]
  readonly callbacks: readonly RunCallback[]
  readonly onEvent: ((event: RunEvent) => void) | undefined
  readonly logger: Logger
}

/** An open run folder: every event goes to the log first, then to trackers, the listener and callbacks. */
export class RunSession {
  readonly directory: RunDirectory
  readonly control = new ControlRequests()
  readonly #log: EventLog
  readonly #options: SessionOptions
  readonly #trackers: { readonly tracker: Tracker; readonly session: Required<TrackerSession> }[] = []

  private constructor(directory: RunDirectory, log: EventLog, options: SessionOptions) {
    this.directory = directory
    this.#log = log
    this.#options = options
  }

  /**
   * Opens the event log and the trackers of a locked run folder. Errors: SLOTH_TRACKER_FAILED and those of `EventLog.open`; what was opened is closed then.
   */
  static async open(
    directory: RunDirectory,
    config: Readonly<Record<string, unknown>>,
    resumedFromStep: number | undefined,
    options: SessionOptions,
  ): Promise<RunSession> {
    const log = await EventLog.open(
      directory.paths.events,
      resumedFromStep === undefined ? {} : { resumeFromStep: resumedFromStep },
    )
    const session = new RunSession(directory, log, options)
    try {
      const info: RunInfo = {
        name: directory.name,
        directory: directory.paths.root,
        config,
        ...(resumedFromStep === undefined ? {} : { resumedFromStep }),
        logger: options.logger,
      }
      for (const tracker of options.trackers)
        session.#trackers.push({ tracker, session: await openTracker(tracker, info) })
    } catch (error) {
      await session.close()
      throw error
    }
    return session
  }

  /** Records an event and tells everyone; waits for callbacks, whose errors end the run. */
  async emit(event: RunEvent): Promise<void> {
    this.#log.append(event)
    this.#tell(event)
    this.#options.onEvent?.(event)
    for (const callback of this.#options.callbacks) {
      const handler = callback.on[event.type] as
        | ((event: RunEvent, control: RunControl) => void | Promise<void>)
        | undefined
      try {
        await handler?.(event, this.control)
      } catch (cause) {
        throw isSlothError(cause)
          ? cause
          : new SlothError("SLOTH_CALLBACK_FAILED", {
              what: `The callback "${callback.name}" failed on a "${event.type}" event.`,
              why: cause instanceof Error ? cause.message : String(cause),
              next: "Fix it or leave it out, then resume the run.",
              fields: { callback: callback.name, event: event.type },
              cause,
            })
      }
    }
  }

  /** Records a warning. */
  async warn(code: string, message: string, step?: number, fields?: Readonly<Record<string, unknown>>): Promise<void> {
    await this.emit({
      type: "warning",
      time: new Date().toISOString(),
      ...(step === undefined ? {} : { step }),
      code,
      message,
      ...(fields === undefined ? {} : { fields }),
    })
  }

  /** Records how a run failed, as well as the disk allows. */
  fail(error: unknown, step: number): void {
    const time = new Date().toISOString()
    const message = error instanceof Error ? error.message : String(error)
    const events: RunEvent[] = [
      {
        type: "error",
        time,
        step,
        code: isSlothError(error) ? error.code : "SLOTH_TRAIN_FAILED",
        message,
        ...(isSlothError(error) ? { fields: error.fields } : {}),
      },
      { type: "run-end", time, step, reason: "failed", message },
    ]
    for (const event of events)
      try {
        this.#log.append(event)
        this.#tell(event)
        this.#options.onEvent?.(event)
      } catch (second) {
        // The first error is the one to report; a full disk must not hide it.
        this.#options.logger.warn("SLOTH_EVENT_LOST", `An event could not be recorded: ${String(second)}`)
      }
  }

  /** Closes trackers, log and folder. */
  async close(): Promise<void> {
    for (const { tracker, session } of this.#trackers.splice(0))
      try {
        await session.close()
      } catch (error) {
        this.#options.logger.warn(
          "SLOTH_TRACKER_FAILED",
          `The tracker "${tracker.name}" could not close: ${String(error)}`,
        )
      }
    this.#log.close()
    this.directory.close()
  }

  /** A tracker that throws is dropped with a warning: it only watches. */
  #tell(event: RunEvent): void {
    for (const entry of this.#trackers.slice())
      try {
        entry.session.event(event)
      } catch (error) {
        this.#trackers.splice(this.#trackers.indexOf(entry), 1)
        this.#options.logger.warn(
          "SLOTH_TRACKER_FAILED",
          `The tracker "${entry.tracker.name}" failed and was dropped: ${error instanceof Error ? error.message : String(error)}`,
        )
        void Promise.resolve(entry.session.close()).catch(() => undefined)
      }
  }
}
