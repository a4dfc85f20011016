import { expect } from "bun:test"

import type { Backend, BufferHandle, Precision } from "@sloth/core"

import { cpuInfo, createCpuBackend } from "../src/index.ts"

/** Instruction sets that this machine can be told to use. */
export const isas: readonly string[] = cpuInfo().isas

/** Sizes around vectors, blocks and tasks; the last is split among threads. */
export const sizes = [1, 5, 123, 4099, 70001] as const

/** Buffers of one test, freed together. */
export interface Session {
  readonly backend: Backend
  readonly k: Backend["kernels"]
  f32(data: ArrayLike<number>): BufferHandle
  i32(data: ArrayLike<number>): BufferHandle
  u8(data: Uint8Array): BufferHandle
  alloc(bytes: number): BufferHandle
  readF32(handle: BufferHandle): Promise<Float32Array>
  readF64(handle: BufferHandle): Promise<Float64Array>
  readI32(handle: BufferHandle): Promise<Int32Array>
  readU8(handle: BufferHandle): Promise<Uint8Array>
}

/** Opens a backend, runs the body, frees its buffers and checks that none is left. */
export async function session<T>(
  isa: string,
  threads: number,
  body: (s: Session) => Promise<T>,
  precision: Precision = "f32",
): Promise<T> {
  const backend = await createCpuBackend({ isa, threads, precision })
  const handles: BufferHandle[] = []
  const { memory } = backend
  const alloc = (bytes: number): BufferHandle => {
    const handle = memory.alloc(bytes)
    handles.push(handle)
    return handle
  }
  const put = (data: ArrayBufferView): BufferHandle => {
    const handle = alloc(data.byteLength)
    memory.write(handle, data)
    return handle
  }
  const buffer = async (handle: BufferHandle): Promise<ArrayBuffer> => (await memory.read(handle)).buffer as ArrayBuffer
  try {
    const result = await body({
      backend,
      k: backend.kernels,
      f32: (data) => put(Float32Array.from(data)),
      i32: (data) => put(Int32Array.from(data)),
      u8: put,
      alloc,
      readF32: async (handle) => new Float32Array(await buffer(handle)),
      readF64: async (handle) => new Float64Array(await buffer(handle)),
      readI32: async (handle) => new Int32Array(await buffer(handle)),
      readU8: async (handle) => new Uint8Array(await buffer(handle)),
    })
    await backend.synchronize()
    for (const handle of handles) memory.free(handle)
    expect(memory.stats().liveBuffers).toBe(0)
    expect(memory.stats().liveBytes).toBe(0)
    return result
  } finally {
    backend[Symbol.dispose]()
  }
}

/** Runs the body with one and with two threads, checks that the results are the same bits, and returns them. */
export async function onThreads<T extends readonly ArrayBufferView[]>(
  isa: string,
  body: (s: Session) => Promise<T>,
  precision: Precision = "f32",
): Promise<T> {
  const one = await session(isa, 1, body, precision)
  const two = await session(isa, 2, body, precision)
  const bits = (view: ArrayBufferView): Buffer => Buffer.from(view.buffer, view.byteOffset, view.byteLength)
  one.forEach((view, i) => expect(bits(view).equals(bits(two[i]!))).toBe(true))
  return one
}

/** Repeatable numbers in [-1, 1): a linear congruential generator modulo 2^32. */
export function numbers(n: number, seed = 1, scale = 1): Float32Array {
  let state = (seed * 2654435761) >>> 0
  return Float32Array.from({ length: n }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state / 2 ** 31 - 1) * scale
  })
}

/** Checks every element against `expected` within `relative` of it plus `absolute`. */
export function expectClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  relative: number,
  absolute: number,
): void {
  expect(actual.length).toBe(expected.length)
  for (let i = 0; i < actual.length; i++) {
    const [a, e] = [actual[i]!, expected[i]!]
    if (Object.is(a, e) || Math.abs(a - e) <= absolute + relative * Math.abs(e)) continue
    throw new Error(`element ${i} is ${a}, expected ${e} (difference ${a - e})`)
  }
}
