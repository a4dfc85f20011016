import { isSlothError, SlothError } from "@sloth/core"
import type { EnvironmentContext } from "../environments/environment.ts"

/**
 * Runs a part of an environment with its limit of time. Errors: SLOTH_ENVIRONMENT_TIMEOUT; whatever `work` throws. A function that never gives the event loop a turn cannot be
 * stopped.
 */
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
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const error = new SlothError("SLOTH_ENVIRONMENT_TIMEOUT", {
        what: `The environment "${environment}" has not answered in ${turnSeconds} s.`,
        next: "Make it faster, raise turnSeconds, or let failing episodes count as null.",
        fields: { environment, turnSeconds },
      })
      reject(error)
      stop.abort(error)
    }, turnSeconds * 1000)
    stop.signal.addEventListener("abort", () => reject(stop.signal.reason), { once: true })
  })
  const metric = (name: string, value: number): void => {
    if (!stop.signal.aborted && Number.isFinite(value)) options.metric?.(name, value)
  }
  try {
    return await Promise.race([Promise.resolve().then(() => work({ signal: stop.signal, metric })), late])
  } finally {
    clearTimeout(timer)
    signal?.removeEventListener("abort", abort)
    late.catch(() => undefined)
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
