import { expect, test } from "bun:test"
import { consoleLogger, silentLogger } from "./index.ts"

test("levels, names and fields", () => {
  const lines: string[] = []
  const logger = consoleLogger({ write: (line) => lines.push(line) })
  logger.debug("hidden")
  logger.info("loaded", { tokens: 3 })
  logger.child("cpu").child("pool").info("ready")
  expect(lines).toEqual(["loaded (tokens=3)", "[cpu:pool] ready"])
})

test("a warning is said once for its code, children included", () => {
  const lines: string[] = []
  const logger = consoleLogger({ level: "warn", write: (line) => lines.push(line) })
  logger.warn("SLOTH_SLOW", "slow path")
  logger.child("a").warn("SLOTH_SLOW", "slow path again")
  logger.child("a").warn("SLOTH_OTHER", "other")
  logger.info("hidden")
  expect(lines).toEqual(["warning SLOTH_SLOW: slow path", "warning SLOTH_OTHER: [a] other"])
})

test("json lines", () => {
  const lines: string[] = []
  consoleLogger({ json: true, write: (line) => lines.push(line) })
    .child("x")
    .warn("SLOTH_A", "m", { n: 1 })
  expect(JSON.parse(lines[0] ?? "")).toEqual({
    level: "warn",
    name: "x",
    code: "SLOTH_A",
    message: "m",
    fields: { n: 1 },
  })
})

test("the silent logger is silent", () => {
  const write = process.stderr.write
  let written = 0
  process.stderr.write = (() => (written++, true)) as typeof process.stderr.write
  try {
    const logger = silentLogger()
    logger.info("x")
    logger.child("y").warn("SLOTH_A", "m")
  } finally {
    process.stderr.write = write
  }
  expect(written).toBe(0)
})
