import { NONE, SlothError, type BufferHandle, type RequiredKernels } from "@sloth/core"

import { bytesFor, weightFormat, type WeightFormat } from "../weight-format.ts"
import type { FloatArray, ReferenceMemory } from "./memory.ts"

/** Rows of a stored weight, decoded one at a time. */
export interface WeightRows {
  readonly format: WeightFormat
  /** Row `index` as floats; the array is reused by the next call. */
  row(index: number): FloatArray
}

/** The checked arguments of one kernel call: handles become typed arrays of proved size. */
export interface Call {
  readonly float64: boolean
  /** Throws SLOTH_KERNEL_ARGUMENT unless `ok`. */
  require(ok: boolean, argument: string, message: string): void
  /** Throws SLOTH_KERNEL_DATA unless `ok`: for what stands in a buffer, which other backends find out later than at the call. */
  data(ok: boolean, argument: string, message: string): void
  /** Checks that a value is a whole number from `least` to `most`. */
  whole(argument: string, value: number, least?: number, most?: number): void
  /** Checks that a value is finite. */
  finite(argument: string, value: number): void
  float(argument: string, handle: BufferHandle, elements: number): FloatArray
  floatOut(argument: string, handle: BufferHandle, elements: number): FloatArray
  /** As `float`, or undefined for NONE. */
  maybeFloat(argument: string, handle: BufferHandle, elements: number): FloatArray | undefined
  maybeFloatOut(argument: string, handle: BufferHandle, elements: number): FloatArray | undefined
  int(argument: string, handle: BufferHandle, elements: number): Int32Array
  intOut(argument: string, handle: BufferHandle, elements: number): Int32Array
  doubleOut(argument: string, handle: BufferHandle, elements: number): Float64Array
  raw(argument: string, handle: BufferHandle, bytes: number): Uint8Array<ArrayBuffer>
  rawOut(argument: string, handle: BufferHandle, bytes: number): Uint8Array<ArrayBuffer>
  weight(argument: string, handle: BufferHandle, format: number, rows: number, cols: number): WeightRows
  /** The format with a code. */
  format(code: number): WeightFormat
  /** Bytes of a buffer whose size the counts do not tell. */
  size(argument: string, handle: BufferHandle): number
}

/** Elements from the first to the last of `rows` rows of `width` elements that start `ld` apart. */
export const extent = (rows: number, width: number, ld: number): number => (rows === 0 ? 0 : (rows - 1) * ld + width)

type Name = keyof RequiredKernels

/** Wraps the body of a kernel: it gets a {@link Call}, and floats that it changed are published afterwards. */
export type Define = <N extends Name>(
  name: N,
  body: (call: Call, ...args: Parameters<RequiredKernels[N]>) => void,
) => RequiredKernels[N]

/** Makes the {@link Define} of one memory. */
export function definer(memory: ReferenceMemory): Define {
  return <N extends Name>(name: N, body: (call: Call, ...args: Parameters<RequiredKernels[N]>) => void) => {
    const fail = (
      argument: string,
      message: string,
      fields: Record<string, unknown> = {},
      code: "SLOTH_KERNEL_ARGUMENT" | "SLOTH_KERNEL_DATA" = "SLOTH_KERNEL_ARGUMENT",
    ): never => {
      throw new SlothError(code, {
        what: `${name}: ${argument} ${message}.`,
        fields: { kernel: name, argument, ...fields },
      })
    }
    const sized = (argument: string, handle: BufferHandle, needed: number, write: boolean): void => {
      if (handle === NONE) return needed === 0 ? undefined : fail(argument, "is needed, but no buffer was given")
      const bytes = memory.bytes(handle)
      if (bytes < needed) fail(argument, `needs ${needed} bytes, but its buffer has ${bytes}`, { needed, bytes })
      if (write && memory.isMapped(handle)) fail(argument, "is written, but its buffer is a read-only file mapping")
    }
    const onBoundary = (argument: string, handle: BufferHandle, size: number): void => {
      const offset = memory.offsetOf(handle)
      if (offset % size !== 0) fail(argument, `starts at byte ${offset}, which is not a multiple of ${size}`)
    }
    const float = (argument: string, handle: BufferHandle, elements: number, write: boolean): FloatArray => {
      sized(argument, handle, elements * 4, write)
      if (handle === NONE) return new Float32Array(0)
      onBoundary(argument, handle, 4)
      return memory.floats(handle).subarray(0, elements)
    }
    const int = (argument: string, handle: BufferHandle, elements: number, write: boolean): Int32Array => {
      sized(argument, handle, elements * 4, write)
      if (handle === NONE) return new Int32Array(0)
      onBoundary(argument, handle, 4)
      return memory.ints(handle).subarray(0, elements)
    }
    const kernel = (...args: Parameters<RequiredKernels[N]>): void => {
      const written: BufferHandle[] = []
      const floatOut = (argument: string, handle: BufferHandle, elements: number): FloatArray => {
        if (handle !== NONE) written.push(handle)
        return float(argument, handle, elements, true)
      }
      const call: Call = {
        float64: memory.float64,
        require: (ok, argument, message) => void (ok || fail(argument, message)),
        data: (ok, argument, message) => void (ok || fail(argument, message, {}, "SLOTH_KERNEL_DATA")),
        whole(argument, value, least = 0, most = Number.MAX_SAFE_INTEGER) {
          if (Number.isSafeInteger(value) && value >= least && value <= most) return
          const range = most === Number.MAX_SAFE_INTEGER ? `of at least ${least}` : `from ${least} to ${most}`
          fail(argument, `must be a whole number ${range}, not ${value}`, { value })
        },
        finite(argument, value) {
          if (!Number.isFinite(value)) fail(argument, `must be a finite number, not ${value}`, { value })
        },
        float: (argument, handle, elements) => float(argument, handle, elements, false),
        floatOut,
        maybeFloat: (argument, handle, elements) =>
          handle === NONE ? undefined : float(argument, handle, elements, false),
        maybeFloatOut: (argument, handle, elements) =>
          handle === NONE ? undefined : floatOut(argument, handle, elements),
        int: (argument, handle, elements) => int(argument, handle, elements, false),
        intOut: (argument, handle, elements) => int(argument, handle, elements, true),
        doubleOut(argument, handle, elements) {
          sized(argument, handle, elements * 8, true)
          onBoundary(argument, handle, 8)
          return memory.doubles(handle).subarray(0, elements)
        },
        raw(argument, handle, bytes) {
          sized(argument, handle, bytes, false)
          if (handle === NONE) return new Uint8Array(0)
          return memory.rawBytes(handle).subarray(0, bytes)
        },
        rawOut(argument, handle, bytes) {
          sized(argument, handle, bytes, true)
          if (handle === NONE) return new Uint8Array(0)
          return memory.rawBytes(handle).subarray(0, bytes)
        },
        format: (code) => knownFormat(code, fail),
        size: (argument, handle) => {
          sized(argument, handle, 1, false)
          return memory.bytes(handle)
        },
        weight: (argument, handle, code, rows, cols) => {
          const format = call.format(code)
          if (cols % format.blockSize !== 0) {
            fail(argument, `has ${cols} columns, which ${format.id} cannot store in blocks of ${format.blockSize}`)
          }
          const rowBytes = bytesFor(format, cols)
          sized(argument, handle, rows * rowBytes, false)
          if (handle === NONE) return { format, row: () => new Float32Array(cols) }
          if (format.code === 0 && memory.offsetOf(handle) % 4 === 0) {
            // Also the way by which f64 weights reach the kernels of a float64 backend.
            const values = memory.floats(handle)
            return { format, row: (index) => values.subarray(index * cols, (index + 1) * cols) }
          }
          const bytes = memory.rawBytes(handle)
          const values = new Float32Array(cols)
          return {
            format,
            row(index) {
              format.dequantizeRow(bytes.subarray(index * rowBytes, (index + 1) * rowBytes), values, cols)
              return values
            },
          }
        },
      }
      body(call, ...args)
      if (memory.float64) for (const handle of written) memory.publish(handle)
    }
    return kernel as RequiredKernels[N]
  }
}

function knownFormat(code: number, fail: (argument: string, message: string) => never): WeightFormat {
  try {
    return weightFormat(code)
  } catch {
    return fail("format", `${code} is not a known weight format`)
  }
}
