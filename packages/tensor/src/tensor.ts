import { NONE, SlothError, type BufferHandle } from "@sloth/core"
import type { Engine } from "./engine.ts"
import { bytesFor, weightFormat } from "./weight-format.ts"
import type { GradSlot } from "./tape.ts"

/** Element type of a tensor: computing types, or the id of a registered weight format (then the tensor can only be used as a weight). */
export type DType = "f32" | "i32" | "f64" | "u8" | (string & {})

/** Bytes that `elements` elements of a type take. Errors: SLOTH_FORMAT_UNKNOWN for a type nobody registered. */
export const bytesOf = (dtype: DType, elements: number): number => {
  switch (dtype) {
    case "f32":
    case "i32":
      return elements * 4
    case "f64":
      return elements * 8
    case "u8":
      return elements
    default:
      return bytesFor(weightFormat(dtype), elements)
  }
}

/** A counted reference to a backend buffer; tensors, the tape and gradients share it. */
export class Storage {
  readonly engine: Engine
  readonly handle: BufferHandle
  readonly bytes: number
  /** Owners: tensors, saved values, gradient slots. */
  refs = 1
  /** How many of the owners are values saved for a backward pass: such a storage must not be written. */
  saves = 0

  constructor(engine: Engine, handle: BufferHandle, bytes: number) {
    this.engine = engine
    this.handle = handle
    this.bytes = bytes
  }

  retain(): this {
    this.refs++
    return this
  }

  release(): void {
    if (--this.refs === 0) this.engine.backend.memory.free(this.handle)
  }
}

/** A typed, shaped, contiguous row-major window on a storage. Made by an {@link Engine}; dies with its scope unless returned or kept. */
export class Tensor {
  readonly engine: Engine
  readonly storage: Storage
  readonly shape: readonly number[]
  readonly dtype: DType
  /** Present when a gradient flows to this tensor. */
  slot: GradSlot | undefined
  #alive = true

  constructor(engine: Engine, storage: Storage, shape: readonly number[], dtype: DType, slot?: GradSlot) {
    this.engine = engine
    this.storage = storage
    this.shape = shape
    this.dtype = dtype
    this.slot = slot
  }

  /** Buffer handle for kernels. Errors: SLOTH_TENSOR_DISPOSED. */
  get handle(): BufferHandle {
    if (!this.#alive)
      throw new SlothError("SLOTH_TENSOR_DISPOSED", {
        what: `A tensor of shape [${this.shape.join(", ")}] was used after its scope had ended.`,
        next: "Return it from the scope, or keep() it.",
        fields: { shape: this.shape, dtype: this.dtype },
      })
    return this.storage.handle
  }

  /** Number of elements. */
  get size(): number {
    let n = 1
    for (const d of this.shape) n *= d
    return n
  }

  get requiresGrad(): boolean {
    return this.slot !== undefined
  }

  /** The accumulated gradient of a leaf made with `engine.parameter`, if any backward pass has reached it. */
  get grad(): Tensor | undefined {
    return this.slot?.leaf === this ? this.slot.grad : undefined
  }

  get disposed(): boolean {
    return !this.#alive
  }

  /** Copies the values out, in queue order. Works for f32, i32, f64 and u8; other types give their stored bytes. */
  async read(): Promise<Float32Array | Int32Array | Float64Array | Uint8Array> {
    const bytes = await this.engine.backend.memory.read(this.handle, 0, bytesOf(this.dtype, this.size))
    if (this.dtype === "f32") return new Float32Array(bytes.buffer, bytes.byteOffset, this.size)
    if (this.dtype === "i32") return new Int32Array(bytes.buffer, bytes.byteOffset, this.size)
    if (this.dtype === "f64") return new Float64Array(bytes.buffer, bytes.byteOffset, this.size)
    return bytes
  }

  /** As `read`, for f32 tensors. */
  async readFloats(): Promise<Float32Array> {
    if (this.dtype !== "f32") throw typeMismatch("readFloats", "f32", this.dtype)
    return (await this.read()) as Float32Array
  }

  /** Overwrites the values, in queue order. */
  write(data: ArrayBufferView): void {
    this.engine.backend.memory.write(this.handle, data)
  }

  /** The same storage under another shape; the element count must be equal. */
  reshape(shape: readonly number[]): Tensor {
    const n = shape.reduce((a, b) => a * b, 1)
    if (n !== this.size)
      throw new SlothError("SLOTH_TENSOR_SHAPE", {
        what: `[${this.shape.join(", ")}] cannot be seen as [${shape.join(", ")}].`,
        fields: { from: this.shape, to: shape },
      })
    return this.engine.adopt(this.storage.retain(), shape, this.dtype, this.slot)
  }

  /** Rows `first` to `first + count` of an f32 tensor as a tensor on the same memory; without a gradient of its own. */
  rows(first: number, count: number): Tensor {
    const cols = this.shape.slice(1).reduce((a, b) => a * b, 1)
    if (this.dtype !== "f32") throw typeMismatch("rows", "f32", this.dtype)
    const { memory } = this.engine.backend
    const view = new Storage(
      this.engine,
      memory.view(this.handle, first * cols * 4, count * cols * 4),
      count * cols * 4,
    )
    return this.engine.adopt(view, [count, ...this.shape.slice(1)], "f32")
  }

  /** Gives up this reference; the storage is freed when the last owner is gone. Safe to call twice. */
  dispose(): void {
    if (!this.#alive) return
    this.#alive = false
    this.storage.release()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** The handle of an optional tensor. */
export const handleOf = (t: Tensor | undefined): BufferHandle => (t === undefined ? NONE : t.handle)

/** A coded error for an operand of the wrong type. */
export const typeMismatch = (op: string, expected: string, got: string): SlothError =>
  new SlothError("SLOTH_TENSOR_DTYPE", {
    what: `${op} expects ${expected} but got ${got}.`,
    fields: { op, expected, got },
  })

/** A coded error for operands whose shapes do not fit. */
export const shapeMismatch = (op: string, expected: string, ...got: readonly (readonly number[])[]): SlothError =>
  new SlothError("SLOTH_TENSOR_SHAPE", {
    what: `${op} expects ${expected} but got ${got.map((s) => `[${s.join(", ")}]`).join(" and ")}.`,
    fields: { op, expected, got },
  })
