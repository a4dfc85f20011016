import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { checkEvent, openTracker, type Logger, type RunEvent, type RunInfo, type Tracker } from "@sloth/core"

import { check } from "./internal/assert.ts"
import { deepFreeze } from "./internal/freeze.ts"
import { defaultTestApi, type TestApi } from "./test-api.ts"

/** Settings of {@link describeTracker}. */
export interface DescribeTrackerOptions {
  /** Looks at what the tracker left behind after a whole run; throws when something is missing. */
  readonly inspect?: (run: { readonly directory: string; readonly events: readonly RunEvent[] }) => void | Promise<void>
  /** False or a reason when the tracker cannot run here, such as a missing server. */
  readonly available?: boolean | string
  /** Functions of the test runner; `bun:test` or `node:test` when absent. */
  readonly api?: TestApi
}

// A run with every type of event, sparse and full.
const EVENTS: readonly RunEvent[] = [
  {
    type: "run-start",
    time: "2026-01-02T03:04:05.000Z",
    run: "conformance",
    version: "0.0.0",
    command: "sloth train",
    seed: 7,
    config: { learningRate: 2e-4, target: ["q_proj"], nested: { a: null, b: [1, "two"] } },
  },
  { type: "run-start", run: "conformance", version: "0.0.0", resumedFromStep: 0 },
  { type: "plan", plan: { trainableParameters: 1000, microBatches: [] } },
  { type: "plan", plan: {} },
  { type: "sample", step: 0, phase: "before", prompt: "Hi?", completion: "", reward: -1.5 },
  ...[1, 2, 3].map((step): RunEvent => ({
    type: "step",
    step,
    loss: 3 / step,
    gradNorm: step === 2 ? 0 : 1e-9,
    learningRate: 2e-4,
    tokens: 2048 * step,
    scoredTokens: step === 3 ? 0 : 1310,
    seconds: 0.25,
    tokensPerSecond: 8192,
    peakRssBytes: 6e9,
    ...(step === 2 ? { epoch: 0.5, metrics: { "reward/mean": -0.25, entropy: 1e-30 } } : {}),
  })),
  { type: "eval", step: 3, loss: 1.25 },
  {
    type: "eval",
    step: 3,
    name: "held-out",
    loss: 1.25,
    perplexity: 3.49,
    scoredTokens: 99,
    seconds: 1,
    best: true,
    metrics: { accuracy: 0.5 },
  },
  { type: "sample", step: 3, prompt: 'tab\t"quotes" \u{1f9a5}\nline', completion: "\u0000 <b>&amp;</b> \ud83d" },
  { type: "checkpoint", step: 3, path: "checkpoints/step-000003", bytes: 12345, seconds: 0.1, best: false },
  { type: "warning", code: "SLOTH_TEST_WARNING", message: "Something.", step: 3, fields: { rows: 2 } },
  { type: "export", format: "gguf", path: "exports/model.gguf", bytes: 1, verified: true, maxLogprobDifference: 1e-4 },
  { type: "error", code: "SLOTH_TEST_ERROR", message: "Failed.", step: 3, fields: {} },
  { type: "run-end", step: 3, reason: "completed", seconds: 2, tokens: 12288, loss: 1 },
]

const silent: Logger = { debug: () => {}, info: () => {}, warn: () => {}, child: () => silent }

/**
 * Declares the conformance tests of a tracker: it takes every event a run can have, changes none, returns from each at once, closes, serves several runs one
 * after another and side by side, continues a resumed run, and leaves the run's own files alone.
 */
export function describeTracker(
  name: string,
  make: () => Tracker | Promise<Tracker>,
  options: DescribeTrackerOptions = {},
): void {
  const { describe, test } = options.api ?? defaultTestApi()
  const { available = true } = options
  if (available !== true) {
    const reason = available === false ? "not available here" : available
    describe(`tracker ${name}`, () => test.skip(`tracker conformance (${reason})`, () => {}))
    return
  }

  // A run folder with the files that belong to the run.
  const inFolder = async (body: (directory: string) => Promise<void>): Promise<void> => {
    const directory = mkdtempSync(join(tmpdir(), "sloth-tracker-"))
    const own = { "config.json": '{"a":1}\n', "events.jsonl": '{"type":"plan","plan":{}}\n' }
    try {
      for (const [file, text] of Object.entries(own)) writeFileSync(join(directory, file), text)
      await body(directory)
      for (const [file, text] of Object.entries(own)) {
        check(
          readdirSync(directory).includes(file) && readFileSync(join(directory, file), "utf8") === text,
          `${file} belongs to the run, but the tracker changed it`,
        )
      }
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  }
  const info = (directory: string, resumedFromStep?: number): RunInfo => ({
    name: "conformance",
    directory,
    config: deepFreeze({ learningRate: 2e-4, nested: { list: [1, 2] } }),
    ...(resumedFromStep === undefined ? {} : { resumedFromStep }),
    logger: silent,
  })
  const events = EVENTS.map((event) => deepFreeze(checkEvent(structuredClone(event))))

  describe(`tracker ${name}`, () => {
    test("has a name", async () => {
      check((await make()).name !== "", "a tracker needs a name")
    })

    test("takes every event of a run, changes none, and closes", () =>
      inFolder(async (directory) => {
        const session = await openTracker(await make(), info(directory))
        for (const event of events) {
          const before = JSON.stringify(event)
          const result: unknown = session.event(event)
          check(result === undefined, `event ${event.type}: a sink returns nothing, so that a step never waits for it`)
          check(JSON.stringify(event) === before, `event ${event.type} was changed`)
        }
        await session.close()
        await options.inspect?.({ directory, events })
      }))

    test("takes a thousand steps without blocking", () =>
      inFolder(async (directory) => {
        const session = await openTracker(await make(), info(directory))
        const step = events.find((event) => event.type === "step")!
        const start = performance.now()
        for (let i = 1; i <= 1000; i++) session.event(deepFreeze({ ...step, step: i }))
        const each = (performance.now() - start) / 1000
        await session.close()
        check(each < 5, `an event takes ${each.toFixed(2)} ms; do slow work later and wait for it in close`)
      }))

    test("may be closed without an event, or after a start alone", () =>
      inFolder(async (directory) => {
        await (await openTracker(await make(), info(directory))).close()
        const session = await openTracker(await make(), info(directory))
        session.event(events[0]!)
        await session.close()
      }))

    test("continues a resumed run", () =>
      inFolder(async (directory) => {
        for (const resumedFromStep of [undefined, 2]) {
          const session = await openTracker(await make(), info(directory, resumedFromStep))
          for (const event of events) session.event(event)
          await session.close()
        }
      }))

    test("follows two runs at once", () =>
      inFolder(async (first) =>
        inFolder(async (second) => {
          const tracker = await make()
          const sessions = [
            await openTracker(tracker, info(first)),
            await openTracker(tracker, { ...info(second), name: "other" }),
          ]
          for (const event of events) for (const session of sessions) session.event(event)
          for (const session of sessions) await session.close()
          await options.inspect?.({ directory: first, events })
          await options.inspect?.({ directory: second, events })
        }),
      ))
  })
}
