import type { Backend, RequiredKernels } from "@sloth/core"
import { callRecorder } from "@sloth/tensor"
import { kernelCost } from "./kernel-cost.ts"

/** What calls with one label took together. */
export interface ProfileEntry {
  readonly label: string
  calls: number
  seconds: number
  flops: number
  bytes: number
}

/** Label of the time in which the queue was empty. */
export const IDLE = "(idle: reading results, JavaScript)"

/** A backend that says when each kernel call ended. */
export interface ProfilingBackend extends Backend {
  /** Starts measuring; before it calls pass through unmeasured. */
  start(): void
  /** Waits for the queue and returns what was measured since `start`, most expensive first, with the seconds from start to end. */
  stop(): Promise<{ entries: ProfileEntry[]; seconds: number }>
}

/**
 * Wraps a backend so that after every kernel call a marker is put into the queue; the time between two markers is the time of the call between them. Nothing is waited for, so
 * the order of the work and the overlap of enqueueing and computing stay as they are. A marker costs a few microseconds, which short kernels show.
 */
export const profilingBackend = (inner: Backend): ProfilingBackend => {
  const tables = new Map<number, Int32Array>()
  const entries = new Map<string, ProfileEntry>()
  let measuring = false
  let started = 0
  let last = 0
  let pending = 0
  let failure: unknown
  const count = (label: string, now: number, flops: number, bytes: number): void => {
    const entry = entries.get(label) ?? { label, calls: 0, seconds: 0, flops: 0, bytes: 0 }
    entry.calls++
    entry.seconds += (now - last) / 1000
    entry.flops += flops
    entry.bytes += bytes
    entries.set(label, entry)
    last = now
  }
  // A program of the backend itself could not be looked into: its calls are made one by one.
  const recorder = callRecorder(inner.memory)
  const wrapped = new Map<string, (...args: number[]) => void>()
  const kernels = new Proxy({} as RequiredKernels, {
    get: (_, name: string) => {
      const known = wrapped.get(name)
      if (known !== undefined) return known
      const call = (inner.kernels as unknown as Readonly<Record<string, (...args: number[]) => void>>)[name]!
      const wrapper = (...args: number[]): void => {
        // Nothing was waiting: since the last call ended the queue was empty.
        if (measuring && pending === 0) count(IDLE, performance.now(), 0, 0)
        call(...args)
        if (!measuring) return
        const cost = kernelCost(name, args, (h) => tables.get(h))
        pending++
        inner.synchronize().then(
          () => {
            pending--
            count(cost.label, performance.now(), cost.flops, cost.bytes)
          },
          (error: unknown) => void (failure ??= error),
        )
      }
      const recorded = recorder.wrap(wrapper)
      wrapped.set(name, recorded)
      return recorded
    },
  })
  return {
    name: inner.name,
    device: inner.device,
    kernels,
    memory: {
      ...recorder.memory,
      write: (handle, data, offset) => {
        if (data instanceof Int32Array && data.length % 3 === 0 && data.length <= 1 << 16)
          tables.set(handle, data.slice())
        recorder.memory.write(handle, data, offset)
      },
      free: (handle) => {
        tables.delete(handle)
        recorder.memory.free(handle)
      },
    },
    synchronize: () => {
      recorder.check("synchronize")
      return inner.synchronize()
    },
    capture: recorder.capture,
    start: () => {
      entries.clear()
      measuring = true
      started = last = performance.now()
    },
    stop: async () => {
      await inner.synchronize()
      measuring = false
      if (failure !== undefined) throw failure
      const seconds = (performance.now() - started) / 1000
      return { entries: [...entries.values()].sort((a, b) => b.seconds - a.seconds), seconds }
    },
    [Symbol.dispose]: () => inner[Symbol.dispose](),
  }
}
