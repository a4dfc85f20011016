import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isPlugin, isSlothError, openTracker, silentLogger, type RunEvent, type RunInfo } from "@sloth/core"
import { crc32c, maskedCrc32c } from "./internal/crc32c.ts"
import { eventRecord } from "./internal/event-file.ts"
import plugin, { tensorboard, tensorboardTracker } from "./index.ts"

let folder = ""
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), "sloth-tb-"))))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

test("CRC-32C of the standard's examples", () => {
  expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283)
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa)
  expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43)
})

// These bytes were read back with tensorboard 2.21.0 (EventFileLoader): a version, two scalars at step 300, one at step 2^40, a start at step 7.
const GOLDEN =
  "GAAAAAAAAACjf0siCQAAAAAAAPg/Gg1icmFpbi5FdmVudDoyKihkbDgAAAAAAAAAo3l9VwkAAAAAAAACQBCsAioqChEKCnRyYWluL2xvc3MVAAAgQAoVCg50cmFpbi9ncmFkTm9ybRUAAAC+rBIBRiQAAAAAAAAAQiuATQkAAAAAAAAIQBCAgICAgCAqEgoQCglldmFsL2xvc3MVYEKiDcmqFtoPAAAAAAAAAG1TKwkJAAAAAAAAEEAQBzoCCAHteDbe"

test("records are the bytes that TensorBoard's reader accepted", () => {
  const records = [
    eventRecord(1.5, 0, { kind: "version" }),
    eventRecord(2.25, 300, {
      kind: "scalars",
      values: [
        ["train/loss", 2.5],
        ["train/gradNorm", -0.125],
      ],
    }),
    eventRecord(3, 2 ** 40, { kind: "scalars", values: [["eval/loss", 1e-30]] }),
    eventRecord(4, 7, { kind: "start" }),
  ]
  expect(Buffer.concat(records).toString("base64")).toBe(GOLDEN)
})

/** Bodies of a file's records, checksums checked. */
const recordsOf = (path: string): Buffer[] => {
  const file = readFileSync(path)
  const out: Buffer[] = []
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at))
    expect(file.readUInt32LE(at + 8)).toBe(maskedCrc32c(file.subarray(at, at + 8)))
    const data = file.subarray(at + 12, at + 12 + length)
    expect(file.readUInt32LE(at + 12 + length)).toBe(maskedCrc32c(data))
    out.push(data)
    at += length + 16
  }
  return out
}

const info = (directory: string, resumedFromStep?: number): RunInfo => ({
  name: "run",
  directory,
  config: {},
  logger: silentLogger(),
  ...(resumedFromStep === undefined ? {} : { resumedFromStep }),
})

const events: RunEvent[] = [
  { type: "plan", plan: {} },
  {
    type: "step",
    step: 1,
    loss: 2.5,
    gradNorm: 1,
    learningRate: 1e-4,
    tokens: 10,
    scoredTokens: 5,
    seconds: 1,
    tokensPerSecond: 10,
    peakRssBytes: 1e8,
    metrics: { margin: 0.5 },
  },
  { type: "eval", step: 1, loss: 2, perplexity: Math.exp(2) },
  { type: "run-end", step: 1, reason: "completed" },
]

describe("the tracker", () => {
  const follow = async (directory: string, resumedFromStep?: number, at?: string) => {
    const session = await openTracker(
      tensorboardTracker(at === undefined ? {} : { directory: at }),
      info(directory, resumedFromStep),
    )
    for (const event of events) session.event(event)
    await session.close()
    const place = at ?? join(directory, "tensorboard")
    return recordsOf(join(place, readdirSync(place)[0]!)).map((r) => r.toString("latin1"))
  }

  test("writes steps and evaluations as curves, and nothing else", async () => {
    const records = await follow(join(folder, "a"))
    expect(records).toHaveLength(3)
    expect(records[0]).toContain("brain.Event:2")
    for (const tag of ["loss", "gradNorm", "learningRate", "tokensPerSecond", "peakRssBytes", "margin"])
      expect(records[1]).toContain(`train/${tag}`)
    for (const tag of ["loss", "perplexity"]) expect(records[2]).toContain(`eval/${tag}`)
  })

  test("says where a resumed run starts, and takes another folder", async () => {
    const records = await follow(join(folder, "b"), 40, join(folder, "elsewhere"))
    expect(records).toHaveLength(4)
    // step 41, session_log { status: START }
    expect([...Buffer.from(records[1]!, "latin1").subarray(9)]).toEqual([0x10, 41, 0x3a, 2, 0x08, 1])
  })

  test("a folder that cannot be made is a coded error", async () => {
    writeFileSync(join(folder, "file"), "")
    const error = await openTracker(tensorboardTracker(), info(join(folder, "file"))).catch((e: unknown) => e)
    expect(isSlothError(error) && error.code).toMatch(/^SLOTH_FILE_/)
  })
})

test("the plugin provides the tracker under its name", () => {
  expect(isPlugin(plugin)).toBe(true)
  expect(tensorboard({ directory: "tb" }).provides.trackers.map((t) => t.name)).toEqual(["tensorboard"])
})
