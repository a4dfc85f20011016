import { isSlothError, SlothError } from "@sloth/core"
import type { EnvironmentContext } from "../environments/environment.ts"
import { LimitedCode } from "./limited-code.ts"

const codeOf = new WeakMap<EnvironmentContext, LimitedCode>()

/** Calls a function of an environment that was given `context`, within the limit of its turn where there is one. */
export const callWithin = <A>(context: EnvironmentContext, work: () => A): A => {
  const code = codeOf.get(context)
  return code === undefined ? work() : code.call(work)
}

/** Runs a part of an environment with its limit of time; what it calls of the user goes through {@link callWithin}. Errors: SLOTH_ENVIRONMENT_TIMEOUT; whatever `work` throws. */
export const guarded = async <A>(
  options: {
    readonly environment: string
    readonly turnSeconds: number
    readonly signal: AbortSignal | undefined
    readonly metric?: (name: string, value: number) => void
  },
  work: (context: EnvironmentContext) => A | Promise<A>,
): Promise<A> => {
  const { environment, turnSeconds, signal } = options
  const stop = new AbortController()
  const abort = (): void => stop.abort(signal?.reason)
  signal?.addEventListener("abort", abort, { once: true })
  const stopped = new Promise<never>((_, reject) =>
    stop.signal.addEventListener("abort", () => reject(stop.signal.reason), { once: true }),
  )
  stopped.catch(() => undefined)
  const late = (): SlothError =>
    new SlothError("SLOTH_ENVIRONMENT_TIMEOUT", {
      what: `The environment "${environment}" has not answered in ${turnSeconds} s.`,
      next: "Make it faster, raise turnSeconds, or let failing episodes count as null.",
      fields: { environment, turnSeconds },
    })
  using code = new LimitedCode({ what: `environment "${environment}"`, seconds: turnSeconds, late })
  const metric = (name: string, value: number): void => {
    if (!stop.signal.aborted && Number.isFinite(value)) options.metric?.(name, value)
  }
  const context = { signal: stop.signal, metric }
  codeOf.set(context, code)
  try {
    const result = Promise.resolve().then(() => work(context))
    return await Promise.race([code.within(result), stopped])
  } catch (error) {
    // What goes on although nobody waits for it may know.
    stop.abort(error)
    throw error
  } finally {
    signal?.removeEventListener("abort", abort)
  }
}

/** The coded error of an environment that threw. */
export const environmentError = (environment: string, cause: unknown): SlothError =>
  isSlothError(cause) && cause.code.startsWith("SLOTH_")
    ? cause
    : new SlothError("SLOTH_ENVIRONMENT_FAILED", {
        what: `The environment "${environment}" failed: ${cause instanceof Error ? cause.message : String(cause)}`,
        next: "Mend it, or let failing episodes count as null.",
        fields: { environment },
        cause,
      })
