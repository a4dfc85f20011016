import { closeSync, fstatSync, openSync, readSync, statSync } from "node:fs"
import { totalmem } from "node:os"

import { NONE, SlothError, type BufferHandle, type Memory, type MemoryStats } from "@sloth/core"

/** f32 values as kernels see them: a Float32Array, or the f64 shadow of a backend made with `float64`. */
export type FloatArray = Float32Array | Float64Array

/** Memory that is shared by a buffer and its views. */
interface Storage {
  readonly bytes: Uint8Array<ArrayBuffer>
  /** With `float64`: element i holds the exact value of the f32 at byte 4·i. */
  readonly shadow: Float64Array | undefined
  readonly mapped: boolean
  /** Bytes asked for, as the statistics count them. */
  readonly size: number
  references: number
}

interface Entry {
  readonly storage: Storage
  readonly offset: number
  readonly bytes: number
}

/** Access to buffers as typed arrays, for the kernels of the reference backend. */
export interface ReferenceMemory extends Memory {
  readonly float64: boolean
  /** True for a live buffer whose storage is a file. */
  isMapped(handle: BufferHandle): boolean
  rawBytes(handle: BufferHandle): Uint8Array<ArrayBuffer>
  floats(handle: BufferHandle): FloatArray
  ints(handle: BufferHandle): Int32Array
  doubles(handle: BufferHandle): Float64Array
  /** Byte offset of a live buffer in its storage. */
  offsetOf(handle: BufferHandle): number
  /** Rewrites the f32 bytes under floats that a kernel changed; needed with `float64` only. */
  publish(handle: BufferHandle): void
  /** Copies bytes, and with `float64` the exact values under them. */
  copyBytes(out: BufferHandle, src: BufferHandle, bytes: number): void
  /** Frees everything; later calls fail with SLOTH_BACKEND_CLOSED. */
  close(): void
}

// A handle is generation · 2^24 + index; both start at 1, so NONE (0) is never a handle and a number stays exact for 2^29 generations.
const INDEX_RANGE = 0x1000000

const argumentError = (what: string, fields: Record<string, unknown>): SlothError =>
  new SlothError("SLOTH_KERNEL_ARGUMENT", { what, fields })

const wholeNumber = (name: string, value: number): void => {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw argumentError(`${name} must be a whole number of at least 0, not ${value}.`, { argument: name, value })
  }
}

/**
 * Memory of the reference backend: ordinary JavaScript buffers behind checked handles.
 *
 * New buffers are filled with 0xff (f32 NaN, i32 -1), because the contract leaves their contents undefined and a missing write must not look like zero.
 * With `float64` every storage has a Float64Array shadow that f32 kernels read and write; the bytes are kept equal to the shadow rounded to f32, so
 * `read`, `write`, views and integer kernels work as ever. `write` sets shadow and bytes.
 */
export function createReferenceMemory(options: { float64: boolean; budget: number }): ReferenceMemory {
  const { float64 } = options
  const entries: (Entry | undefined)[] = [undefined]
  const generations: number[] = [0]
  const unused: number[] = []
  let liveBuffers = 0
  let liveBytes = 0
  let peakBytes = 0
  let mappedBytes = 0
  let budget = options.budget
  let closed = false

  const checkOpen = (): void => {
    if (closed) {
      throw new SlothError("SLOTH_BACKEND_CLOSED", { what: "The reference backend was used after it was closed." })
    }
  }

  const entry = (handle: BufferHandle): Entry => {
    checkOpen()
    const index = handle % INDEX_RANGE
    const found = Number.isSafeInteger(handle) && handle > 0 ? entries[index] : undefined
    if (found !== undefined && generations[index] === (handle - index) / INDEX_RANGE) return found
    throw new SlothError("SLOTH_MEMORY_FREED", {
      what: handle === NONE ? "A buffer is needed, but none was given." : "A buffer was used after it was freed.",
      fields: { handle },
    })
  }

  const register = (value: Entry): BufferHandle => {
    const index = unused.pop() ?? entries.length
    entries[index] = value
    generations[index] = (generations[index] ?? 0) + 1
    liveBuffers++
    value.storage.references++
    return generations[index] * INDEX_RANGE + index
  }

  const reserve = (bytes: number, mapped: boolean): Storage => {
    try {
      // Whole 8-byte words, so that doubles and floats fit any end.
      const storage = new Uint8Array(Math.ceil(bytes / 8) * 8)
      return {
        bytes: storage,
        shadow: float64 ? new Float64Array(storage.length / 4).fill(NaN) : undefined,
        mapped,
        size: bytes,
        references: 0,
      }
    } catch (cause) {
      throw new SlothError("SLOTH_MEMORY_EXHAUSTED", {
        what: `${bytes} bytes of memory could not be had.`,
        next: "Use a smaller model, fewer tokens in a micro-batch, or a machine with more memory.",
        fields: { bytes, liveBytes },
        cause,
      })
    }
  }

  const range = (handle: BufferHandle, offset: number, bytes: number): Entry => {
    const found = entry(handle)
    wholeNumber("byteOffset", offset)
    wholeNumber("bytes", bytes)
    if (offset + bytes > found.bytes) {
      throw new SlothError("SLOTH_KERNEL_ARGUMENT", {
        what: `Bytes ${offset} to ${offset + bytes} lie outside a buffer of ${found.bytes} bytes.`,
        fields: { byteOffset: offset, bytes, bufferBytes: found.bytes },
      })
    }
    return found
  }

  const aligned = (found: Entry, size: number): Entry => {
    if (found.offset % size === 0) return found
    throw argumentError(`A buffer that starts at byte ${found.offset} cannot hold values of ${size} bytes.`, {
      byteOffset: found.offset,
      size,
    })
  }

  // The exact values of the f32 words that lie wholly in [offset, offset + bytes) of a storage.
  const words = (offset: number, bytes: number): [first: number, end: number] => [
    Math.ceil(offset / 4),
    Math.floor((offset + bytes) / 4),
  ]

  const refreshShadow = (storage: Storage, offset: number, bytes: number): void => {
    if (storage.shadow === undefined) return
    const [first, end] = words(offset, bytes)
    if (end > first) storage.shadow.set(new Float32Array(storage.bytes.buffer, first * 4, end - first), first)
  }

  const bytesOf = (found: Entry): Uint8Array<ArrayBuffer> =>
    found.storage.bytes.subarray(found.offset, found.offset + found.bytes)

  return {
    float64,
    alloc(bytes) {
      checkOpen()
      wholeNumber("bytes", bytes)
      if (budget > 0 && liveBytes + bytes > budget) {
        throw new SlothError("SLOTH_MEMORY_BUDGET", {
          what: `A buffer of ${bytes} bytes does not fit in the memory budget of ${budget} bytes.`,
          why: `${liveBytes} bytes are in use.`,
          next: "Raise the budget, or use fewer tokens in a micro-batch.",
          fields: { bytes, liveBytes, budget },
        })
      }
      const storage = reserve(bytes, false)
      storage.bytes.fill(0xff)
      liveBytes += bytes
      peakBytes = Math.max(peakBytes, liveBytes)
      return register({ storage, offset: 0, bytes })
    },
    view(parent, byteOffset, bytes) {
      const found = range(parent, byteOffset, bytes)
      return register({ storage: found.storage, offset: found.offset + byteOffset, bytes })
    },
    free(handle) {
      const found = entry(handle)
      const index = handle % INDEX_RANGE
      entries[index] = undefined
      unused.push(index)
      liveBuffers--
      found.storage.references--
      // A buffer's bytes count until the last view on them is gone.
      if (found.storage.references === 0) {
        if (found.storage.mapped) mappedBytes -= found.storage.size
        else liveBytes -= found.storage.size
      }
    },
    bytes: (handle) => entry(handle).bytes,
    write(handle, data, byteOffset = 0) {
      const found = range(handle, byteOffset, data.byteLength)
      if (found.storage.mapped) {
        throw argumentError("A file mapping is read-only.", { handle })
      }
      const source = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      found.storage.bytes.set(source, found.offset + byteOffset)
      refreshShadow(found.storage, found.offset + byteOffset, data.byteLength)
    },
    // Not async functions: a bad argument is thrown at the call, as kernels do.
    read(handle, byteOffset = 0, bytes) {
      const length = bytes ?? Math.max(0, entry(handle).bytes - byteOffset)
      const found = range(handle, byteOffset, length)
      const start = found.offset + byteOffset
      return Promise.resolve(found.storage.bytes.slice(start, start + length))
    },
    mapFile(path, offset, bytes) {
      checkOpen()
      wholeNumber("offset", offset)
      wholeNumber("bytes", bytes)
      const storage = reserve(bytes, true)
      readRange(path, offset, storage.bytes.subarray(0, bytes))
      refreshShadow(storage, 0, bytes)
      mappedBytes += bytes
      return register({ storage, offset: 0, bytes })
    },
    // Host memory stands for the disk: with `float64` a file of bytes would lose the exact values.
    scratch(folder) {
      checkOpen()
      if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory())
        throw new SlothError("SLOTH_SCRATCH_DISK", {
          what: `The scratch file in ${folder} cannot be made: there is no such folder.`,
          fields: { path: folder },
        })
      let file = { bytes: new Uint8Array(0), shadow: new Float64Array(0) }
      const grow = (bytes: number): void => {
        if (file.bytes.length >= bytes) return
        const larger = { bytes: new Uint8Array(bytes), shadow: new Float64Array(float64 ? Math.ceil(bytes / 4) : 0) }
        larger.bytes.set(file.bytes)
        larger.shadow.set(file.shadow)
        file = larger
      }
      const place = (handle: BufferHandle, offset: number): Entry => {
        wholeNumber("offset", offset)
        const found = range(handle, 0, entry(handle).bytes)
        return offset % 8 === 0 ? found : (aligned({ ...found, offset }, 8), found)
      }
      return {
        reserve: grow,
        put(handle, offset) {
          const { storage, offset: from, bytes } = place(handle, offset)
          grow(offset + bytes)
          file.bytes.set(storage.bytes.subarray(from, from + bytes), offset)
          if (storage.shadow !== undefined)
            file.shadow.set(storage.shadow.subarray(from / 4, Math.floor((from + bytes) / 4)), offset / 4)
        },
        take(handle, offset) {
          const { storage, offset: to, bytes } = place(handle, offset)
          if (storage.mapped) throw argumentError("A file mapping is read-only.", { handle })
          if (offset + bytes > file.bytes.length)
            throw new SlothError("SLOTH_SCRATCH_DISK", {
              what: "A scratch file failed: the file is shorter than what was put into it.",
              fields: { offset, bytes },
            })
          storage.bytes.set(file.bytes.subarray(offset, offset + bytes), to)
          storage.shadow?.set(file.shadow.subarray(offset / 4, Math.floor((offset + bytes) / 4)), to / 4)
        },
        [Symbol.dispose]: () => void (file = { bytes: new Uint8Array(0), shadow: new Float64Array(0) }),
      }
    },
    stats: (): MemoryStats => ({ liveBuffers, liveBytes, peakBytes, cachedBytes: 0, mappedBytes }),
    resetPeak() {
      peakBytes = liveBytes
    },
    // Freed storage belongs to the garbage collector at once: nothing is held for reuse.
    trim() {},
    setBudget(bytes) {
      wholeNumber("bytes", bytes)
      budget = bytes
    },
    isMapped: (handle) => entry(handle).storage.mapped,
    offsetOf: (handle) => entry(handle).offset,
    rawBytes: (handle) => bytesOf(entry(handle)),
    floats(handle) {
      const found = aligned(entry(handle), 4)
      const count = Math.floor(found.bytes / 4)
      const { shadow, bytes } = found.storage
      if (shadow !== undefined) return shadow.subarray(found.offset / 4, found.offset / 4 + count)
      return new Float32Array(bytes.buffer, found.offset, count)
    },
    ints(handle) {
      const found = aligned(entry(handle), 4)
      return new Int32Array(found.storage.bytes.buffer, found.offset, Math.floor(found.bytes / 4))
    },
    doubles(handle) {
      const found = aligned(entry(handle), 8)
      return new Float64Array(found.storage.bytes.buffer, found.offset, Math.floor(found.bytes / 8))
    },
    publish(handle) {
      const found = entry(handle)
      const { shadow, bytes } = found.storage
      if (shadow === undefined) return
      const [first, end] = words(found.offset, found.bytes)
      new Float32Array(bytes.buffer, first * 4, end - first).set(shadow.subarray(first, end))
    },
    copyBytes(out, src, bytes) {
      const from = range(src, 0, bytes)
      const to = range(out, 0, bytes)
      to.storage.bytes.set(from.storage.bytes.subarray(from.offset, from.offset + bytes), to.offset)
      if (to.storage.shadow === undefined || from.storage.shadow === undefined) return
      if (to.offset % 4 === 0 && from.offset % 4 === 0) {
        const count = Math.floor(bytes / 4)
        to.storage.shadow.set(from.storage.shadow.subarray(from.offset / 4, from.offset / 4 + count), to.offset / 4)
      } else refreshShadow(to.storage, to.offset, bytes)
    },
    close() {
      closed = true
      entries.length = 1
      unused.length = 0
      liveBuffers = liveBytes = mappedBytes = 0
    },
  }
}

/** Physical memory of this machine in bytes. */
export const machineMemory = (): number => totalmem()

function readRange(path: string, offset: number, into: Uint8Array): void {
  const fail = (why: string, cause?: unknown): SlothError =>
    new SlothError("SLOTH_MEMORY_MAP", {
      what: `Bytes ${offset} to ${offset + into.length} of ${path} could not be mapped.`,
      why,
      fields: { path, offset, bytes: into.length },
      cause,
    })
  let file: number
  try {
    file = openSync(path, "r")
  } catch (cause) {
    throw fail(cause instanceof Error ? cause.message : "The file could not be opened.", cause)
  }
  try {
    const stat = fstatSync(file)
    if (!stat.isFile()) throw fail("It is not a file.")
    if (offset + into.length > stat.size) throw fail(`The file has ${stat.size} bytes.`)
    let done = 0
    while (done < into.length) {
      // Single reads stop at 2 GiB on Linux.
      const got = readSync(file, into, done, Math.min(into.length - done, 1 << 30), offset + done)
      if (got === 0) throw fail("The file became shorter while it was read.")
      done += got
    }
  } finally {
    closeSync(file)
  }
}
