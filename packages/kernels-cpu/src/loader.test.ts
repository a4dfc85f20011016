import { describe, expect, test } from "bun:test"
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { cpu, cpuInfo, probeCpu } from "./index.ts"

const inProcess = (path: string): string => {
  const code = `
    import { createCpuBackend, probeCpu } from ${JSON.stringify(join(import.meta.dir, "index.ts"))}
    console.log(JSON.stringify([probeCpu(), await createCpuBackend().then((b) => b.device.isa, (e) => [e.code, e.fields.causes.length])]))
  `
  const done = spawnSync(process.execPath, ["-e", code], {
    encoding: "utf8",
    env: { ...process.env, SLOTH_NATIVE_PATH: path },
  })
  return done.stdout + done.stderr
}

// Under an emulator a test cannot start its own runtime again.
const emulated = process.env["SLOTH_TEST_EMULATED"] === "1"

describe("the loader", () => {
  test("finds the addon and describes it", () => {
    expect(probeCpu()).toMatchObject({ available: true })
    const info = cpuInfo()
    expect(info.isas.length).toBeGreaterThan(0)
    expect(info.threads).toBeGreaterThan(0)
    expect(info.memoryBytes).toBeGreaterThan(1 << 28)
    expect(info.addonPath.endsWith(".node")).toBe(true)
  })

  test.skipIf(emulated)("SLOTH_NATIVE_PATH names the addon", () => {
    expect(JSON.parse(inProcess(cpuInfo().addonPath))).toEqual([
      { available: true, description: expect.any(String) },
      cpuInfo().isas[0],
    ])
  })

  test.skipIf(emulated)("an addon that cannot be loaded is a coded error with its cause", () => {
    const folder = mkdtempSync(join(tmpdir(), "sloth-addon-"))
    const broken = join(folder, "broken.node")
    writeFileSync(broken, "not a library")
    for (const path of [broken, join(folder, "absent.node")]) {
      const [probe, created] = JSON.parse(inProcess(path)) as [{ available: boolean; reason: string }, unknown]
      expect(created).toEqual(["SLOTH_NATIVE_UNAVAILABLE", 1])
      expect(probe.available).toBe(false)
      expect(probe.reason).toContain(path)
    }
    rmSync(folder, { recursive: true })
  })

  test("the plugin provides the backend cpu", async () => {
    const [factory] = cpu({ threads: 1 }).provides.backends
    expect(factory.name).toBe("cpu")
    expect(factory.probe()).toMatchObject({ available: true })
    const backend = await factory.create({})
    expect(backend.device.threads).toBe(1)
    backend[Symbol.dispose]()
    const other = await factory.create({ threads: 2 })
    expect(other.device.threads).toBe(2)
    other[Symbol.dispose]()
  })
})
