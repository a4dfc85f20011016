import type { Precision, RequiredKernels } from "@sloth/core"

/** The memory functions of an open native backend. */
export interface NativeMemory {
  alloc(bytes: number): number
  view(parent: number, byteOffset: number, bytes: number): number
  free(handle: number): void
  bytes(handle: number): number
  write(handle: number, data: Uint8Array, byteOffset: number): void
  read(handle: number, byteOffset?: number, bytes?: number): Promise<Uint8Array>
  mapFile(path: string, offset: number, bytes: number): number
  /** Descriptor of a new file without a name. */
  scratchOpen(folder: string): number
  scratchReserve(descriptor: number, bytes: number, folder: string): void
  scratchPut(descriptor: number, handle: number, offset: number): void
  scratchTake(descriptor: number, handle: number, offset: number, ahead: number): void
  /** In queue order. */
  scratchClose(descriptor: number): void
  stats(): { liveBuffers: number; liveBytes: number; peakBytes: number; cachedBytes: number; mappedBytes: number }
  resetPeak(): void
  trim(): void
  setBudget(bytes: number): void
}

/** What the addon's `create` returns. */
export interface NativeBackend {
  readonly kernels: RequiredKernels
  readonly memory: NativeMemory
  readonly threads: number
  synchronize(): Promise<void>
  /** Until `endCapture`, kernel calls are recorded instead of enqueued. */
  beginCapture(): void
  /** Number of the program, or 0 when it is not kept. */
  endCapture(keep: boolean): number
  runProgram(program: number): void
  dropProgram(program: number): void
  programCalls(program: number): number
  close(): void
}

/** Makes the error that the addon throws or rejects with. */
export type ErrorFactory = (code: string, message: string, fields: Record<string, unknown>) => Error

/** The addon. */
export interface NativeAddon {
  /** Instruction sets of this machine that were built in, best first. */
  isas(): string[]
  /** Precisions offered with one of them. */
  precisions(isa: string): Precision[]
  /** Undefined when the system starts no more threads. */
  create(
    isa: string,
    precision: Precision,
    threads: number,
    budget: number,
    poison: boolean,
    errorFactory: ErrorFactory,
    /** Processors that the threads may run on, "0,2,4"; "" leaves that to the system. */
    cpus: string,
  ): NativeBackend | undefined
}
