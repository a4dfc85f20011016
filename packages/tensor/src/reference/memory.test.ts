import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { isSlothError, NONE } from "@sloth/core"

import { createReferenceBackend } from "./backend.ts"

const codeOf = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    if (isSlothError(error)) return error.code
    throw error
  }
  return "nothing thrown"
}

const folder = mkdtempSync(join(tmpdir(), "sloth-memory-"))
afterAll(() => rmSync(folder, { recursive: true }))

describe("reference memory", () => {
  test("new buffers hold NaN, so that a missing write shows", async () => {
    using backend = createReferenceBackend()
    const h = backend.memory.alloc(8)
    expect([...backend.readFloat64(h)]).toEqual([NaN, NaN])
  })

  test("views share storage, keep it alive and are counted once", async () => {
    using backend = createReferenceBackend()
    const { memory } = backend
    const buffer = memory.alloc(16)
    const view = memory.view(buffer, 4, 8)
    const inner = memory.view(view, 4, 4)
    memory.write(buffer, Int32Array.of(1, 2, 3, 4))
    memory.free(buffer)
    memory.free(view)
    expect(await memory.read(inner)).toEqual(new Uint8Array(Int32Array.of(3).buffer))
    expect(memory.stats()).toMatchObject({ liveBuffers: 1, liveBytes: 16, peakBytes: 16 })
    memory.free(inner)
    expect(memory.stats()).toMatchObject({ liveBuffers: 0, liveBytes: 0, peakBytes: 16 })
    memory.resetPeak()
    expect(memory.stats().peakBytes).toBe(0)
  })

  test("a reused slot gets a new handle", () => {
    using backend = createReferenceBackend()
    const first = backend.memory.alloc(4)
    backend.memory.free(first)
    const second = backend.memory.alloc(4)
    expect(second).not.toBe(first)
    expect(codeOf(() => backend.memory.bytes(first))).toBe("SLOTH_MEMORY_FREED")
    expect(codeOf(() => backend.memory.free(NONE))).toBe("SLOTH_MEMORY_FREED")
  })

  test("errors are coded", () => {
    using backend = createReferenceBackend({ memoryBudget: 100 })
    const { memory } = backend
    const h = memory.alloc(60)
    expect(codeOf(() => memory.alloc(41))).toBe("SLOTH_MEMORY_BUDGET")
    memory.setBudget(0)
    memory.free(memory.alloc(1000))
    expect(codeOf(() => memory.alloc(-1))).toBe("SLOTH_KERNEL_ARGUMENT")
    expect(codeOf(() => memory.view(h, 56, 8))).toBe("SLOTH_KERNEL_ARGUMENT")
    expect(codeOf(() => memory.read(h, 61))).toBe("SLOTH_KERNEL_ARGUMENT")
    expect(codeOf(() => memory.write(h, new Uint8Array(8), 56))).toBe("SLOTH_KERNEL_ARGUMENT")
    expect(codeOf(() => createReferenceBackend({ isa: "avx2" }))).toBe("SLOTH_BACKEND_OPTION")
    backend[Symbol.dispose]()
    expect(codeOf(() => memory.alloc(4))).toBe("SLOTH_BACKEND_CLOSED")
  })

  test("a file range can be read, not written", async () => {
    using backend = createReferenceBackend()
    const { memory, kernels } = backend
    const path = join(folder, "weights.bin")
    writeFileSync(path, Float32Array.of(1, 2, 3, 4))
    const mapped = memory.mapFile(path, 4, 8)
    expect(memory.stats()).toMatchObject({ liveBuffers: 1, liveBytes: 0, mappedBytes: 8 })
    expect([...backend.readFloat64(mapped)]).toEqual([2, 3])
    expect(codeOf(() => kernels.fill(mapped, 0, 2))).toBe("SLOTH_KERNEL_ARGUMENT")
    expect(codeOf(() => memory.write(mapped, new Uint8Array(1)))).toBe("SLOTH_KERNEL_ARGUMENT")
    expect(codeOf(() => memory.mapFile(path, 12, 8))).toBe("SLOTH_MEMORY_MAP")
    expect(codeOf(() => memory.mapFile(folder, 0, 8))).toBe("SLOTH_MEMORY_MAP")
    expect(codeOf(() => memory.mapFile(join(folder, "absent"), 0, 8))).toBe("SLOTH_MEMORY_MAP")
    memory.free(mapped)
    expect(memory.stats().mappedBytes).toBe(0)
  })

  test("with float64, f32 values keep double precision and bytes stay their rounding", async () => {
    using backend = createReferenceBackend({ float64: true })
    const { memory, kernels } = backend
    const [a, b, out] = [memory.alloc(8), memory.alloc(8), memory.alloc(8)]
    backend.writeFloat64(a, [1, 1e-12])
    backend.writeFloat64(b, [1e-12, 1])
    kernels.add(out, a, b, 2)
    expect([...backend.readFloat64(out)]).toEqual([1 + 1e-12, 1 + 1e-12])
    expect(new Float32Array((await memory.read(out)).buffer)).toEqual(Float32Array.of(1, 1))
    const view = memory.view(out, 4, 4)
    kernels.fill(view, 0.1, 1)
    kernels.copy(a, out, 8)
    expect([...backend.readFloat64(a)]).toEqual([1 + 1e-12, 0.1])
    memory.write(a, Float32Array.of(7), 4)
    expect([...backend.readFloat64(a)]).toEqual([1 + 1e-12, 7])
    // Integers live in the bytes, whatever the shadow says.
    memory.write(b, Int32Array.of(-1, 5))
    expect(new Int32Array((await memory.read(b)).buffer)).toEqual(Int32Array.of(-1, 5))
  })
})
