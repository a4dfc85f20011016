import { describe, expect, test } from "bun:test"
import { spawnSync } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
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

  test.skipIf(emulated)("a prebuilt addon comes from the package of the platform when none was built", () => {
    const folder = mkdtempSync(join(tmpdir(), "sloth-prebuilt-"))
    const root = join(folder, "node_modules/@sloth")
    const prebuilt = join(root, `kernels-cpu-${process.platform}-${process.arch}`)
    mkdirSync(prebuilt, { recursive: true })
    cpSync(import.meta.dir, join(root, "kernels-cpu/src"), { recursive: true })
    cpSync(join(import.meta.dir, "../package.json"), join(root, "kernels-cpu/package.json"))
    symlinkSync(join(import.meta.dir, "../../core"), join(root, "core"))
    cpSync(cpuInfo().addonPath, join(prebuilt, "sloth_cpu.node"))
    const load = (): string =>
      spawnSync(
        process.execPath,
        [
          "-e",
          `import { cpuInfo, probeCpu } from ${JSON.stringify(join(root, "kernels-cpu/src/index.ts"))}
           console.log(JSON.stringify([probeCpu().reason ?? "", probeCpu().available ? cpuInfo().addonPath : ""]))`,
        ],
        { encoding: "utf8" },
      ).stdout
    // Without a package.json that names the addon it is no package: both causes are told.
    const [reason] = JSON.parse(load()) as [string]
    expect(reason).toContain("it has not been built")
    expect(reason).toContain(`the package @sloth/kernels-cpu-${process.platform}-${process.arch}`)
    writeFileSync(join(prebuilt, "package.json"), JSON.stringify({ name: "prebuilt", main: "sloth_cpu.node" }))
    expect(JSON.parse(load())).toEqual(["", realpathSync(join(prebuilt, "sloth_cpu.node"))])
    rmSync(folder, { recursive: true })
  })

  test.skipIf(emulated)(
    "an install without a compiler warns loudly, succeeds, and leaves an addon that is there",
    () => {
      const before = cpuInfo().addonPath
      const empty = mkdtempSync(join(tmpdir(), "sloth-nothing-"))
      // The root's script is the one whose output Bun shows.
      const { scripts } = JSON.parse(readFileSync(join(import.meta.dir, "../../../package.json"), "utf8")) as {
        scripts: Record<string, string>
      }
      expect(scripts["postinstall"]).toBe("node packages/kernels-cpu/scripts/build.mjs")
      const script = join(import.meta.dir, "../scripts/build.mjs")
      const done = (...words: string[]) =>
        spawnSync(process.execPath, [script, ...words], { encoding: "utf8", env: { PATH: empty, HOME: empty } })
      const result = done()
      expect(result.status).toBe(0)
      expect(result.stderr).toContain("*** Sloth: the native CPU kernels were not built: no C++ compiler was found")
      expect(result.stderr).toContain("hundreds of times slower")
      expect(done("--require").status).toBe(1)
      expect(existsSync(before)).toBe(true)
      rmSync(empty, { recursive: true })
    },
  )

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
