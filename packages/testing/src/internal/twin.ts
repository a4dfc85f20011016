import type { Backend, BufferHandle, RequiredKernels } from "@sloth/core"
import type { ReferenceBackend } from "@sloth/tensor"

import { check, checkThrows } from "./assert.ts"
import { signatures } from "./signatures.ts"
import { F32 } from "./tolerance.ts"

/** The same buffer on the reference and on every lane. */
export interface Twinned {
  readonly reference: BufferHandle
  readonly lanes: readonly BufferHandle[]
  readonly bytes: number
  /** Bytes from the start that are compared with a guard pattern behind them; undefined where there is none. */
  readonly guarded: boolean
}

type KernelName = keyof RequiredKernels

/** Arguments of a kernel with buffers in the place of handles. */
export type TwinArguments<N extends KernelName> = Widened<Parameters<RequiredKernels[N]>>

type Widened<P extends readonly unknown[]> = { [K in keyof P]: number | Twinned }

/** Allowed error: one number, or one an element. */
export type Allowed = number | ((index: number) => number)

const GUARD_BYTES = 64
const GUARD = 0xa5

/**
 * Runs the same kernel calls on the reference backend (in double precision) and on two lanes of the backend under test, and compares. The lanes must agree bit
 * for bit: they are the same backend twice, or two configurations that promise the same bits.
 */
export class Twin {
  readonly reference: ReferenceBackend
  readonly lanes: readonly Backend[]
  /** Relative precision of products on the backend under test. */
  readonly epsilon: number
  /** Kernel whose argument checks are tried after its next call. */
  argumentChecksOf: KernelName | undefined
  private readonly held: Twinned[] = []

  constructor(reference: ReferenceBackend, lanes: readonly Backend[], epsilon = F32) {
    this.reference = reference
    this.lanes = lanes
    this.epsilon = epsilon
  }

  private place(data: Uint8Array, guarded: boolean): Twinned {
    const stored = new Uint8Array(data.length + (guarded ? GUARD_BYTES : 0)).fill(GUARD)
    stored.set(data)
    const upload = (backend: Backend): BufferHandle => {
      const handle = backend.memory.alloc(stored.length)
      backend.memory.write(handle, stored)
      return handle
    }
    return this.hold({
      reference: upload(this.reference),
      lanes: this.lanes.map(upload),
      bytes: data.length,
      guarded,
    })
  }

  private hold(buffer: Twinned): Twinned {
    this.held.push(buffer)
    return buffer
  }

  /** An input of exactly these f32 numbers. */
  floats(values: ArrayLike<number>): Twinned {
    return this.place(new Uint8Array(new Float32Array(values).buffer), false)
  }

  integers(values: ArrayLike<number>): Twinned {
    return this.place(new Uint8Array(Int32Array.from(values).buffer), false)
  }

  bytes(values: Uint8Array): Twinned {
    return this.place(values, false)
  }

  /** An output of `n` f32 with known contents (NaN unless given) and a guard behind it. */
  output(n: number, values?: ArrayLike<number>): Twinned {
    return this.place(new Uint8Array(new Float32Array(values ?? new Float32Array(n).fill(NaN)).buffer), true)
  }

  /** An output of bytes, zeroed, with a guard behind it. */
  outputBytes(bytes: number): Twinned {
    return this.place(new Uint8Array(bytes), true)
  }

  /** `elements` f32 or i32 of a buffer from `start`. */
  view(parent: Twinned, start: number, elements: number): Twinned {
    return this.hold({
      reference: this.reference.memory.view(parent.reference, start * 4, elements * 4),
      lanes: this.lanes.map((lane, i) => lane.memory.view(parent.lanes[i]!, start * 4, elements * 4)),
      bytes: elements * 4,
      guarded: false,
    })
  }

  /** Calls a kernel everywhere. */
  call<N extends KernelName>(kernel: N, ...args: TwinArguments<N>): void {
    const list = args as readonly (number | Twinned)[]
    const run = (backend: Backend, handle: (buffer: Twinned) => number): void => {
      const numbers = list.map((arg) => (typeof arg === "number" ? arg : handle(arg)))
      ;(backend.kernels[kernel] as (...numbers: number[]) => void)(...numbers)
    }
    run(this.reference, (buffer) => buffer.reference)
    this.lanes.forEach((lane, i) => run(lane, (buffer) => buffer.lanes[i]!))
    if (this.argumentChecksOf === kernel) {
      this.argumentChecksOf = undefined
      this.checkArguments(kernel, list)
    }
  }

  // Every buffer freed, absent or too small and every count negative or fractional must be refused at the call, before anything runs.
  private checkArguments(kernel: KernelName, list: readonly (number | Twinned)[]): void {
    const lane = this.lanes[0]!
    const numbers = list.map((arg) => (typeof arg === "number" ? arg : arg.lanes[0]!))
    const freed = lane.memory.alloc(4)
    lane.memory.free(freed)
    const small = lane.memory.alloc(4)
    const attempt = (index: number, value: number, code: string, label: string): void => {
      const changed = numbers.with(index, value)
      checkThrows(() => (lane.kernels[kernel] as (...args: number[]) => void)(...changed), [code], label)
    }
    signatures[kernel].split(" ").forEach((part, i) => {
      const [name, kind, arg] = [part.slice(0, -1), part.at(-1)!, list[i]!]
      const label = `${kernel}: ${name}`
      if (kind === "#") {
        attempt(i, -1, "SLOTH_KERNEL_ARGUMENT", `${label} of -1`)
        attempt(i, 1.5, "SLOTH_KERNEL_ARGUMENT", `${label} of 1.5`)
      } else if (kind === "%") {
        attempt(i, 1.5, "SLOTH_KERNEL_ARGUMENT", `${label} of 1.5`)
      } else if (kind !== "." && typeof arg !== "number") {
        attempt(i, freed, "SLOTH_MEMORY_FREED", `${label} freed`)
        if (kind === "*") attempt(i, 0, "SLOTH_KERNEL_ARGUMENT", `${label} absent`)
        if (kind !== "~" && arg.bytes > 4) attempt(i, small, "SLOTH_KERNEL_ARGUMENT", `${label} too small`)
      }
    })
    lane.memory.free(small)
  }

  /** Exact values of a float buffer on the reference. */
  exact(buffer: Twinned): Float64Array {
    return this.reference.readFloat64(buffer.reference).subarray(0, buffer.bytes / 4)
  }

  private async laneBytes(buffer: Twinned, label: string): Promise<Uint8Array> {
    const all = await Promise.all(
      this.lanes.map((lane, i) =>
        lane.memory.read(buffer.lanes[i]!, 0, buffer.bytes + (buffer.guarded ? GUARD_BYTES : 0)),
      ),
    )
    for (const bytes of all) {
      if (buffer.guarded) {
        check(
          bytes.subarray(buffer.bytes).every((b) => b === GUARD),
          `${label}: something was written behind the end`,
        )
      }
      check(
        bytes.every((b, i) => b === all[0]![i]),
        `${label}: two runs differ`,
      )
    }
    return all[0]!.slice(0, buffer.bytes)
  }

  /** Compares f32 numbers; both may be NaN. Returns the backend's. */
  async compare(buffer: Twinned, allowed: Allowed, label: string): Promise<Float32Array> {
    const actual = new Float32Array((await this.laneBytes(buffer, label)).buffer)
    const expected = this.exact(buffer)
    for (let i = 0; i < actual.length; i++) {
      const [a, e] = [actual[i]!, expected[i]!]
      if (Object.is(a, e) || (Number.isNaN(a) && Number.isNaN(e))) continue
      // Subnormal results may be flushed to zero.
      const limit = (typeof allowed === "number" ? allowed : allowed(i)) + 2 ** -125
      // The message is made only for a failure: most of the time of a test would go into it.
      if (!(Math.abs(a - e) <= limit)) {
        check(false, `${label}[${i}] is ${a}, exact ${e}, error ${Math.abs(a - e)}, allowed ${limit}`)
      }
    }
    return actual
  }

  /** Compares bytes exactly. */
  async same(buffer: Twinned, label: string): Promise<Uint8Array> {
    const actual = await this.laneBytes(buffer, label)
    const expected = await this.reference.memory.read(buffer.reference, 0, buffer.bytes)
    const at = firstDifference(actual, expected)
    check(at < 0, `${label}: byte ${at} is ${actual[at]}, expected ${expected[at]}`)
    return actual
  }

  /** The lanes' bytes, which must agree with each other. */
  agreed(buffer: Twinned, label: string): Promise<Uint8Array> {
    return this.laneBytes(buffer, label)
  }

  /** Frees all buffers. */
  release(): void {
    for (const buffer of this.held.splice(0)) {
      this.reference.memory.free(buffer.reference)
      this.lanes.forEach((lane, i) => lane.memory.free(buffer.lanes[i]!))
    }
  }
}

/** One check of one kernel. */
export interface KernelCase {
  readonly label: string
  run(twin: Twin): Promise<void>
}

/** Index of the first byte that differs, or -1. */
function firstDifference(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i
  return -1
}
