import { describe, expect, test } from "bun:test"
import { appendFileSync, readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import type { Tracker } from "@sloth/core"

import { describeTracker } from "./describe-tracker.ts"
import { collectingApi, firstFailureOf } from "./internal/collecting-api.ts"

/** Writes the losses of a run to a file when it ends. */
const losses: Tracker = {
  name: "losses",
  open(run) {
    const lines: string[] = []
    return {
      event: (event) => {
        if (event.type === "step") lines.push(`${event.step} ${event.loss}\n`)
      },
      close: () => appendFileSync(join(run.directory, "losses.txt"), lines.join("")),
    }
  },
}

describeTracker("losses", () => losses, {
  inspect({ directory }) {
    expect(readFileSync(join(directory, "losses.txt"), "utf8")).toBe("1 3\n2 1.5\n3 1\n")
  },
})

describe("the kit refuses", () => {
  const refused: Record<string, Tracker> = {
    "a throw on an unknown metric": {
      name: "a",
      open: () => ({
        event: (event) => {
          if (event.type === "step" && event.metrics !== undefined) throw new Error("metrics?")
        },
      }),
    },
    "a change to an event": {
      name: "b",
      open: () => ({ event: (event) => void ((event as { type: string }).type = "step") }),
    },
    "a sink that makes the step wait": { name: "c", open: () => ({ event: async () => {} }) },
    "a close that fails": { name: "d", open: () => ({ event: () => {}, close: () => Promise.reject(new Error("x")) }) },
    "a tracker that rewrites the events": {
      name: "e",
      open: (run) => ({ event: () => {}, close: () => writeFileSync(join(run.directory, "events.jsonl"), "") }),
    },
  }
  for (const [label, tracker] of Object.entries(refused)) {
    test(label, async () => {
      const api = collectingApi()
      describeTracker(label, () => tracker, { api })
      expect(await firstFailureOf(api.tests)).toBeString()
    })
  }
})
