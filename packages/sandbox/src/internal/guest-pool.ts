import { SlothError } from "@sloth/core"
import { GuestProcess } from "./guest-process.ts"
import type { GuestConfig } from "./protocol.ts"
import { findPyodide, pythonImage } from "./python-image.ts"
import { findWall, withoutOwnRoot } from "./wall.ts"

/** Longest wait for a process that starts, milliseconds: an interpreter starts in a second, on a machine with much else to do in many. */
const START_MS = 120_000

interface Waiter {
  resolve(guest: GuestProcess): void
  reject(error: unknown): void
}

/** Processes that are ready for a program, and programs that wait for one. */
export class GuestPool {
  readonly #config: GuestConfig
  readonly #size: number
  readonly #recycleAfter: number
  readonly #runs = new Map<GuestProcess, number>()
  readonly #idle: GuestProcess[] = []
  readonly #waiting: Waiter[] = []
  /** Processes that are not ready yet. */
  readonly #young = new Set<GuestProcess>()
  #starting = 0
  #image: Promise<string> | undefined
  #closed = false

  constructor(config: GuestConfig, size: number, recycleAfter: number) {
    const pyodide = config.language === "python" ? findPyodide() : undefined
    this.#config = pyodide === undefined ? config : { ...config, pyodide }
    this.#size = size
    this.#recycleAfter = recycleAfter
  }

  /** A process with a fresh interpreter. */
  take(signal?: AbortSignal): Promise<GuestProcess> {
    if (this.#closed) return Promise.reject(closedError())
    if (signal?.aborted === true) return Promise.reject(signal.reason)
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        resolve: (guest) => {
          signal?.removeEventListener("abort", abort)
          resolve(guest)
        },
        reject,
      }
      const abort = (): void => {
        const at = this.#waiting.indexOf(waiter)
        if (at >= 0) this.#waiting.splice(at, 1)
        reject(signal?.reason)
      }
      signal?.addEventListener("abort", abort, { once: true })
      this.#waiting.push(waiter)
      this.#serve()
    })
  }

  /** Takes a process back, and makes it as good as new or puts another in its place. */
  giveBack(guest: GuestProcess): void {
    const runs = (this.#runs.get(guest) ?? 0) + 1
    if (this.#closed || guest.dead || runs >= this.#recycleAfter) {
      this.#drop(guest)
      this.#replace()
      return
    }
    this.#runs.set(guest, runs)
    guest.close(START_MS).then(
      () => this.#add(guest),
      () => {
        this.#drop(guest)
        this.#replace()
      },
    )
  }

  async warm(): Promise<void> {
    const missing = this.#size - this.#runs.size - this.#starting
    await Promise.all(Array.from({ length: missing }, () => this.#start()))
  }

  close(): Promise<void> {
    this.#closed = true
    for (const guest of [...this.#runs.keys(), ...this.#young]) guest.kill()
    this.#runs.clear()
    this.#idle.length = 0
    for (const waiter of this.#waiting.splice(0)) waiter.reject(closedError())
    return Promise.resolve()
  }

  #drop(guest: GuestProcess): void {
    guest.kill()
    this.#runs.delete(guest)
  }

  /** Starts a process in the place of one that is gone, at once, so that the next program need not wait for it. */
  #replace(): void {
    if (this.#closed) return
    if (this.#runs.size + this.#starting < this.#size) this.#start().catch((error: unknown) => this.#fail(error))
  }

  #serve(): void {
    while (this.#waiting.length > 0 && this.#idle.length > 0) {
      const guest = this.#idle.pop()!
      if (guest.dead) {
        this.#drop(guest)
        continue
      }
      guest.hold(true)
      this.#waiting.shift()!.resolve(guest)
    }
    const wanted = Math.min(this.#waiting.length - this.#starting, this.#size - this.#runs.size - this.#starting)
    for (let i = 0; i < wanted; i++) this.#start().catch((error: unknown) => this.#fail(error))
  }

  #fail(error: unknown): void {
    for (const waiter of this.#waiting.splice(0)) waiter.reject(error)
  }

  #add(guest: GuestProcess): void {
    if (this.#closed) {
      this.#drop(guest)
      return
    }
    guest.hold(false)
    this.#idle.push(guest)
    this.#serve()
  }

  async #start(): Promise<void> {
    this.#starting++
    let guest: GuestProcess | undefined
    try {
      let config = this.#config
      if (config.pyodide !== undefined) {
        // An image that could not be made may be made at the next try.
        this.#image ??= pythonImage(config).catch((error: unknown) => {
          this.#image = undefined
          throw error
        })
        config = { ...config, snapshot: await this.#image }
      }
      if (this.#closed) throw closedError()
      const start = async (): Promise<void> => {
        guest = new GuestProcess(config)
        this.#young.add(guest)
        await guest.ready(START_MS)
      }
      const wall = findWall()
      await start().catch(async (error: unknown) => {
        if (!wall.reading || this.#closed) throw error
        this.#young.delete(guest!)
        const restore = withoutOwnRoot(wall)
        await start().catch((again: unknown) => {
          // The root was not what kept it from starting.
          restore()
          throw again
        })
        process.emitWarning(
          `The sandbox starts only where its programs can read files of the system: ${error instanceof Error ? error.message : String(error)}`,
          { code: "SLOTH_SANDBOX_READING" },
        )
      })
      this.#runs.set(guest!, 0)
    } finally {
      this.#starting--
      if (guest !== undefined) this.#young.delete(guest)
    }
    this.#add(guest!)
  }
}

const closedError = (): SlothError =>
  new SlothError("SLOTH_SANDBOX_CLOSED", { what: "The sandbox is disposed of.", next: "Create another one." })
