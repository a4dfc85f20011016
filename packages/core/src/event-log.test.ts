import { afterAll, describe, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { checkEvent, EventLog, isSlothError, readEvents } from "./index.ts"
import type { RunEvent, StepEvent } from "./index.ts"

const root = mkdtempSync(join(tmpdir(), "sloth-events-"))
afterAll(() => rmSync(root, { recursive: true, force: true }))
let files = 0
const fresh = (): string => join(root, `events-${files++}.jsonl`)

const step = (number: number, more: Partial<StepEvent> = {}): StepEvent => ({
  type: "step",
  step: number,
  loss: 2.31,
  gradNorm: 0.8,
  learningRate: 0.0002,
  tokens: 2048,
  scoredTokens: 1310,
  seconds: 4.2,
  tokensPerSecond: 487,
  peakRssBytes: 1_100_000_000,
  ...more,
})

const codeOf = async (run: () => unknown): Promise<string> => {
  try {
    await run()
  } catch (error) {
    if (isSlothError(error)) return error.code
    throw error
  }
  return "nothing was refused"
}

describe("checkEvent", () => {
  test("a step has the documented keys in the documented order", () => {
    const shuffled = Object.fromEntries(Object.entries(step(1)).reverse()) as unknown as RunEvent
    expect(JSON.stringify(checkEvent(shuffled))).toBe(
      '{"type":"step","step":1,"loss":2.31,"gradNorm":0.8,"learningRate":0.0002,"tokens":2048,"scoredTokens":1310,"seconds":4.2,"tokensPerSecond":487,"peakRssBytes":1100000000}',
    )
  })

  test("accepts every type", () => {
    const events: RunEvent[] = [
      { type: "run-start", run: "a", version: "0.1.0", seed: 1, config: { rank: 8 } },
      { type: "plan", plan: { steps: 3 } },
      step(1, { epoch: 0.5, metrics: { accuracy: 1 } }),
      { type: "eval", step: 1, loss: 1, perplexity: Math.E },
      { type: "sample", step: 0, phase: "before", prompt: "p", completion: "c" },
      { type: "checkpoint", step: 1, path: "checkpoints/step-000001" },
      { type: "warning", code: "SLOTH_X", message: "m" },
      { type: "export", format: "gguf", path: "exports/a.gguf", verified: true, maxLogprobDifference: 1e-5 },
      { type: "run-end", step: 1, reason: "completed" },
      { type: "error", code: "SLOTH_X", message: "m" },
    ]
    for (const event of events) expect(checkEvent(event)).toEqual(event)
  })

  test("refuses wrong events", async () => {
    const wrong: unknown[] = [
      null,
      {},
      { type: "steps" },
      { ...step(1), loss: Number.NaN },
      { ...step(1), step: 1.5 },
      { ...step(1), extra: 1 },
      { ...step(1), loss: undefined },
      { type: "run-end", step: 1, reason: "tired" },
    ]
    for (const event of wrong) expect(await codeOf(() => checkEvent(event))).toBe("SLOTH_EVENT_INVALID")
  })
})

describe("EventLog", () => {
  test("appends, reopens and reads", async () => {
    const path = fresh()
    using log = await EventLog.open(path)
    log.append(step(1))
    log.append({ type: "run-end", step: 1, reason: "interrupted" })
    log.close()
    using again = await EventLog.open(path)
    expect(again.previous.length).toBe(2)
    again.append(step(2))
    again.close()
    expect(readEvents(path).map((e) => e.type)).toEqual(["step", "run-end", "step"])
    expect(await codeOf(() => again.append(step(3)))).toBe("SLOTH_EVENTS_CLOSED")
  })

  test("an invalid event writes nothing", async () => {
    const path = fresh()
    using log = await EventLog.open(path)
    expect(await codeOf(() => log.append({ ...step(1), gradNorm: Infinity }))).toBe("SLOTH_EVENT_INVALID")
    expect(statSync(path).size).toBe(0)
  })

  test("cuts a torn last line at every possible byte", async () => {
    const whole = `${JSON.stringify(step(1))}\n${JSON.stringify(step(2))}\n`
    const first = whole.indexOf("\n") + 1
    for (let size = first; size < whole.length; size += 13) {
      const path = fresh()
      writeFileSync(path, whole.slice(0, size))
      expect(readEvents(path).length).toBe(1)
      using log = await EventLog.open(path)
      expect(log.repair.tornBytes).toBe(size - first)
      log.append(step(2))
      log.close()
      expect(readFileSync(path, "utf8")).toBe(whole)
    }
  })

  test("a bad line that is not the last is an error with its number", async () => {
    const path = fresh()
    writeFileSync(path, `${JSON.stringify(step(1))}\n{"type":"st\n${JSON.stringify(step(2))}\n`)
    try {
      readEvents(path)
      throw new Error("read")
    } catch (error) {
      expect(isSlothError(error) && error.code).toBe("SLOTH_EVENTS_CORRUPT")
      expect(isSlothError(error) && error.fields["line"]).toBe(2)
    }
    expect(await codeOf(() => EventLog.open(path))).toBe("SLOTH_EVENTS_CORRUPT")
  })

  test("resuming drops the events of later steps only", async () => {
    const path = fresh()
    using log = await EventLog.open(path)
    log.append({ type: "run-start", run: "a", version: "0.1.0" })
    for (let n = 1; n <= 5; n++) {
      log.append(step(n))
      if (n === 3) log.append({ type: "checkpoint", step: 3, path: "checkpoints/step-000003" })
    }
    log.append({ type: "eval", step: 5, loss: 1 })
    log.close()
    appendFileSync(path, '{"type":"step","st')
    using again = await EventLog.open(path, { resumeFromStep: 3 })
    expect(again.repair).toEqual({ tornBytes: 18, droppedEvents: 3 })
    again.append(step(4))
    again.close()
    expect(readEvents(path).map((e) => `${e.type}${"step" in e ? (e.step ?? "") : ""}`)).toEqual([
      "run-start",
      "step1",
      "step2",
      "step3",
      "checkpoint3",
      "step4",
    ])
  })

  test("survives kill -9 while it writes", async () => {
    const script = `
      import { EventLog } from ${JSON.stringify(join(import.meta.dir, "index.ts"))}
      const log = await EventLog.open(process.argv[1], { fsync: "never" })
      for (let n = 1; ; n++) log.append({ type: "warning", code: "SLOTH_TEST", message: "x".repeat(n % 5000), step: n })
    `
    for (let round = 0; round < 3; round++) {
      const path = fresh()
      const child = spawn(process.execPath, ["-e", script, path], { stdio: "ignore" })
      while (!existsSync(path) || statSync(path).size < 20_000) await sleep(5)
      child.kill("SIGKILL")
      await new Promise((done) => child.once("exit", done))
      using log = await EventLog.open(path)
      const steps = log.previous.map((event) => ("step" in event ? event.step : undefined))
      expect(steps.length).toBeGreaterThan(5)
      expect(steps).toEqual(steps.map((_, at) => at + 1))
      log.append(step(1))
      expect(readEvents(path).length).toBe(steps.length + 1)
    }
  })

  test("a missing file and a folder are coded errors", async () => {
    expect(await codeOf(() => readEvents(join(root, "none.jsonl")))).toBe("SLOTH_FILE_NOT_FOUND")
    expect(await codeOf(() => EventLog.open(root))).toBe("SLOTH_FILE_IS_DIRECTORY")
  })
})
