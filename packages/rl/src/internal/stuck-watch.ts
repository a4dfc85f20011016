import { Worker } from "node:worker_threads"
import { SlothError } from "@sloth/core"
import { isDebugged } from "./debugged.ts"
import type { CodeLimit } from "./limited-code.ts"

// Places in the shared state.
const [ARMED, BEAT, LIMIT, LENGTH, PLACES] = [0, 1, 2, 3, 4]
const TEXT_BYTES = 8192
const BEAT_MS = 250

/** Armed: 0 idle, 1 watching, -1 over. Time counts in small pieces, so that a machine or a process that was suspended has not spent it. */
const BODY = `
const { workerData: { state, text } } = require("node:worker_threads")
const { writeSync } = require("node:fs")
while (Atomics.load(state, ${ARMED}) >= 0) {
  Atomics.wait(state, ${ARMED}, 0)
  let beat = Atomics.load(state, ${BEAT}), still = 0, last = performance.now()
  while (Atomics.load(state, ${ARMED}) === 1) {
    Atomics.wait(state, ${ARMED}, 1, ${BEAT_MS})
    const now = performance.now(), heard = Atomics.load(state, ${BEAT})
    still = heard === beat ? still + Math.min(now - last, ${2 * BEAT_MS}) : 0
    beat = heard
    last = now
    if (still <= Atomics.load(state, ${LIMIT})) continue
    const said = Uint8Array.from(text.subarray(0, Atomics.load(state, ${LENGTH})))
    try { for (let at = 0; at < said.length;) at += writeSync(2, said, at) } catch {}
    process.kill(process.pid, "SIGKILL")
  }
}
`

/** The time after which nothing will come of an interruption any more, in milliseconds. */
const patienceOf = (seconds: number): number => Math.min(2 ** 31 - 1, Math.ceil(seconds * 1100 + 5000))

/** Notices from a thread of its own that the main thread stands still while code of the user is under way. */
class StuckWatch {
  readonly #open = new Set<CodeLimit>()
  /** Those who want it, each with its words; the last one's are said. One thread watches for all of them. */
  readonly #users: { readonly format: (error: SlothError) => string }[] = []
  #state: Int32Array | undefined
  #text: Uint8Array | undefined
  #beats: ReturnType<typeof setInterval> | undefined

  /** Starts the thread where none watches yet; returns what ends it, unless others want it still. */
  start(format: (error: SlothError) => string): () => void {
    const user = { format }
    this.#users.push(user)
    if (this.#state === undefined) {
      this.#state = new Int32Array(new SharedArrayBuffer(4 * PLACES))
      this.#text = new Uint8Array(new SharedArrayBuffer(TEXT_BYTES))
      new Worker(BODY, { eval: true, workerData: { state: this.#state, text: this.#text } }).unref()
    }
    this.#between()
    return () => {
      const at = this.#users.indexOf(user)
      if (at < 0) return
      this.#users.splice(at, 1)
      if (this.#users.length === 0) this.#end()
      else this.#between()
    }
  }

  #end(): void {
    const state = this.#state!
    this.#state = undefined
    this.#text = undefined
    clearInterval(this.#beats)
    this.#beats = undefined
    Atomics.store(state, ARMED, -1)
    Atomics.notify(state, ARMED)
  }

  /** Code of the user is under way, until what is returned is called. */
  enter(limit: CodeLimit): () => void {
    this.#open.add(limit)
    this.#between()
    return () => {
      this.#open.delete(limit)
      this.#between()
    }
  }

  /** Code of the user has the thread, until what is returned is called. */
  call(limit: CodeLimit): () => void {
    this.#arm(patienceOf(limit.seconds), [limit])
    return () => this.#between()
  }

  /** Whatever is under way waits for something, or is called by the event loop. */
  #between(): void {
    const all = [...this.#open]
    const longest = Math.max(0, ...all.map(({ seconds, patience = 1 }) => seconds * patience))
    this.#arm(patienceOf(longest), all)
  }

  #arm(ms: number, limits: readonly CodeLimit[]): void {
    const [state, text, user] = [this.#state, this.#text, this.#users.at(-1)]
    const on = state !== undefined && limits.length > 0 && !isDebugged()
    if (!on) {
      clearInterval(this.#beats)
      this.#beats = undefined
    }
    if (state === undefined || text === undefined || user === undefined) return
    if (on) {
      // Cut off at a whole character.
      const { written } = new TextEncoder().encodeInto(`\n${user.format(stuckError(limits, ms))}\n`, text)
      Atomics.store(state, LENGTH, written)
      Atomics.store(state, LIMIT, ms)
      this.#beats ??= setInterval(() => this.#state && Atomics.add(this.#state, BEAT, 1), BEAT_MS).unref()
    }
    Atomics.add(state, BEAT, 1)
    if (Atomics.exchange(state, ARMED, on ? 1 : 0) !== (on ? 1 : 0)) Atomics.notify(state, ARMED)
  }
}

const stuckError = (limits: readonly CodeLimit[], ms: number): SlothError => {
  const names = [...new Set(limits.map(({ what }) => what))]
  const { code, fields } = limits[0]!.late()
  return new SlothError(code as `SLOTH_${string}`, {
    what:
      names.length === 1
        ? `The ${names[0]} has held the thread for ${Math.round(ms / 1000)} s and cannot be interrupted, so the process was ended.`
        : `One of these has held the thread for ${Math.round(ms / 1000)} s and cannot be interrupted, so the process was ended: ${names.join(", ")}.`,
    why: "A loop after an await gives nothing else a turn; what is computed before the first await is interrupted in time.",
    fields,
  })
}

/** The watch of this process. */
export const stuckWatch = new StuckWatch()
