import { closeSync, fsyncSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs"
import { writeFileAtomic } from "./atomic-file.ts"
import { SlothError } from "./errors.ts"
import { checkEvent } from "./events.ts"
import type { RunEvent, RunEventType } from "./events.ts"
import { fileError, systemCode } from "./file-error.ts"

/**
 * When appended lines are forced to the disk. Lines always reach the system at once, so killing the process loses none; this is about
 * power loss. `milestones` syncs after checkpoints, exports, errors and the end; `always` after every line; `never` leaves it to the system.
 */
export type FsyncPolicy = "always" | "milestones" | "never"

/** Options of {@link EventLog.open}. */
export interface EventLogOptions {
  readonly fsync?: FsyncPolicy
  /** Resuming from the checkpoint of this step: events of later steps are dropped, because those steps run again. */
  readonly resumeFromStep?: number
}

/** What opening an existing log had to repair. */
export interface EventLogRepair {
  /** Bytes of an incomplete last line that were cut off. */
  readonly tornBytes: number
  /** Events of steps after the resumed one that were dropped. */
  readonly droppedEvents: number
}

const milestones: ReadonlySet<RunEventType> = new Set(["checkpoint", "export", "error", "run-end"])

interface ParsedLine {
  readonly event: RunEvent
  readonly text: string
}

interface ParsedLog {
  readonly lines: readonly ParsedLine[]
  /** Bytes up to the end of the last complete line. */
  readonly soundBytes: number
  readonly tornBytes: number
}

const parseLog = (path: string, bytes: Buffer): ParsedLog => {
  const lines: ParsedLine[] = []
  let start = 0
  let number = 0
  while (start < bytes.length) {
    const end = bytes.indexOf(10, start)
    number++
    if (end === -1) break // no newline: the process died while it wrote this line
    const text = bytes.toString("utf8", start, end)
    if (text.trim() !== "") {
      try {
        lines.push({ event: checkEvent(JSON.parse(text)), text })
      } catch (error) {
        // after a power loss the last block can be garbage that ends in a newline: a bad last line is torn too
        if (end === bytes.length - 1) break
        throw new SlothError("SLOTH_EVENTS_CORRUPT", {
          what: `Line ${number} of ${path} is not a run event.`,
          why: error instanceof Error ? error.message : String(error),
          next: "Restore the file or remove that line.",
          fields: { path, line: number },
          cause: error,
        })
      }
    }
    start = end + 1
  }
  return { lines, soundBytes: start, tornBytes: bytes.length - start }
}

const readBytes = (path: string): Buffer | undefined => {
  try {
    return readFileSync(path)
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined
    throw fileError(error, path, "read")
  }
}

/**
 * All events of a run, in order; a torn last line is left out.
 * Errors: SLOTH_FILE_NOT_FOUND, SLOTH_EVENTS_CORRUPT with the line number.
 */
export const readEvents = (path: string): readonly RunEvent[] => {
  let bytes: Buffer
  try {
    bytes = readFileSync(path)
  } catch (error) {
    throw fileError(error, path, "read")
  }
  return parseLog(path, bytes).lines.map((line) => line.event)
}

/** The append-only event log of a run, `events.jsonl`: one checked JSON object a line. */
export class EventLog implements Disposable {
  readonly path: string
  /** What opening had to repair. */
  readonly repair: EventLogRepair
  /** Events that were in the file when it was opened, after repair. */
  readonly previous: readonly RunEvent[]
  readonly #policy: FsyncPolicy
  #fd: number | undefined
  #unsynced = false

  private constructor(
    path: string,
    fd: number,
    policy: FsyncPolicy,
    previous: readonly RunEvent[],
    repair: EventLogRepair,
  ) {
    this.path = path
    this.#fd = fd
    this.#policy = policy
    this.previous = previous
    this.repair = repair
  }

  /**
   * Opens or creates a log for appending. A torn last line, as `kill -9` can leave it, is cut off.
   * Errors: SLOTH_EVENTS_CORRUPT for a bad line that is not the last, and those of `fileError`.
   */
  static async open(path: string, options: EventLogOptions = {}): Promise<EventLog> {
    const bytes = readBytes(path) ?? Buffer.alloc(0)
    const parsed = parseLog(path, bytes)
    const limit = options.resumeFromStep
    const kept =
      limit === undefined
        ? parsed.lines
        : parsed.lines.filter(({ event }) => !("step" in event) || event.step === undefined || event.step <= limit)
    const dropped = parsed.lines.length - kept.length
    // the whole file is replaced, so that a crash here leaves either the old or the new log
    if (dropped > 0) await writeFileAtomic(path, kept.map((line) => `${line.text}\n`).join(""))
    let fd: number
    try {
      fd = openSync(path, "a")
    } catch (error) {
      throw fileError(error, path, "open")
    }
    if (dropped === 0 && parsed.tornBytes > 0) {
      try {
        ftruncateSync(fd, parsed.soundBytes)
        fsyncSync(fd)
      } catch (error) {
        closeSync(fd)
        throw fileError(error, path, "repair")
      }
    }
    return new EventLog(
      path,
      fd,
      options.fsync ?? "milestones",
      kept.map((line) => line.event),
      { tornBytes: parsed.tornBytes, droppedEvents: dropped },
    )
  }

  /**
   * Checks an event and writes its line; the line is with the system when this returns.
   * Errors: SLOTH_EVENT_INVALID (nothing is written), SLOTH_EVENTS_CLOSED, SLOTH_DISK_FULL and the other codes of `fileError`.
   */
  append(event: RunEvent): void {
    const fd = this.#open()
    const bytes = Buffer.from(`${JSON.stringify(checkEvent(event))}\n`, "utf8")
    try {
      // one write call for one line: a crash can tear only the last line
      for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at, bytes.length - at)
      this.#unsynced = true
    } catch (error) {
      throw fileError(error, this.path, "append to")
    }
    if (this.#policy === "always" || (this.#policy === "milestones" && milestones.has(event.type))) this.flush()
  }

  /** Forces what was appended to the disk. */
  flush(): void {
    const fd = this.#open()
    if (!this.#unsynced) return
    try {
      fsyncSync(fd)
      this.#unsynced = false
    } catch (error) {
      throw fileError(error, this.path, "sync")
    }
  }

  /** Syncs (unless the policy is `never`) and closes; closing twice is harmless. */
  close(): void {
    if (this.#fd === undefined) return
    try {
      if (this.#policy !== "never") this.flush()
    } finally {
      const fd = this.#fd
      this.#fd = undefined
      if (fd !== undefined) closeSync(fd)
    }
  }

  [Symbol.dispose](): void {
    this.close()
  }

  #open(): number {
    if (this.#fd === undefined) {
      throw new SlothError("SLOTH_EVENTS_CLOSED", {
        what: `The event log ${this.path} is closed.`,
        fields: { path: this.path },
      })
    }
    return this.#fd
  }
}
