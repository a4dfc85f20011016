import type { SlothError } from "@sloth/core"
import { stuckWatch } from "../internal/stuck-watch.ts"

/**
 * Ends this process (SIGKILL) when a reward or an environment holds the thread past its limit and cannot be interrupted: it loops after an `await`.
 * `format` says what stderr is told before. It is off until called, because only a program as a whole may decide to end itself; disposing of the result switches it off again.
 * Loops that can be interrupted never come this far: they are errors like any other.
 */
export const endStuckProcess = (format: (error: SlothError) => string): Disposable => {
  const stop = stuckWatch.start(format)
  return { [Symbol.dispose]: stop }
}
