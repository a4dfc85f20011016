import { describe, expect, test } from "bun:test"
import * as Effect from "effect/Effect"
import { isSlothError, openTracker, silentLogger, singleProcess, slothPaths } from "./index.ts"
import type { RunEvent, Tracker } from "./index.ts"

const run = { name: "a", directory: "runs/a", config: {}, logger: silentLogger() }
const events: readonly RunEvent[] = [
  { type: "warning", code: "SLOTH_A", message: "m" },
  { type: "run-end", step: 1, reason: "completed" },
]

const codeOf = async (tracker: Tracker): Promise<string> => {
  try {
    await openTracker(tracker, run)
  } catch (error) {
    if (isSlothError(error)) return error.code
    throw error
  }
  return "opened"
}

describe("openTracker", () => {
  test("a session and a scoped Effect are used alike", async () => {
    for (const kind of ["session", "effect"] as const) {
      const log: string[] = []
      const plain: Tracker = {
        name: "plain",
        open: () => ({ event: (event) => void log.push(event.type), close: () => void log.push("closed") }),
      }
      const scoped: Tracker = {
        name: "scoped",
        open: () =>
          Effect.acquireRelease(
            Effect.succeed((event: RunEvent) => void log.push(event.type)),
            () => Effect.sync(() => log.push("closed")),
          ),
      }
      const session = await openTracker(kind === "session" ? plain : scoped, run)
      for (const event of events) session.event(event)
      await session.close()
      expect(log).toEqual(["warning", "run-end", "closed"])
    }
  })

  test("a tracker that cannot start is a coded error", async () => {
    expect(await codeOf({ name: "t", open: () => Promise.reject(new Error("no network")) })).toBe(
      "SLOTH_TRACKER_FAILED",
    )
    expect(await codeOf({ name: "t", open: () => Effect.fail(new Error("no network")) })).toBe("SLOTH_TRACKER_FAILED")
  })
})

test("one process is rank 0 of 1", async () => {
  expect([singleProcess.rank, singleProcess.size]).toEqual([0, 1])
  await singleProcess.allReduce([], "sum")
  await singleProcess.barrier()
})

test("folders come from options, then the environment, then the home folder", () => {
  expect(slothPaths({ project: "/p", env: { HOME: "/h" } })).toEqual({
    project: "/p",
    runs: "/p/runs",
    cache: "/h/.cache/sloth",
  })
  expect(slothPaths({ project: "/p", env: { HOME: "/h", XDG_CACHE_HOME: "/x" } }).cache).toBe("/x/sloth")
  expect(slothPaths({ project: "/p", env: { SLOTH_CACHE: "/c" }, runs: "out" })).toMatchObject({
    cache: "/c",
    runs: "/p/out",
  })
})
