import { Worker } from "node:worker_threads"

/** Interrupts a program at its deadline from a thread of its own, and ends the process if it goes on, whether or not anyone is left to kill it. */
export interface Watchdog {
  /** Python's signal buffer: 2 is an interrupt. */
  readonly signals: Uint8Array
  arm(deadline: number): void
  /** Stops watching. True if the deadline had passed. */
  disarm(): boolean
}

/** As text: it must start where only this one file may be read, and needs no module of ours. */
const BODY = `
const { workerData } = require("node:worker_threads")
const { state, deadline, signals, graceMs } = workerData
for (;;) {
  Atomics.wait(state, 0, 0)
  while (Atomics.load(state, 0) === 1) {
    const left = deadline[0] - Date.now()
    if (left > 0) { Atomics.wait(state, 0, 1, left); continue }
    Atomics.store(state, 1, 1)
    Atomics.store(signals, 0, 2)
    if (left < -graceMs) { try { process.kill(process.pid, "SIGKILL") } catch {} }
    Atomics.wait(state, 0, 1, 20)
  }
}
`

/** Starts the thread. */
export const startWatchdog = (graceMs: number): Watchdog => {
  const state = new Int32Array(new SharedArrayBuffer(8))
  const deadline = new Float64Array(new SharedArrayBuffer(8))
  const signals = new Uint8Array(new SharedArrayBuffer(1))
  const worker = new Worker(BODY, { eval: true, workerData: { state, deadline, signals, graceMs } })
  worker.unref()
  return {
    signals,
    arm: (at) => {
      deadline[0] = at
      signals[0] = 0
      Atomics.store(state, 1, 0)
      Atomics.store(state, 0, 1)
      Atomics.notify(state, 0)
    },
    disarm: () => {
      Atomics.store(state, 0, 0)
      Atomics.notify(state, 0)
      const late = Atomics.load(state, 1) === 1
      signals[0] = 0
      return late
    },
  }
}
