import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { RunInfo, Tracker, TrackerSession } from "./contracts.ts"
import { isSlothError, SlothError } from "./errors.ts"

const failed = (tracker: Tracker, action: string, cause: unknown): SlothError =>
  isSlothError(cause)
    ? cause
    : new SlothError("SLOTH_TRACKER_FAILED", {
        what: `The tracker "${tracker.name}" could not ${action}.`,
        why: cause instanceof Error ? cause.message : String(cause),
        next: "Fix its settings or leave it out; the run itself does not need it.",
        fields: { tracker: tracker.name },
        cause,
      })

/**
 * Opens a tracker, whichever way it is written, as a session whose `close` is always there.
 * Errors: SLOTH_TRACKER_FAILED, or the tracker's own SlothError.
 */
export const openTracker = async (tracker: Tracker, run: RunInfo): Promise<Required<TrackerSession>> => {
  let opened: ReturnType<Tracker["open"]>
  try {
    opened = tracker.open(run)
    if (!Effect.isEffect(opened)) {
      const session = await opened
      return {
        event: session.event,
        close: async () => {
          try {
            await session.close?.()
          } catch (error) {
            throw failed(tracker, "close", error)
          }
        },
      }
    }
  } catch (error) {
    throw failed(tracker, "start", error)
  }
  const scope = Scope.makeUnsafe("sequential")
  try {
    const event = await Effect.runPromise(Scope.provide(opened, scope))
    return {
      event,
      close: async () => {
        try {
          await Effect.runPromise(Scope.close(scope, Exit.void))
        } catch (error) {
          throw failed(tracker, "close", error)
        }
      },
    }
  } catch (error) {
    await Effect.runPromise(Scope.close(scope, Exit.void)).catch(() => undefined)
    throw failed(tracker, "start", error)
  }
}
