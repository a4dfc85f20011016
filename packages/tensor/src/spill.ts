import type { ScratchFile } from "@sloth/core"
import type { Tensor } from "./tensor.ts"

/** Where a tensor's values lie in a {@link SpillSpace}. */
export interface Spilled {
  readonly offset: number
  readonly bytes: number
  readonly shape: readonly number[]
}

/** Blocks begin at whole pages. */
const PAGE = 4096

/** Values of a backward pass on disk. Passes put and free them like a stack, and the file is as large as the stack has been. */
export class SpillSpace implements Disposable {
  readonly #file: ScratchFile
  readonly #stack: Spilled[] = []
  readonly #freed = new Set<Spilled>()
  #reserved = 0

  constructor(file: ScratchFile) {
    this.#file = file
  }

  /** Writes the values of an f32 tensor, in queue order; the tensor may be disposed at once. Errors: SLOTH_SCRATCH_DISK when the disk is full. */
  put(tensor: Tensor): Spilled {
    const last = this.#stack.at(-1)
    const offset = last === undefined ? 0 : last.offset + Math.ceil(last.bytes / PAGE) * PAGE
    // What the buffer has, which for an empty tensor is a little more than its values.
    const bytes = tensor.engine.backend.memory.bytes(tensor.handle)
    if (offset + bytes > this.#reserved) {
      this.#file.reserve(offset + bytes)
      this.#reserved = offset + bytes
    }
    this.#file.put(tensor.handle, offset)
    const spilled = { offset, bytes, shape: tensor.shape }
    this.#stack.push(spilled)
    return spilled
  }

  /** Fills a tensor of the same shape. */
  take(spilled: Spilled, into: Tensor): void {
    // Backward passes go down the stack, so what lies before comes next.
    this.#file.take(into.handle, spilled.offset, spilled.bytes)
  }

  /** Gives the place back. */
  free(spilled: Spilled): void {
    this.#freed.add(spilled)
    for (let last = this.#stack.at(-1); last !== undefined && this.#freed.delete(last); last = this.#stack.at(-1))
      this.#stack.pop()
  }

  [Symbol.dispose](): void {
    this.#file[Symbol.dispose]()
  }
}
