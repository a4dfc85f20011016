import { SlothError, type Backend, type BackendOptions, type BufferHandle, type RequiredKernels } from "@sloth/core"

import { callRecorder } from "../call-recorder.ts"
import { attentionKernels } from "./attention.ts"
import { definer } from "./call.ts"
import { elementwiseKernels } from "./elementwise.ts"
import { lossKernels } from "./loss.ts"
import { createReferenceMemory, machineMemory } from "./memory.ts"
import { normRopeKernels } from "./norm-rope.ts"
import { optimizerKernels } from "./optimizer.ts"
import { productKernels } from "./products.ts"
import { randomKernels } from "./random.ts"
import { reductionKernels } from "./reductions.ts"
import { rowKernels } from "./rows.ts"
import { samplingKernels } from "./sampling.ts"

/** Options of {@link createReferenceBackend}. */
export interface ReferenceBackendOptions extends BackendOptions {
  /** Holds all f32 buffers in double precision, for finite differences; `read` and `write` still speak f32. */
  readonly float64?: boolean
}

/** The reference backend: every kernel as its definition says, in plain TypeScript. */
export interface ReferenceBackend extends Backend {
  readonly float64: boolean
  /** The f32 values of a buffer, exact with `float64`; at once, because the reference runs every kernel when it is enqueued. */
  readFloat64(handle: BufferHandle): Float64Array
  /** Sets the first values of an f32 buffer; rounded to f32 unless the backend was made with `float64`. Errors: SLOTH_KERNEL_ARGUMENT when they do not fit. */
  writeFloat64(handle: BufferHandle, data: ArrayLike<number>): void
}

/**
 * Creates the reference backend: slow, obvious and complete. Sums are made in double precision and results stored as f32.
 *
 * It runs on the calling thread, executes every kernel when it is enqueued, and throws all errors at the call. `threads` is accepted, because every
 * factory gets it, and `device.threads` says 1. Errors: SLOTH_BACKEND_OPTION for an instruction set other than "js" or a precision other than "f32".
 */
export function createReferenceBackend(options: ReferenceBackendOptions = {}): ReferenceBackend {
  const { isa = "js", precision = "f32", float64 = false } = options
  if (isa !== "js") throw badOption("isa", isa, "js")
  if (precision !== "f32") throw badOption("precision", precision, "f32")
  const memory = createReferenceMemory({ float64, budget: options.memoryBudget || machineMemory() })
  const define = definer(memory)
  const recorder = callRecorder(memory)
  const recorded = (kernels: RequiredKernels): RequiredKernels =>
    Object.fromEntries(
      Object.entries(kernels).map(([name, call]) => [name, recorder.wrap(call as (...args: number[]) => void)]),
    ) as unknown as RequiredKernels
  const close = (): void => memory.close()
  return {
    name: "reference",
    device: {
      kind: "reference",
      description: "pure TypeScript",
      isa: "js",
      isas: ["js"],
      threads: 1,
      memoryBytes: machineMemory(),
      precisions: ["f32"],
    },
    memory: recorder.memory,
    kernels: recorded({
      ...elementwiseKernels(define, memory.copyBytes),
      ...randomKernels(define),
      ...reductionKernels(define),
      ...productKernels(define),
      ...rowKernels(define),
      ...normRopeKernels(define),
      ...attentionKernels(define),
      ...lossKernels(define),
      ...optimizerKernels(define),
      ...samplingKernels(define),
    }),
    float64,
    readFloat64: (handle) => new Float64Array(memory.floats(handle)),
    writeFloat64(handle, data) {
      const target = memory.floats(handle)
      if (data.length > target.length || memory.isMapped(handle)) {
        throw new SlothError("SLOTH_KERNEL_ARGUMENT", {
          what: `${data.length} values do not fit in a writable buffer of ${target.length}.`,
          fields: { values: data.length, capacity: target.length },
        })
      }
      target.set(data)
      memory.publish(handle)
    },
    synchronize: () => {
      recorder.check("synchronize")
      return Promise.resolve()
    },
    capture: recorder.capture,
    [Symbol.dispose]: close,
  }
}

const badOption = (option: string, value: string, only: string): SlothError =>
  new SlothError("SLOTH_BACKEND_OPTION", {
    what: `The reference backend has no ${option} "${value}".`,
    why: `Its only one is "${only}".`,
    fields: { option, value },
  })
