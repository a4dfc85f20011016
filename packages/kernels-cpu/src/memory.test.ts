import { afterAll, describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { NONE, SlothError, type Backend } from "@sloth/core"

import { numbers } from "../test-kit/session.ts"
import { createCpuBackend } from "./index.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-memory-"))
afterAll(() => rmSync(folder, { recursive: true }))

const withBackend = async (body: (b: Backend) => Promise<void>, options = {}): Promise<void> => {
  const backend = await createCpuBackend({ threads: 2, ...options })
  try {
    await body(backend)
    expect(backend.memory.stats()).toMatchObject({ liveBuffers: 0, liveBytes: 0, mappedBytes: 0 })
  } finally {
    backend[Symbol.dispose]()
  }
}

const codeOf = (body: () => unknown): string => {
  try {
    body()
  } catch (error) {
    expect(error).toBeInstanceOf(SlothError)
    return (error as SlothError).code
  }
  return "no error"
}

const floats = async (b: Backend, handle: number): Promise<Float32Array> =>
  new Float32Array((await b.memory.read(handle)).buffer as ArrayBuffer)

describe("handles", () => {
  test("a freed handle is refused, also when its slot serves another buffer", () =>
    withBackend(async ({ memory, kernels }) => {
      const first = memory.alloc(400)
      memory.free(first)
      const second = memory.alloc(400)
      expect(second).not.toBe(first)
      expect(second).not.toBe(NONE)
      expect(codeOf(() => memory.bytes(first))).toBe("SLOTH_MEMORY_FREED")
      expect(codeOf(() => memory.free(first))).toBe("SLOTH_MEMORY_FREED")
      expect(codeOf(() => kernels.fill(first, 1, 1))).toBe("SLOTH_MEMORY_FREED")
      expect(codeOf(() => memory.read(first))).toBe("SLOTH_MEMORY_FREED")
      expect(codeOf(() => memory.write(first, new Uint8Array(1)))).toBe("SLOTH_MEMORY_FREED")
      expect(codeOf(() => memory.view(first, 0, 1))).toBe("SLOTH_MEMORY_FREED")
      for (const wrong of [NONE, -1, 0.5, NaN, 2 ** 60, second + 0.5, second + 1]) {
        expect(codeOf(() => memory.bytes(wrong))).toBe("SLOTH_MEMORY_FREED")
      }
      expect(memory.bytes(second)).toBe(400)
      memory.free(second)
    }))

  test("a generation is never used twice", () =>
    withBackend(async ({ memory }) => {
      const seen = new Set<number>()
      for (let i = 0; i < 10_000; i++) {
        const handle = memory.alloc(64)
        seen.add(handle)
        memory.free(handle)
      }
      expect(seen.size).toBe(10_000)
    }))

  test("a view keeps the storage alive and has its own bounds", () =>
    withBackend(async (b) => {
      const { memory, kernels } = b
      const whole = memory.alloc(40)
      kernels.fill(whole, 1, 10)
      const view = memory.view(whole, 8, 16)
      const inner = memory.view(view, 4, 8)
      kernels.fill(inner, 5, 2)
      expect(memory.bytes(inner)).toBe(8)
      expect(codeOf(() => memory.view(view, 8, 9))).toBe("SLOTH_KERNEL_ARGUMENT")
      expect(codeOf(() => memory.view(view, -1, 1))).toBe("SLOTH_KERNEL_ARGUMENT")
      expect(codeOf(() => kernels.fill(inner, 1, 3))).toBe("SLOTH_KERNEL_ARGUMENT")
      memory.free(whole)
      expect(memory.stats()).toMatchObject({ liveBuffers: 2, liveBytes: 40 })
      expect([...(await floats(b, view))]).toEqual([1, 5, 5, 1])
      memory.free(view)
      expect(memory.stats().liveBytes).toBe(40)
      memory.free(inner)
    }))

  test("an unaligned view is refused where elements are larger than bytes", () =>
    withBackend(async ({ memory, kernels }) => {
      const whole = memory.alloc(40)
      memory.write(
        whole,
        Uint8Array.from({ length: 40 }, (_, i) => i),
      )
      const odd = memory.view(whole, 1, 32)
      const out = memory.alloc(4)
      expect(codeOf(() => kernels.fill(odd, 1, 4))).toBe("SLOTH_KERNEL_ARGUMENT")
      kernels.copy(out, odd, 4)
      expect([...(await memory.read(out))]).toEqual([1, 2, 3, 4])
      for (const handle of [odd, whole, out]) memory.free(handle)
    }))
})

describe("allocation", () => {
  test("buffers of all size classes do not overlap", () =>
    withBackend(async (b) => {
      const { memory, kernels } = b
      const sizes = [1, 4, 60, 64, 68, 1000, 4096, 5000, 65_536, 65_540, 300_000, 3_000_000]
      const handles = sizes.map((bytes) => memory.alloc(bytes * 4))
      handles.forEach((handle, i) => kernels.fill(handle, i, sizes[i]!))
      for (const [i, handle] of handles.entries()) {
        const values = await floats(b, handle)
        expect(values[0]).toBe(i)
        expect(values.at(-1)).toBe(i)
      }
      for (const handle of handles) memory.free(handle)
    }))

  test("random allocations keep their contents while others come and go", () =>
    withBackend(async (b) => {
      const { memory, kernels } = b
      const random = numbers(6000, 1)
      const live: { handle: number; value: number; n: number }[] = []
      for (let i = 0; i < 3000; i++) {
        if (live.length > 40 || (live.length > 0 && random[i]! < -0.2)) {
          const at = Math.floor(((random[i]! + 1) / 2) * live.length)
          const { handle, value, n } = live.splice(at, 1)[0]!
          if (i % 50 === 0) {
            const values = await floats(b, handle)
            expect(values[0] === value && values[n - 1] === value && values[n >> 1] === value).toBe(true)
          }
          memory.free(handle)
        } else {
          const n = 1 + Math.floor(10 ** (2.5 * (random[i + 3000]! + 1)))
          const handle = memory.alloc(n * 4)
          kernels.fill(handle, i, n)
          live.push({ handle, value: i, n })
        }
      }
      for (const { handle, value } of live) {
        expect((await floats(b, handle))[0]).toBe(value)
        memory.free(handle)
      }
    }))

  test("freed storage is reused in stream order and given back by trim", () =>
    withBackend(async (b) => {
      const { memory, kernels } = b
      const bytes = 8 << 20
      const sink = memory.alloc(4)
      for (let i = 0; i < 200; i++) {
        const handle = memory.alloc(bytes)
        kernels.fill(handle, i, bytes / 4)
        kernels.copy(sink, handle, 4)
        memory.free(handle)
      }
      expect((await floats(b, sink))[0]).toBe(199)
      expect(memory.stats().peakBytes).toBe(bytes + 4)
      expect(memory.stats().cachedBytes).toBeLessThan(2 * bytes)
      expect(memory.stats().cachedBytes).toBeGreaterThanOrEqual(bytes)
      memory.trim()
      await b.synchronize()
      expect(memory.stats().cachedBytes).toBeLessThan(1 << 20)
      const again = memory.alloc(bytes)
      kernels.fill(again, 7, bytes / 4)
      expect((await floats(b, again)).every((v) => v === 7)).toBe(true)
      memory.resetPeak()
      expect(memory.stats().peakBytes).toBe(bytes + 4)
      memory.free(again)
      memory.free(sink)
    }))

  test("the budget bounds live bytes", () =>
    withBackend(
      async ({ memory }) => {
        const half = memory.alloc(600)
        let error: unknown
        try {
          memory.alloc(500)
        } catch (e) {
          error = e
        }
        expect(error).toMatchObject({
          code: "SLOTH_MEMORY_BUDGET",
          fields: { bytes: 500, liveBytes: 600, budgetBytes: 1000 },
        })
        memory.setBudget(1100)
        memory.free(memory.alloc(500))
        memory.setBudget(0)
        memory.free(memory.alloc(100_000))
        memory.free(half)
      },
      { memoryBudget: 1000 },
    ))

  test("an absurd size is an error, not a crash", () =>
    withBackend(async ({ memory }) => {
      memory.setBudget(0)
      expect(codeOf(() => memory.alloc(2 ** 52))).toBe("SLOTH_MEMORY_EXHAUSTED")
      for (const wrong of [-1, 0.5, NaN, Infinity])
        expect(codeOf(() => memory.alloc(wrong))).toBe("SLOTH_KERNEL_ARGUMENT")
    }))

  test("a buffer of no bytes is a buffer", () =>
    withBackend(async ({ memory, kernels }) => {
      const empty = memory.alloc(0)
      kernels.fill(empty, 1, 0)
      expect((await memory.read(empty)).length).toBe(0)
      memory.free(empty)
    }))
})

describe("reading and writing", () => {
  test("happen in queue order, and written data may change at once", () =>
    withBackend(async (b) => {
      const { memory, kernels } = b
      const n = 1 << 20
      const [big, target] = [memory.alloc(n * 4), memory.alloc(n * 4)]
      const data = numbers(n, 2)
      const kept = data.slice()
      for (let i = 0; i < 20; i++) kernels.randomNormal(big, 0, 1, n, i, 1)
      memory.write(target, data)
      data.fill(0)
      const afterWrite = memory.read(target)
      kernels.scale(target, target, 2, n, 0)
      const small = new Float32Array([42])
      memory.write(target, small, 4)
      small[0] = 0
      const afterAll = memory.read(target, 0, 8)
      kernels.fill(target, -1, n)
      expect(new Float32Array((await afterWrite).buffer as ArrayBuffer)).toEqual(kept)
      expect([...new Float32Array((await afterAll).buffer as ArrayBuffer)]).toEqual([kept[0]! * 2, 42])
      expect((await floats(b, target))[5]).toBe(-1)
      memory.free(big)
      memory.free(target)
    }))

  test("any array view may be written, at its own offset", () =>
    withBackend(async ({ memory }) => {
      const handle = memory.alloc(16)
      memory.write(handle, new Uint8Array(16))
      memory.write(handle, new Int16Array([1, 2, 3, 4]).subarray(1, 3), 2)
      memory.write(handle, new DataView(new Uint8Array([9, 8, 7]).buffer, 1), 14)
      expect([...(await memory.read(handle))]).toEqual([0, 0, 2, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 7])
      expect([...(await memory.read(handle, 14))]).toEqual([8, 7])
      expect(codeOf(() => memory.write(handle, new Uint8Array(3), 14))).toBe("SLOTH_KERNEL_ARGUMENT")
      expect(codeOf(() => memory.read(handle, 17))).toBe("SLOTH_KERNEL_ARGUMENT")
      expect(codeOf(() => memory.read(handle, 0, 17))).toBe("SLOTH_KERNEL_ARGUMENT")
      memory.free(handle)
    }))
})

describe("mapped files", () => {
  const path = join(folder, "numbers.bin")
  const data = numbers(3000, 3)
  writeFileSync(path, data)

  test("ranges of a file are read-only buffers on one mapping", () =>
    withBackend(async (b) => {
      const { memory, kernels } = b
      const [whole, part] = [memory.mapFile(path, 0, 12_000), memory.mapFile(path, 4004, 400)]
      expect(memory.stats()).toMatchObject({ liveBytes: 0, mappedBytes: 12_000, liveBuffers: 2 })
      const out = memory.alloc(400)
      kernels.scale(out, part, 1, 100, 0)
      expect(await floats(b, out)).toEqual(data.slice(1001, 1101))
      expect(codeOf(() => kernels.fill(part, 0, 1))).toBe("SLOTH_KERNEL_ARGUMENT")
      expect(codeOf(() => memory.write(part, new Uint8Array(1)))).toBe("SLOTH_KERNEL_ARGUMENT")
      memory.free(whole)
      const view = memory.view(part, 4, 8)
      memory.free(part)
      expect(memory.stats().mappedBytes).toBe(12_000)
      expect(codeOf(() => kernels.fill(view, 0, 1))).toBe("SLOTH_KERNEL_ARGUMENT")
      kernels.copy(out, view, 8)
      memory.free(view)
      expect(memory.stats().mappedBytes).toBe(0)
      expect((await floats(b, out)).slice(0, 2)).toEqual(data.slice(1002, 1004))
      memory.free(out)
    }))

  test("what cannot be mapped is a coded error that names the file", () =>
    withBackend(async ({ memory }) => {
      for (const [file, offset, bytes] of [
        [join(folder, "absent"), 0, 1],
        [folder, 0, 1],
        [path, 0, 12_001],
        [path, 12_001, 0],
        [path, 8000, 2 ** 52],
      ] as const) {
        let error: unknown
        try {
          memory.mapFile(file, offset, bytes)
        } catch (e) {
          error = e
        }
        expect(error).toMatchObject({ code: "SLOTH_MEMORY_MAP", fields: { path: file } })
      }
      const empty = join(folder, "empty")
      writeFileSync(empty, "")
      memory.free(memory.mapFile(empty, 0, 0))
    }))
})

test("SLOTH_DEBUG_MEMORY=1 poisons freed buffers with NaN", async () => {
  process.env["SLOTH_DEBUG_MEMORY"] = "1"
  try {
    await withBackend(async (b) => {
      const { memory, kernels } = b
      const first = memory.alloc(4000)
      kernels.fill(first, 1, 1000)
      memory.free(first)
      const second = memory.alloc(4000)
      expect((await floats(b, second)).every((v) => Number.isNaN(v))).toBe(true)
      memory.free(second)
    })
  } finally {
    delete process.env["SLOTH_DEBUG_MEMORY"]
  }
})
