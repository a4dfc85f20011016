import { SlothError, type Backend, type BackendOptions, type Memory, type Precision } from "@sloth/core"

import { arenaModel } from "./arena-model.ts"
import { cpuInfo } from "./cpu-info.ts"
import { placement } from "./placement.ts"
import { loadAddon } from "./internal/loader.ts"
import type { ErrorFactory, NativeMemory } from "./internal/native.ts"

/** Advice that goes with the codes of native errors. */
const NEXT: Readonly<Record<string, string>> = {
  SLOTH_MEMORY_BUDGET: "Raise the memory budget, or use fewer tokens in a micro-batch.",
  SLOTH_MEMORY_EXHAUSTED: "Use a smaller model, fewer tokens in a micro-batch, or a machine with more memory.",
  SLOTH_BACKEND_CLOSED: "Open a new backend.",
  SLOTH_SCRATCH_DISK: "Free some space on that disk, or choose a folder on another.",
}

const toError: ErrorFactory = (code, message, fields) =>
  new SlothError(code as `SLOTH_${string}`, { what: message, next: NEXT[code], fields })

const badOption = (option: string, value: unknown, known: string): SlothError =>
  new SlothError("SLOTH_BACKEND_OPTION", {
    what: `The CPU backend has no ${option} ${JSON.stringify(value)}.`,
    next: `Use ${known}.`,
    fields: { option, value },
  })

/** The largest number of threads that is a plausible wish. */
const MAX_THREADS = 1024

function chooseIsa(isa: string | undefined, isas: readonly string[]): string {
  const wanted = isa ?? (process.env["SLOTH_CPU_ISA"] || undefined)
  if (wanted === undefined) return isas[0]!
  if (!isas.includes(wanted))
    throw badOption("instruction set", wanted, `one that this machine has: ${isas.join(", ")}`)
  return wanted
}

const PRECISIONS: readonly Precision[] = ["f32", "bf16", "int8"]

/** What a precision needs and an instruction set lacks. */
const NEEDS: Readonly<Record<Precision, string>> = {
  f32: "",
  bf16: "Products of bf16 need the AVX512-BF16 instructions (AMD Zen 4, Intel Cooper Lake or Sapphire Rapids, and newer); without them they would be slower than f32.",
  int8: "Integer products need AVX2 or AVX-512.",
}

function checkPrecision(precision: Precision, isa: string, isas: readonly string[], of: (isa: string) => Precision[]) {
  if (!PRECISIONS.includes(precision)) throw badOption("precision", precision, PRECISIONS.join(", "))
  const offered = of(isa)
  if (offered.includes(precision)) return
  const better = isas.find((other) => of(other).includes(precision))
  throw new SlothError("SLOTH_BACKEND_PRECISION", {
    what: `The CPU backend cannot compute with precision ${precision} here.`,
    why: `${NEEDS[precision]} ${better === undefined ? "This machine or this build of the kernels does not have them" : `The chosen instruction set "${isa}" does not have them`}.`,
    next:
      better === undefined
        ? `Use precision ${offered.join(" or ")}.`
        : `Leave the instruction set out or use "${better}", or use precision ${offered.join(" or ")}.`,
    fields: { precision, isa, offered },
  })
}

function memoryOf(native: NativeMemory): Memory {
  return {
    alloc: native.alloc,
    view: native.view,
    free: native.free,
    bytes: native.bytes,
    write(handle, data, byteOffset = 0) {
      const bytes = data instanceof Uint8Array ? data : new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
      native.write(handle, bytes, byteOffset)
    },
    read: native.read,
    mapFile: native.mapFile,
    scratch: (folder) => {
      const file = native.scratchOpen(folder)
      let open = true
      const live = (): number => {
        if (open) return file
        throw toError("SLOTH_SCRATCH_CLOSED", "A scratch file was used after it was disposed.", {})
      }
      return {
        reserve: (bytes) => native.scratchReserve(live(), bytes, folder),
        put: (handle, offset) => native.scratchPut(live(), handle, offset),
        take: (handle, offset, ahead = 0) => native.scratchTake(live(), handle, offset, ahead),
        [Symbol.dispose]: () => {
          if (open) native.scratchClose(file)
          open = false
        },
      }
    },
    stats: native.stats,
    resetPeak: native.resetPeak,
    trim: native.trim,
    setBudget: native.setBudget,
  }
}

/**
 * Opens the native CPU backend: an in-order queue on threads of its own, so that the event loop stays free.
 *
 * `threads` counts all threads that compute (default: what the system allows the process); fewer than there are run where they are fastest ({@link placement}). `isa` or the environment variable SLOTH_CPU_ISA forces an
 * instruction set ("avx512", "avx2", "x86-64", "neon"). `precision` "bf16" rounds the operands of products with stored weights over more than 32 rows and of
 * weight gradients to bf16 (sums in f32; a gradient with a side below 128, the factors of an adapter, stays f32); "int8" rounds the activations of linear
 * layers over Q4_0, Q4_1 and Q8_0 weights to int8 in blocks of 32 and multiplies integers, and has exact f32 products for other formats and all gradients.
 * Everything else is f32 under each. Without a `memoryBudget` the budget is the memory that the process may use. With
 * SLOTH_DEBUG_MEMORY=1 freed buffers are filled with NaN in queue order. An index out of range inside a buffer is found when the kernel runs: the next
 * `read` or `synchronize` rejects with SLOTH_KERNEL_DATA. Disposing drops work that has not begun, rejects pending reads with SLOTH_BACKEND_CLOSED and
 * joins the threads.
 *
 * Errors: SLOTH_NATIVE_UNAVAILABLE, SLOTH_BACKEND_OPTION, SLOTH_BACKEND_PRECISION where the processor or the instruction set lacks one, SLOTH_BACKEND_THREADS.
 */
export async function createCpuBackend(options: BackendOptions = {}): Promise<Backend> {
  const { addon } = loadAddon()
  const info = cpuInfo()
  const isa = chooseIsa(options.isa, info.isas)
  const threads = options.threads ?? info.threads
  const precision = options.precision ?? "f32"
  const budget = options.memoryBudget ?? 0
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    throw badOption("number of threads", threads, `a whole number from 1 to ${MAX_THREADS}`)
  }
  if (!Number.isSafeInteger(budget) || budget < 0) throw badOption("memory budget", budget, "a whole number of bytes")
  checkPrecision(precision, isa, info.isas, addon.precisions)
  const poison = process.env["SLOTH_DEBUG_MEMORY"] === "1"
  const native = addon.create(
    isa,
    precision,
    threads,
    budget === 0 ? info.memoryBytes : budget,
    poison,
    toError,
    (placement(threads) ?? []).join(),
  )
  if (native === undefined) {
    throw new SlothError("SLOTH_BACKEND_THREADS", {
      what: "The system starts no more threads for the CPU backend.",
      next: "Raise the limit of processes (ulimit -u), or set fewer threads.",
      fields: { threads },
    })
  }
  return {
    name: "cpu",
    device: {
      kind: "cpu",
      description: info.description,
      isa,
      isas: info.isas,
      threads: native.threads,
      memoryBytes: info.memoryBytes,
      precisions: addon.precisions(isa),
      precision,
    },
    memory: memoryOf(native.memory),
    kernels: native.kernels,
    synchronize: native.synchronize,
    capture: (body) => {
      native.beginCapture()
      let program = 0
      let finished = false
      try {
        body()
        finished = true
      } finally {
        program = native.endCapture(finished)
      }
      return {
        calls: native.programCalls(program),
        run: () => native.runProgram(program),
        [Symbol.dispose]: () => native.dropProgram(program),
      }
    },
    memoryModel: arenaModel,
    [Symbol.dispose]: () => native.close(),
  }
}
