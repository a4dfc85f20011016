import { afterAll, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { mkdtempSync, readdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isSlothError } from "@sloth/core"
import { createCpuBackend } from "./index.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-scratch-"))
afterAll(() => rmSync(folder, { recursive: true }))

const codeOf = async (body: () => unknown): Promise<string> => {
  try {
    await body()
  } catch (error) {
    return isSlothError(error) ? error.code : String(error)
  }
  return "no error"
}

test("a disk that is too small is an error at once, and the file stays usable", async () => {
  using backend = await createCpuBackend({ threads: 1 })
  const { memory, kernels } = backend
  using file = memory.scratch(folder)
  // More than any disk has.
  expect(await codeOf(() => file.reserve(2 ** 52))).toBe("SLOTH_SCRATCH_DISK")
  const h = memory.alloc(4096)
  kernels.fill(h, 5, 1024)
  file.put(h, 8192)
  kernels.fill(h, 6, 1024)
  file.take(h, 8192)
  expect(new Float32Array((await memory.read(h)).buffer)).toEqual(new Float32Array(1024).fill(5))
  expect(await codeOf(() => file.put(h, -1))).toBe("SLOTH_KERNEL_ARGUMENT")
  memory.free(h)
  expect(await codeOf(() => file.put(h, 0))).toBe("SLOTH_MEMORY_FREED")
})

test("a disposed file is refused, and one that is in use outlives its disposal in queue order", async () => {
  using backend = await createCpuBackend({ threads: 1 })
  const { memory, kernels } = backend
  const file = memory.scratch(folder)
  const h = memory.alloc(1 << 20)
  kernels.fill(h, 7, 1 << 18)
  file.put(h, 0)
  kernels.fill(h, 8, 1 << 18)
  file.take(h, 0)
  file[Symbol.dispose]()
  expect(new Float32Array((await memory.read(h, 0, 8)).buffer)).toEqual(Float32Array.of(7, 7))
  expect(await codeOf(() => file.take(h, 0))).toBe("SLOTH_SCRATCH_CLOSED")
  memory.free(h)
})

test("a process that is killed leaves nothing behind", async () => {
  const program = `
    const { createCpuBackend } = await import(${JSON.stringify(join(import.meta.dirname, "index.ts"))})
    const { memory, kernels, synchronize } = await createCpuBackend({ threads: 1 })
    const file = memory.scratch(${JSON.stringify(folder)})
    const h = memory.alloc(1 << 20)
    kernels.fill(h, 1, 1 << 18)
    file.put(h, 0)
    await synchronize()
    console.log("ready")
    setInterval(() => {}, 1000)
  `
  const child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "pipe", "inherit"] })
  await new Promise<void>((done) => child.stdout.once("data", () => done()))
  child.kill("SIGKILL")
  await new Promise<void>((done) => child.once("exit", () => done()))
  expect(readdirSync(folder)).toEqual([])
})
