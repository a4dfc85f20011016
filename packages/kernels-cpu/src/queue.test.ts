import { describe, expect, test } from "bun:test"
import { spawn, spawnSync } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

import { SlothError } from "@sloth/core"

import { cpuInfo, createCpuBackend } from "./index.ts"

const source = join(import.meta.dir, "index.ts")
const LONG = 1 << 21

/** Runs a script with a CPU backend `b` in a process of its own. */
const script = (body: string): string => `
  import { createCpuBackend } from ${JSON.stringify(source)}
  const b = await createCpuBackend({ threads: 2 })
  const n = ${LONG}
  const x = b.memory.alloc(n * 4)
  const work = (times) => { for (let i = 0; i < times; i++) b.kernels.randomNormal(x, 0, 1, n, i, 1) }
  ${body}
`

const run = (body: string): { code: number | null; out: string; seconds: number } => {
  const start = performance.now()
  const done = spawnSync(process.execPath, ["-e", script(body)], { encoding: "utf8", timeout: 60_000 })
  return { code: done.status, out: done.stdout + done.stderr, seconds: (performance.now() - start) / 1000 }
}

describe("the queue", () => {
  test("leaves the event loop free while kernels run", async () => {
    const backend = await createCpuBackend({ threads: 1 })
    const x = backend.memory.alloc(LONG * 4)
    backend.kernels.fill(x, 0, LONG)
    await backend.synchronize()
    let ticks = 0
    const timer = setInterval(() => ticks++, 2)
    const start = performance.now()
    for (let i = 0; i < 20; i++) backend.kernels.randomNormal(x, 0, 1, LONG, i, 1)
    const enqueued = performance.now() - start
    await backend.synchronize()
    const total = performance.now() - start
    clearInterval(timer)
    backend.memory.free(x)
    backend[Symbol.dispose]()
    expect(enqueued).toBeLessThan(total / 10)
    expect(ticks).toBeGreaterThan(total / 2 / 10)
  })

  test("takes more commands than any fixed ring, in order", async () => {
    const backend = await createCpuBackend({ threads: 2 })
    const x = backend.memory.alloc(4)
    backend.kernels.fill(x, 0, 1)
    const slow = backend.memory.alloc(LONG * 4)
    backend.kernels.randomNormal(slow, 0, 1, LONG, 1, 1)
    const one = backend.memory.alloc(4)
    backend.kernels.fill(one, 1, 1)
    for (let i = 0; i < 20_000; i++) backend.kernels.add(x, x, one, 1)
    const reads: Promise<Uint8Array>[] = []
    for (let i = 0; i < 500; i++) {
      backend.kernels.add(x, x, one, 1)
      reads.push(backend.memory.read(x))
    }
    const values = (await Promise.all(reads)).map((bytes) => new Float32Array(bytes.buffer as ArrayBuffer)[0])
    expect(values).toEqual(Array.from({ length: 500 }, (_, i) => 20_001 + i))
    for (const handle of [x, slow, one]) backend.memory.free(handle)
    backend[Symbol.dispose]()
  })

  test("disposing rejects pending reads, and later use is a coded error", async () => {
    const backend = await createCpuBackend({ threads: 2 })
    const x = backend.memory.alloc(LONG * 4)
    for (let i = 0; i < 50; i++) backend.kernels.randomNormal(x, 0, 1, LONG, i, 1)
    backend.memory.write(x, new Float32Array(1000))
    const pending = backend.memory.read(x).catch((e: SlothError) => e.code)
    const synchronised = backend.synchronize().catch((e: SlothError) => e.code)
    backend[Symbol.dispose]()
    backend[Symbol.dispose]()
    expect(await pending).toBe("SLOTH_BACKEND_CLOSED")
    expect(await synchronised).toBe("SLOTH_BACKEND_CLOSED")
    expect(() => backend.memory.alloc(4)).toThrow("closed")
    expect(() => backend.kernels.fill(x, 0, 1)).toThrow("closed")
  })

  test("backends come and go without leaving threads or memory behind", async () => {
    const threads = (): number => Number(/Threads:\s+(\d+)/.exec(spawnSync("cat", [`/proc/${process.pid}/status`]).stdout.toString())?.[1] ?? 0) // prettier-ignore
    const before = threads()
    for (let i = 0; i < 20; i++) {
      const backend = await createCpuBackend({ threads: 3 })
      const x = backend.memory.alloc(1 << 20)
      backend.kernels.fill(x, 1, 1 << 18)
      expect((await backend.memory.read(x, 0, 4))[3]).toBe(0x3f)
      backend[Symbol.dispose]()
    }
    expect(threads()).toBeLessThanOrEqual(before + 4)
  })

  test("wrong arguments are coded errors that name kernel and argument", async () => {
    const backend = await createCpuBackend({ threads: 1 })
    const { kernels, memory } = backend
    const x = memory.alloc(400)
    const error = (body: () => void): Record<string, unknown> => {
      try {
        body()
      } catch (e) {
        expect(e).toBeInstanceOf(SlothError)
        return { code: (e as SlothError).code, ...(e as SlothError).fields }
      }
      return {}
    }
    const bad = (argument: string, kernel: string) => ({ code: "SLOTH_KERNEL_ARGUMENT", kernel, argument })
    expect(error(() => kernels.fill(x, 0, 101))).toEqual(bad("out", "fill"))
    expect(error(() => kernels.fill(0, 0, 1))).toEqual(bad("out", "fill"))
    expect(error(() => kernels.fill(x, 0, -1))).toEqual(bad("n", "fill"))
    expect(error(() => kernels.fill(x, 0, 1.5))).toEqual(bad("n", "fill"))
    expect(error(() => kernels.fill(x, 0, NaN))).toEqual(bad("n", "fill"))
    expect(error(() => kernels.scale(x, x, 1, 4, 2))).toEqual(bad("accumulate", "scale"))
    expect(error(() => kernels.add(x, x, "x" as never, 4))).toEqual(bad("b", "add"))
    expect(error(() => kernels.dropout(x, x, 1, 4, 1, 1, 1, 0))).toEqual(bad("p", "dropout"))
    expect(error(() => kernels.dropout(x, x, 0.5, 4, 1, 2 ** 32, 1, 0))).toEqual(bad("stream", "dropout"))
    expect(error(() => kernels.dequantize(x, x, 2, 1, 33))).toEqual(bad("format", "dequantize"))
    expect(error(() => kernels.dequantize(x, x, 99, 1, 32))).toEqual(bad("format", "dequantize"))
    expect(error(() => kernels.rope(x, 8, x, x, x, 1, 2, 4, 3, 0))).toEqual(bad("rotary", "rope"))
    expect(error(() => kernels.sumRows(x, x, 2 ** 30, 2 ** 30, 0))).toEqual(bad("out", "sumRows"))
    expect(error(() => kernels.sumRows(x, x, 2 ** 50, 50, 0))).toEqual(bad("x", "sumRows"))
    expect(error(() => (kernels.fill as (...a: number[]) => void)(x, 0))).toMatchObject({
      code: "SLOTH_KERNEL_ARGUMENT",
    })
    memory.free(x)
    backend[Symbol.dispose]()
  })

  test("wrong options are coded errors", async () => {
    const code = (options: object): Promise<string> =>
      createCpuBackend(options).then(
        (b) => (b[Symbol.dispose](), "none"),
        (e: SlothError) => e.code,
      )
    for (const options of [
      { threads: 0 },
      { threads: 1.5 },
      { isa: "mmx" },
      { precision: "f64" },
      { memoryBudget: -1 },
    ]) {
      expect(await code(options)).toBe("SLOTH_BACKEND_OPTION")
    }
    process.env["SLOTH_CPU_ISA"] = "altivec"
    expect(await code({})).toBe("SLOTH_BACKEND_OPTION")
    process.env["SLOTH_CPU_ISA"] = cpuInfo().isas.at(-1)!
    const backend = await createCpuBackend()
    expect(backend.device.isa).toBe(cpuInfo().isas.at(-1)!)
    backend[Symbol.dispose]()
    delete process.env["SLOTH_CPU_ISA"]
  })
})

// Under an emulator a test cannot start its own runtime again.
const emulated = process.env["SLOTH_TEST_EMULATED"] === "1"

describe.skipIf(emulated)("the process", () => {
  test("ends by itself with an open, idle backend", () => {
    const { code, out, seconds } = run(`work(1); await b.synchronize(); console.log("done")`)
    expect({ code, out: out.trim() }).toEqual({ code: 0, out: "done" })
    expect(seconds).toBeLessThan(20)
  })

  test("waits for a pending read before it ends", () => {
    const { code, out } = run(`work(5); b.memory.read(x, 0, 4).then((bytes) => console.log("read", bytes.length))`)
    expect({ code, out: out.trim() }).toEqual({ code: 0, out: "read 4" })
  })

  test("ends at once on process.exit while work is queued", () => {
    const { code, seconds } = run(`work(5000); b.synchronize(); setTimeout(() => process.exit(3), 20)`)
    expect(code).toBe(3)
    expect(seconds).toBeLessThan(20)
  })

  test("hears Ctrl-C while kernels run", async () => {
    const child = spawn(process.execPath, ["-e", script(`
      process.on("SIGINT", () => { console.log("stopped"); process.exit(0) })
      work(5000)
      console.log("busy")
      await b.synchronize()
    `)]) // prettier-ignore
    let out = ""
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()))
    for (let i = 0; i < 500 && !out.includes("busy"); i++) await sleep(20)
    child.kill("SIGINT")
    const start = performance.now()
    const [code] = (await once(child, "exit")) as [number]
    expect({ code, out: out.trim() }).toEqual({ code: 0, out: "busy\nstopped" })
    expect(performance.now() - start).toBeLessThan(10_000)
  })

  const node = spawnSync("node", ["--version"]).status === 0
  test.skipIf(!node)("loads the same addon in Node (skipped where there is no node)", () => {
    const code = `
      const addon = require(${JSON.stringify(cpuInfo().addonPath)})
      const b = addon.create(addon.isas()[0], "f32", 2, 0, false, (code, message) => Object.assign(new Error(message), { code }), "")
      const x = b.memory.alloc(4000)
      b.kernels.fill(x, 1.5, 1000)
      b.kernels.scale(x, x, 2, 1000, 0)
      b.memory.read(x).then((bytes) => {
        console.log(new Float32Array(bytes.buffer)[999])
        try { b.memory.bytes(1) } catch (e) { console.log(e.code) }
        b.close()
      })
    `
    const done = spawnSync("node", ["-e", code], { encoding: "utf8" })
    expect(done.stdout + done.stderr).toBe("3\nSLOTH_MEMORY_FREED\n")
  })
})
