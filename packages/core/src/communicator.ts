import type { Backend, BufferHandle } from "./backend.ts"

/** f32 values in a backend's memory that take part in a collective operation. */
export interface CommunicatorBuffer {
  readonly backend: Backend
  readonly handle: BufferHandle
  /** f32 elements. */
  readonly elements: number
}

/** How values of several processes become one. */
export type ReduceOperation = "sum" | "mean" | "max"

/**
 * The processes that train one model together. Every process calls the same operations in the same order; each promise resolves when this
 * process's part is enqueued or done, in queue order of the backend.
 */
export interface Communicator extends AsyncDisposable {
  readonly name: string
  /** This process, from 0. */
  readonly rank: number
  /** Number of processes. */
  readonly size: number
  /** Combines the buffers of all processes, in place, in an order that does not depend on arrival. */
  allReduce(buffers: readonly CommunicatorBuffer[], operation: ReduceOperation): Promise<void>
  /** Copies the buffers of process `root` to all. */
  broadcast(buffers: readonly CommunicatorBuffer[], root: number): Promise<void>
  /** Waits until every process has come here. */
  barrier(): Promise<void>
}

/** The communicator of a run in one process: its values are already those of all processes, so nothing has to be done. */
export const singleProcess: Communicator = Object.freeze({
  name: "single",
  rank: 0,
  size: 1,
  allReduce: () => Promise.resolve(),
  broadcast: () => Promise.resolve(),
  barrier: () => Promise.resolve(),
  [Symbol.asyncDispose]: () => Promise.resolve(),
})
