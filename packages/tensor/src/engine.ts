import { SlothError, type Backend, type Program } from "@sloth/core"
import { tmpdir } from "node:os"
import type { RowMemo } from "./known-rows.ts"
import { SpillSpace } from "./spill.ts"
import { bytesOf, Storage, Tensor, type DType } from "./tensor.ts"
import { GradSlot, Tape } from "./tape.ts"

/**
 * How much of a forward pass is kept for the backward pass: everything; all but cheap values; the inputs of blocks, which run twice; or these and the results of attention in a
 * scratch file, so that only the rest of a block runs twice.
 */
export type ActivationPolicy = "keep" | "recompute" | "checkpoint" | "spill"

/** Every policy, from what keeps most in memory to what keeps least. */
export const ACTIVATION_POLICIES: readonly ActivationPolicy[] = ["keep", "recompute", "checkpoint", "spill"]

/** Values that a checkpointed block's first run leaves for its second, in the order in which they are made. */
export interface Memo {
  readonly mode: "record" | "replay"
  readonly values: Tensor[]
}

/**
 * Tensors on one backend: creation, scopes and recording. A scope is an arena: what is made inside dies at its end, unless it is returned or kept.
 * Not re-entrant across awaits: a scope's function is synchronous, only reads are not.
 */
export class Engine implements Disposable {
  readonly backend: Backend
  #scopes: Tensor[][] = []
  /** The tape that records, if any. */
  tape: Tape | undefined
  /** What ops save while recording; `checkpoint` is applied by models block by block. */
  policy: ActivationPolicy = "keep"
  /** Where the results of expensive ops are left or found, while a checkpointed block runs under a policy that has room for them. */
  memo: Memo | undefined
  /** Rows of the pass whose products are kept for another or taken from one, while its blocks run. */
  rows: RowMemo | undefined
  /** Folder of the scratch file that the policy `spill` uses. */
  scratchFolder = tmpdir()
  #spill: SpillSpace | undefined
  #capturing = false

  constructor(backend: Backend) {
    this.backend = backend
  }

  /** A tensor with undefined contents, owned by the current scope. */
  empty(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const t = this.unscoped(shape, dtype)
    this.#scopes.at(-1)?.push(t)
    return t
  }

  /** As `empty`, owned by the caller instead of a scope. */
  unscoped(shape: readonly number[], dtype: DType = "f32"): Tensor {
    const bytes = bytesOf(
      dtype,
      shape.reduce((a, b) => a * b, 1),
    )
    return new Tensor(this, new Storage(this, this.backend.memory.alloc(Math.max(bytes, 4)), bytes), shape, dtype)
  }

  /** A tensor of zeros. */
  zeros(shape: readonly number[], dtype: "f32" | "f64" | "i32" | "u8" = "f32"): Tensor {
    const t = this.empty(shape, dtype)
    if (dtype === "f32" || dtype === "i32") this.backend.kernels.fill(t.handle, 0, t.size)
    else t.write(new Uint8Array(bytesOf(dtype, t.size)))
    return t
  }

  /** A tensor with the values of a host array. */
  from(data: Float32Array | Int32Array | Float64Array | Uint8Array, shape: readonly number[] = [data.length]): Tensor {
    const dtype: DType =
      data instanceof Float32Array
        ? "f32"
        : data instanceof Int32Array
          ? "i32"
          : data instanceof Float64Array
            ? "f64"
            : "u8"
    const t = this.empty(shape, dtype)
    if (t.size !== data.length)
      throw new SlothError("SLOTH_TENSOR_SHAPE", {
        what: `${data.length} values do not fill a tensor of shape [${shape.join(", ")}].`,
        fields: { shape, values: data.length },
      })
    if (data.length > 0) t.write(data)
    return t
  }

  /** The scratch file of the policy `spill`, opened when it is first used. Errors: SLOTH_SCRATCH_DISK. */
  get spill(): SpillSpace {
    return (this.#spill ??= new SpillSpace(this.backend.memory.scratch(this.scratchFolder)))
  }

  /** Gives the scratch file's disk space back, after what was enqueued; between passes. */
  closeSpill(): void {
    this.#spill?.[Symbol.dispose]()
    this.#spill = undefined
  }

  /** Wraps a storage whose reference the caller hands over. */
  adopt(storage: Storage, shape: readonly number[], dtype: DType, slot?: GradSlot): Tensor {
    const t = new Tensor(this, storage, shape, dtype, slot)
    this.#scopes.at(-1)?.push(t)
    return t
  }

  /** A weight used in place from a file: read-only, kept until disposed. */
  mapFile(path: string, offset: number, shape: readonly number[], dtype: DType): Tensor {
    const bytes = bytesOf(
      dtype,
      shape.reduce((a, b) => a * b, 1),
    )
    return new Tensor(this, new Storage(this, this.backend.memory.mapFile(path, offset, bytes), bytes), shape, dtype)
  }

  /** Makes a kept f32 tensor a trainable leaf: backward passes accumulate into `tensor.grad`. */
  parameter(tensor: Tensor): Tensor {
    this.keep(tensor)
    tensor.slot = new GradSlot(tensor)
    return tensor
  }

  /** Takes a tensor out of the current scopes; its owner disposes it. */
  keep<T extends Tensor>(tensor: T): T {
    for (const scope of this.#scopes) {
      const i = scope.lastIndexOf(tensor)
      if (i >= 0) scope.splice(i, 1)
    }
    return tensor
  }

  /** Runs `body`; tensors made inside die at its end except those it returns (a tensor, or an array or flat object of them), which move to the outer scope. */
  scope<R>(body: () => R): R {
    const scope: Tensor[] = []
    this.#scopes.push(scope)
    let result: R
    try {
      result = body()
    } catch (error) {
      this.#scopes.pop()
      for (const t of scope) t.dispose()
      throw error
    }
    this.#scopes.pop()
    const kept = tensorsIn(result)
    const outer = this.#scopes.at(-1)
    for (const t of scope) {
      if (kept.has(t)) outer?.push(t)
      else t.dispose()
    }
    return result
  }

  /** Runs `body` with a new tape and returns it together with the result. */
  record<R>(body: () => R): { result: R; tape: Tape } {
    const before = this.tape
    const tape = new Tape(this)
    this.tape = tape
    try {
      return { result: body(), tape }
    } catch (error) {
      tape.dispose()
      throw error
    } finally {
      this.tape = before
    }
  }

  /** Runs `body` without recording. */
  noGrad<R>(body: () => R): R {
    const before = this.tape
    this.tape = undefined
    try {
      return body()
    } finally {
      this.tape = before
    }
  }

  /** True inside `capture`: what a pass makes then must depend on shapes alone. */
  get capturing(): boolean {
    return this.#capturing
  }

  /** Gives up the capture that runs, because this pass cannot be repeated as it is. */
  refuseCapture(): never {
    throw REFUSED
  }

  /**
   * Records the kernel calls of `body`, without a tape; undefined when something in it called `refuseCapture`. Tensors that `body` returns belong to the caller and hold the
   * results of the program's last run.
   */
  capture<R>(body: () => R): { readonly program: Program; readonly result: R } | undefined {
    let result: { readonly value: R } | undefined
    this.#capturing = true
    try {
      const program = this.backend.capture(() => {
        result = { value: this.noGrad(() => this.scope(body)) }
      })
      return { program, result: result!.value }
    } catch (error) {
      if (error !== REFUSED) throw error
      return undefined
    } finally {
      this.#capturing = false
    }
  }

  /** Releases the backend. */
  [Symbol.dispose](): void {
    this.closeSpill()
    this.backend[Symbol.dispose]()
  }
}

const REFUSED = Symbol("this pass cannot be captured")

const tensorsIn = (value: unknown): Set<Tensor> => {
  const found = new Set<Tensor>()
  const visit = (v: unknown): void => {
    if (v instanceof Tensor) found.add(v)
    else if (Array.isArray(v)) v.forEach(visit)
    else if (v !== null && typeof v === "object" && Object.getPrototypeOf(v) === Object.prototype)
      Object.values(v).forEach(visit)
  }
  visit(value)
  return found
}
