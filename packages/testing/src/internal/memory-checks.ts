import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

import { NONE, type Backend } from "@sloth/core"

import { check, checkFails, checkThrows } from "./assert.ts"

const floats = async (backend: Backend, handle: number): Promise<Float32Array> =>
  new Float32Array((await backend.memory.read(handle)).buffer)

const equal = (actual: ArrayLike<number>, expected: readonly number[], label: string): void => {
  check(
    actual.length === expected.length && expected.every((value, i) => value === actual[i]),
    `${label}: [${Array.from(actual).join(", ")}] instead of [${expected.join(", ")}]`,
  )
}

/** Checks of memory and of the order of work; each frees what it makes. */
export const memoryChecks: readonly (readonly [label: string, run: (backend: Backend) => Promise<void>])[] = [
  [
    "write and read, whole and in part",
    async (backend) => {
      const { memory } = backend
      const h = memory.alloc(16)
      check(memory.bytes(h) === 16, `bytes is ${memory.bytes(h)}, not 16`)
      memory.write(h, Float32Array.of(1, 2, 3, 4))
      memory.write(h, Float32Array.of(0, 7, 0).subarray(1, 2), 8)
      equal(await floats(backend, h), [1, 2, 7, 4], "buffer")
      equal(new Float32Array((await memory.read(h, 4, 8)).buffer), [2, 7], "part")
      memory.free(h)
    },
  ],
  [
    "the data of a write may be changed after the call",
    async (backend) => {
      const { memory, kernels } = backend
      const data = new Float32Array(50_000).fill(3)
      const [a, b] = [memory.alloc(data.byteLength), memory.alloc(data.byteLength)]
      memory.write(a, data)
      kernels.scale(b, a, 2, data.length, 0)
      data.fill(100)
      memory.write(a, Float32Array.of(5))
      const result = await floats(backend, b)
      check(
        result.every((value) => value === 6),
        "the kernel must see the data as it was at the write",
      )
      equal((await floats(backend, a)).subarray(0, 2), [5, 3], "later write")
      memory.free(a)
      memory.free(b)
    },
  ],
  [
    "a buffer freed after a call may be handed out again at once",
    async (backend) => {
      const { memory, kernels } = backend
      const n = 20_000
      const total = memory.alloc(n * 4)
      kernels.fill(total, 0, n)
      for (let i = 1; i <= 20; i++) {
        const part = memory.alloc(n * 4)
        kernels.fill(part, i, n)
        kernels.add(total, total, part, n)
        memory.free(part)
      }
      const result = await floats(backend, total)
      check(
        result.every((value) => value === 210),
        "work must run in the order of the calls",
      )
      memory.free(total)
    },
  ],
  [
    "reads resolve in order and see the state of their place in the queue",
    async (backend) => {
      const { memory, kernels } = backend
      const h = memory.alloc(4)
      const seen: Promise<Uint8Array>[] = []
      for (let i = 0; i < 5; i++) {
        kernels.fill(h, i, 1)
        seen.push(memory.read(h))
      }
      equal(
        (await Promise.all(seen)).map((bytes) => new Float32Array(bytes.buffer)[0]!),
        [0, 1, 2, 3, 4],
        "reads",
      )
      memory.free(h)
      await backend.synchronize()
    },
  ],
  [
    "views share storage and keep it alive",
    async (backend) => {
      const { memory, kernels } = backend
      const buffer = memory.alloc(32)
      memory.write(buffer, Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8))
      const view = memory.view(buffer, 8, 16)
      const inner = memory.view(view, 4, 8)
      check(memory.bytes(inner) === 8, "a view has its own size")
      memory.free(buffer)
      memory.free(view)
      const other = memory.alloc(32)
      kernels.fill(other, -1, 8)
      kernels.scale(inner, inner, 10, 2, 0)
      equal(await floats(backend, inner), [40, 50], "view")
      memory.free(inner)
      memory.free(other)
    },
  ],
  [
    "a range of a file is a read-only buffer",
    async (backend) => {
      const { memory, kernels } = backend
      const folder = mkdtempSync(join(tmpdir(), "sloth-backend-"))
      try {
        const path = join(folder, "weights.bin")
        writeFileSync(
          path,
          Float32Array.from({ length: 3000 }, (_, i) => i),
        )
        const before = memory.stats()
        const mapped = memory.mapFile(path, 96, 8000)
        const during = memory.stats()
        // A system maps whole pages.
        check(during.mappedBytes - before.mappedBytes >= 8000, "mappedBytes counts the mapping")
        check(during.liveBytes === before.liveBytes, "liveBytes does not count the mapping")
        const out = memory.alloc(8000)
        kernels.scale(out, mapped, 1, 2000, 0)
        equal((await floats(backend, out)).subarray(1998), [2022, 2023], "mapped values")
        checkThrows(() => kernels.fill(mapped, 0, 1), ["SLOTH_KERNEL_ARGUMENT"], "a kernel that writes a mapping")
        checkThrows(() => memory.write(mapped, new Uint8Array(4)), ["SLOTH_KERNEL_ARGUMENT"], "a write to a mapping")
        checkThrows(() => memory.mapFile(path, 8000, 8000), ["SLOTH_MEMORY_MAP"], "a range beyond the file")
        checkThrows(() => memory.mapFile(join(folder, "absent"), 0, 4), ["SLOTH_MEMORY_MAP"], "a missing file")
        memory.free(out)
        memory.free(mapped)
        check(memory.stats().mappedBytes === before.mappedBytes, "mappedBytes falls again")
      } finally {
        rmSync(folder, { recursive: true })
      }
    },
  ],
  [
    "a scratch file gives back what was put into it, in queue order, and leaves no name behind",
    async (backend) => {
      const { memory, kernels } = backend
      const folder = mkdtempSync(join(tmpdir(), "sloth-backend-"))
      try {
        using file = memory.scratch(folder)
        const [a, b] = [memory.alloc(40_000), memory.alloc(20_004)]
        file.reserve(65_536)
        kernels.fill(a, 1, 10_000)
        file.put(a, 0)
        kernels.fill(a, 2, 10_000)
        file.put(a, 40_960)
        kernels.fill(b, 3, 5001)
        // Over a part of the first block.
        file.put(b, 8)
        kernels.fill(a, 4, 10_000)
        file.take(a, 0, 100)
        const first = await floats(backend, a)
        file.take(a, 40_960, 1 << 30)
        memory.free(b)
        equal(
          [first[0]!, first[1]!, first[2]!, first[5002]!, first[5003]!, first[9999]!],
          [1, 1, 3, 3, 1, 1],
          "first block",
        )
        equal((await floats(backend, a)).subarray(9998), [2, 2], "second block")
        check(readdirSync(folder).length === 0, "the file has no name")
        checkThrows(() => file.put(b, 0), ["SLOTH_MEMORY_FREED"], "a freed buffer")
        checkThrows(() => memory.scratch(join(folder, "absent")), ["SLOTH_SCRATCH_DISK"], "a missing folder")
        await checkFails(
          () => {
            file.take(a, 1 << 20)
            return backend.synchronize()
          },
          (code) => code === "SLOTH_SCRATCH_DISK",
          "what was never put",
        )
        memory.free(a)
      } finally {
        rmSync(folder, { recursive: true })
      }
    },
  ],
  [
    "statistics, peak and budget",
    async (backend) => {
      const { memory } = backend
      const before = memory.stats()
      const h = memory.alloc(1000)
      const during = memory.stats()
      check(during.liveBuffers === before.liveBuffers + 1, "liveBuffers counts the buffer")
      check(during.liveBytes >= before.liveBytes + 1000, "liveBytes counts its bytes")
      check(during.peakBytes >= during.liveBytes, "the peak is at least what lives")
      memory.setBudget(during.liveBytes + 10_000)
      checkThrows(() => memory.alloc(1_000_000), ["SLOTH_MEMORY_BUDGET"], "an allocation above the budget")
      memory.setBudget(0)
      memory.free(memory.alloc(1_000_000))
      check(memory.stats().peakBytes >= before.liveBytes + 1_000_000, "the peak remembers")
      memory.free(h)
      memory.resetPeak()
      memory.trim()
      const after = memory.stats()
      check(after.liveBytes === before.liveBytes, "freed bytes are not live")
      check(after.peakBytes === after.liveBytes, "resetPeak starts from what lives")
    },
  ],
  [
    "dead handles and impossible ranges are coded errors",
    async (backend) => {
      const { memory } = backend
      const h = memory.alloc(64)
      const view = memory.view(h, 0, 64)
      memory.free(h)
      const freed = ["SLOTH_MEMORY_FREED"]
      checkThrows(() => memory.bytes(h), freed, "bytes of a freed buffer")
      checkThrows(() => memory.free(h), freed, "freeing twice")
      checkThrows(() => memory.view(h, 0, 4), freed, "a view of a freed buffer")
      checkThrows(() => memory.write(h, new Uint8Array(1)), freed, "writing a freed buffer")
      await checkFails(
        () => memory.read(h),
        (code) => code === "SLOTH_MEMORY_FREED",
        "reading a freed buffer",
      )
      checkThrows(() => memory.bytes(NONE), freed, "bytes of NONE")
      const range = ["SLOTH_KERNEL_ARGUMENT"]
      checkThrows(() => memory.view(view, 60, 8), range, "a view beyond the end")
      checkThrows(() => memory.view(view, -4, 4), range, "a view before the start")
      checkThrows(() => memory.write(view, new Uint8Array(8), 60), range, "a write beyond the end")
      await checkFails(
        () => memory.read(view, 60, 8),
        (code) => range.includes(code),
        "a read beyond the end",
      )
      // Storage that is reused must not bring the dead handle back to life.
      const again = memory.alloc(64)
      checkThrows(() => memory.bytes(h), freed, "an old handle after reuse")
      memory.free(again)
      memory.free(view)
    },
  ],
]

const ints = (backend: Backend, values: readonly number[]): number => {
  const handle = backend.memory.alloc(values.length * 4)
  backend.memory.write(handle, Int32Array.from(values))
  return handle
}

const zeros = (backend: Backend, n: number): number => {
  const handle = backend.memory.alloc(n * 4)
  backend.kernels.fill(handle, 0, n)
  return handle
}

/** Calls whose counts are right but whose data point outside a buffer. */
export const dataChecks: readonly (readonly [label: string, run: (backend: Backend) => void])[] = [
  [
    "embedding: an id beyond the vocabulary",
    (b) => b.kernels.embedding(zeros(b, 8), zeros(b, 12), 0, ints(b, [1, 3]), 2, 3, 4, 1),
  ],
  ["embedding: a negative id", (b) => b.kernels.embedding(zeros(b, 8), zeros(b, 12), 0, ints(b, [1, -1]), 2, 3, 4, 1)],
  [
    "embeddingBackward: an id beyond the vocabulary",
    (b) => b.kernels.embeddingBackward(zeros(b, 12), zeros(b, 8), ints(b, [0, 3]), 2, 3, 4, 1),
  ],
  [
    "gatherRows: a row that x does not have",
    (b) => b.kernels.gatherRows(zeros(b, 8), zeros(b, 12), ints(b, [0, 3]), 2, 4),
  ],
  [
    "scatterRows: a row that the output does not have",
    (b) => b.kernels.scatterRows(zeros(b, 12), zeros(b, 8), ints(b, [0, 3]), 2, 4, 3, 0),
  ],
  [
    "linearCrossEntropy: a target beyond the vocabulary",
    (b) =>
      b.kernels.linearCrossEntropy(
        zeros(b, 2),
        zeros(b, 8),
        NONE,
        zeros(b, 8),
        zeros(b, 12),
        0,
        ints(b, [0, 3]),
        zeros(b, 2),
        2,
        3,
        4,
        0,
        1,
      ),
  ],
  [
    "linearLogprobs: a negative target",
    (b) =>
      b.kernels.linearLogprobs(
        zeros(b, 2),
        zeros(b, 2),
        NONE,
        NONE,
        zeros(b, 8),
        zeros(b, 12),
        0,
        ints(b, [0, -100]),
        2,
        3,
        4,
        0,
        1,
      ),
  ],
  [
    "rope: a position beyond the tables",
    (b) => b.kernels.rope(zeros(b, 8), 4, zeros(b, 6), zeros(b, 6), ints(b, [2, 3]), 2, 1, 4, 4, 0),
  ],
  ["attention: a segment beyond the rows", (b) => attend(b, [0, 5, -1])],
  ["attention: a parent that comes later", (b) => attend(b, [0, 2, 1, 2, 2, -1])],
  ["attention: a segment of negative length", (b) => attend(b, [0, -2, -1])],
  [
    "cacheWrite: a slot beyond the cache",
    (b) => b.kernels.cacheWrite(zeros(b, 12), zeros(b, 12), 0, zeros(b, 8), 4, zeros(b, 8), 4, ints(b, [0, 3]), 2, 4),
  ],
  ["pagedAttention: a block beyond the cache", (b) => decode(b, [0, 9], 0, 3)],
  ["pagedAttention: a block that is absent", (b) => decode(b, [0, -1], 0, 3)],
  ["pagedAttention: a position beyond the table", (b) => decode(b, [0, 1], 0, 4)],
  ["pagedAttention: an unknown sequence", (b) => decode(b, [0, 1], 1, 3)],
]

function attend(b: Backend, segments: readonly number[]): void {
  const [q, k, v] = [zeros(b, 16), zeros(b, 16), zeros(b, 16)]
  const table = ints(b, segments)
  const count = segments.length / 3
  b.kernels.attention(zeros(b, 16), zeros(b, 4), q, 4, k, 4, v, 4, table, count, 4, 1, 1, 4, 1, 0, 0, NONE)
}

// One row over two blocks of two slots of a cache of two blocks.
function decode(b: Backend, blocks: readonly number[], sequence: number, position: number): void {
  const [out, q, k, v] = [zeros(b, 4), zeros(b, 4), zeros(b, 16), zeros(b, 16)]
  const table = ints(b, blocks)
  const [s, p] = [ints(b, [sequence]), ints(b, [position])]
  b.kernels.pagedAttention(out, q, 4, k, v, 0, table, 2, 2, s, p, 1, 1, 1, 4, 1, 0, 0, NONE)
}
