import { performance } from "node:perf_hooks"
import { Script } from "node:vm"
import type { SlothError } from "@sloth/core"
import { isDebugged } from "./debugged.ts"
import { stuckWatch } from "./stuck-watch.ts"

/** What code of the user may take. */
export interface CodeLimit {
  /** What it is, in words: `reward "short"`. */
  readonly what: string
  readonly seconds: number
  /** The error when it has taken longer. */
  readonly late: () => SlothError
  /** How many times its limit the thread may stand still between its calls, where other work shares it; 1 when absent. */
  readonly patience?: number
}

// Only a script's own run can be given a time, so the function waits for it in a place that both know.
const SLOT = Symbol.for("@sloth/rl:limited-code")
const place = globalThis as { [SLOT]?: (() => unknown) | undefined }
let script: Script | undefined
/** Longest time that timers of the runtime take, milliseconds; a longer one would be over at once. */
const LONGEST_MS = 2 ** 31 - 1

/** Milliseconds that code of the user has held the thread so far: others must not be thought slow for it. */
let held = 0
let calling = false

const isTimeout = (error: unknown): boolean =>
  error instanceof Error && (error as NodeJS.ErrnoException).code === "ERR_SCRIPT_EXECUTION_TIMEOUT"

/**
 * Code of the user with a limit of time. `call` interrupts what computes for too long without a pause: the runtime stops the loop, in this thread, and the state of everything else is as
 * it was. `within` gives up waiting for what is asynchronous. What neither reaches (a loop after an `await`) is left to
 * the watch over stuck processes.
 */
export class LimitedCode implements Disposable {
  readonly #limit: CodeLimit
  readonly #left: () => void
  /** Milliseconds of the calls of this code. */
  #own = 0
  #timer: ReturnType<typeof setTimeout> | undefined
  readonly #late: Promise<never>

  constructor(limit: CodeLimit) {
    this.#limit = limit
    let fail: (error: SlothError) => void
    this.#late = new Promise<never>((_, reject) => (fail = reject))
    this.#late.catch(() => undefined)
    const start = held
    let forgiven = 0
    const wait = (ms: number): void => {
      this.#timer = setTimeout(
        () => {
          const others = held - start - this.#own - forgiven
          forgiven += others
          if (others > 1) wait(others)
          else fail(limit.late())
        },
        Math.min(LONGEST_MS, ms),
      )
    }
    wait(limit.seconds * 1000)
    this.#left = stuckWatch.enter(limit)
  }

  /** Calls a function; one that does not come back in time is interrupted, and `late` thrown. */
  call<A>(work: () => A): A {
    // A call within a call has the limit of the outer one.
    if (calling || isDebugged()) return work()
    const { seconds, late } = this.#limit
    const timeout = Math.min(LONGEST_MS, Math.max(1, Math.ceil(seconds * 1000)))
    const started = performance.now()
    const back = stuckWatch.call(this.#limit)
    calling = true
    place[SLOT] = work
    try {
      script ??= new Script(`globalThis[Symbol.for(${JSON.stringify(SLOT.description)})]()`)
      return script.runInThisContext({ timeout }) as A
    } catch (error) {
      // Timers of the runtime count whole milliseconds, so that they may be early by one or two.
      if (isTimeout(error) && performance.now() - started >= timeout - 5) throw late()
      throw error
    } finally {
      place[SLOT] = undefined
      calling = false
      const ms = performance.now() - started
      held += ms
      this.#own += ms
      back()
    }
  }

  /** Waits for a result until the time is up. Errors: `late`; those of the result. */
  within<A>(result: A | Promise<A>): Promise<A> {
    return Promise.race([result, this.#late])
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer)
    this.#left()
  }
}
