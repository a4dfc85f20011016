import { availableParallelism } from "node:os"
import { SlothError } from "@sloth/core"
import { GuestPool } from "./internal/guest-pool.ts"
import { isFatal, type SandboxCall, type SandboxOutcome, type SandboxValue } from "./outcome.ts"

/** Languages that a sandbox runs. */
export type SandboxLanguage = "javascript" | "python"

/** What {@link createSandbox} takes. */
export interface SandboxOptions {
  readonly language: SandboxLanguage
  /** Longest time of a step (running the program, or one call), milliseconds; 2000 when absent. */
  readonly timeMs?: number
  /** Longest time of all steps of a program together, milliseconds; ten times `timeMs` when absent. */
  readonly totalMs?: number
  /** Most memory of a program, bytes; 256 MiB when absent. The interpreter takes 30 MiB of it for Python, 16 for JavaScript. */
  readonly memoryBytes?: number
  /** Most bytes that a step may print, and most bytes of the value it returns; 64 KiB when absent. */
  readonly outputBytes?: number
  /** Programs that run at the same time, each in a process of its own; one fewer than the processors, four at most, when absent. */
  readonly processes?: number
  /** Programs after which a process is replaced; 64 when absent. */
  readonly recycleAfter?: number
}

/** How to run one program. */
export interface RunOptions {
  /** A function of the program to call; its value is the outcome's. Without it the value is null. */
  readonly call?: SandboxCall
  /** What the program reads: Python's standard input, JavaScript's global `stdin`. */
  readonly stdin?: string
  /** Instead of the sandbox's `timeMs`. */
  readonly timeMs?: number
  readonly signal?: AbortSignal
}

/** A program that stays, so that it can be called again and again. */
export interface SandboxSession extends AsyncDisposable {
  /** How running the program's own text went. */
  readonly opened: SandboxOutcome
  /** Calls one of its functions. After a fatal outcome every call has that outcome. */
  call(call: SandboxCall, options?: { readonly timeMs?: number }): Promise<SandboxOutcome>
}

/** Runs programs that no one has read. Dispose of it to end its processes. */
export interface Sandbox extends AsyncDisposable {
  readonly language: SandboxLanguage
  /** Runs a program in a fresh interpreter. Whatever the program does is an outcome, not an error. */
  run(code: string, options?: RunOptions): Promise<SandboxOutcome>
  /** Runs a program and makes several calls, in order, in the same interpreter. */
  runCalls(
    code: string,
    calls: readonly SandboxCall[],
    options?: Omit<RunOptions, "call">,
  ): Promise<{ readonly opened: SandboxOutcome; readonly calls: readonly SandboxOutcome[] }>
  /** Runs a program and keeps it until the session is disposed of. */
  open(code: string, options?: Omit<RunOptions, "call">): Promise<SandboxSession>
  /** Starts all processes now, so that the first programs need not wait. */
  warm(): Promise<void>
}

const atLeast = (name: keyof SandboxOptions, value: number, least: number, most: number): number => {
  if (Number.isFinite(value) && value >= least && value <= most) return value
  throw new SlothError("SLOTH_SANDBOX_OPTION", {
    what: `The option ${name} of a sandbox is ${value}.`,
    next: `Give a number from ${least} to ${most}.`,
    fields: { option: name, value, least, most },
  })
}

/**
 * Makes a sandbox. JavaScript runs in QuickJS, Python in CPython, both compiled to WebAssembly, in processes of their own without environment, files or
 * network, which are killed when they do not end in time. Works under Bun, Node and Deno.
 * Errors: SLOTH_SANDBOX_OPTION, SLOTH_SANDBOX_PYODIDE when Python's interpreter is not installed; when it runs: SLOTH_SANDBOX_START, SLOTH_SANDBOX_CLOSED.
 */
export const createSandbox = (options: SandboxOptions): Sandbox => {
  const { language } = options
  if (language !== "javascript" && language !== "python")
    throw new SlothError("SLOTH_SANDBOX_OPTION", {
      what: `There is no sandbox for "${String(language)}".`,
      next: 'Take "javascript" or "python".',
      fields: { option: "language", value: language },
    })
  const timeMs = atLeast("timeMs", options.timeMs ?? 2000, 1, 3_600_000)
  const totalMs = atLeast("totalMs", options.totalMs ?? timeMs * 10, timeMs, 36_000_000)
  const mebibyte = 2 ** 20
  const memoryBytes = atLeast(
    "memoryBytes",
    options.memoryBytes ?? 256 * mebibyte,
    (language === "python" ? 48 : 24) * mebibyte,
    2048 * mebibyte,
  )
  const outputBytes = atLeast("outputBytes", options.outputBytes ?? 65_536, 1, 64 * mebibyte)
  const processes = atLeast(
    "processes",
    options.processes ?? Math.max(1, Math.min(4, availableParallelism() - 1)),
    1,
    1024,
  )
  const recycleAfter = atLeast("recycleAfter", options.recycleAfter ?? 64, 1, 1_000_000)
  const pool = new GuestPool({ language, timeMs, memoryBytes, outputBytes }, processes, recycleAfter)

  const open = async (code: string, run: Omit<RunOptions, "call"> = {}): Promise<SandboxSession> => {
    const limit = run.timeMs === undefined ? timeMs : atLeast("timeMs", run.timeMs, 1, 3_600_000)
    const guest = await pool.take(run.signal)
    let left = Math.max(totalMs, limit)
    let gone: SandboxOutcome | undefined
    const stop = (): void => guest.kill()
    run.signal?.addEventListener("abort", stop, { once: true })
    const step = async (request: StepRequest, most: number): Promise<SandboxOutcome> => {
      if (gone !== undefined) return gone
      const outcome = await guest.step({ ...request, timeMs: Math.max(1, Math.min(most, left)) }, GRACE_MS)
      run.signal?.throwIfAborted()
      left -= outcome.ms
      if (isFatal(outcome)) gone = { ...outcome, stdout: "", ms: 0 }
      else if (guest.dead) gone = { status: "timeout", message: "the process has ended", stdout: "", ms: 0 }
      else if (left <= 0)
        gone = { status: "timeout", message: "the time of all its steps together is up", stdout: "", ms: 0 }
      return outcome
    }
    let closed = false
    const close = (): Promise<void> => {
      run.signal?.removeEventListener("abort", stop)
      if (!closed) pool.giveBack(guest)
      closed = true
      return Promise.resolve()
    }
    try {
      const opened = await step({ type: "open", code, stdin: run.stdin }, limit)
      return {
        opened,
        call: ({ function: name, args = [], locked }, own = {}) => {
          if (closed) return Promise.reject(closedError())
          if (locked === true && language !== "python") return Promise.reject(lockedError())
          return step({ type: "call", function: name, args, locked }, own.timeMs ?? limit)
        },
        [Symbol.asyncDispose]: close,
      }
    } catch (error) {
      guest.kill()
      await close()
      throw error
    }
  }

  const runCalls: Sandbox["runCalls"] = async (code, calls, run = {}) => {
    await using session = await open(code, run)
    const { opened } = session
    if (opened.status !== "ok") return { opened, calls: calls.map(() => opened) }
    const outcomes: SandboxOutcome[] = []
    for (const call of calls) outcomes.push(await session.call(call))
    return { opened, calls: outcomes }
  }

  return {
    language,
    open,
    runCalls,
    run: async (code, run = {}) => {
      const { call } = run
      const { opened, calls } = await runCalls(code, call === undefined ? [] : [call], run)
      const [called] = calls
      if (called === undefined || opened.status !== "ok") return opened
      return { ...called, stdout: opened.stdout + called.stdout, ms: opened.ms + called.ms }
    },
    warm: () => pool.warm(),
    [Symbol.asyncDispose]: () => pool.close(),
  }
}

/** Time for an answer to arrive after its deadline before the process is killed: it stops itself where it can, which costs no new process. */
const GRACE_MS = 250

type StepRequest =
  | { readonly type: "open"; readonly code: string; readonly stdin?: string }
  | {
      readonly type: "call"
      readonly function: string
      readonly args: readonly SandboxValue[]
      readonly locked?: boolean
    }

const closedError = (): SlothError =>
  new SlothError("SLOTH_SANDBOX_CLOSED", {
    what: "The session of a sandbox is disposed of.",
    next: "Open another one.",
  })

const lockedError = (): SlothError =>
  new SlothError("SLOTH_SANDBOX_OPTION", {
    what: "A locked call is for Python.",
    why: "JavaScript has no way to take a function out of its scope.",
    next: "Leave `locked` out.",
    fields: { option: "locked" },
  })
