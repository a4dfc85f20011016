import { setImmediate } from "node:timers"

/** Micro-batches that may be enqueued before the device is waited for: enough to keep it busy, few enough that the queue stays small. */
export const MICRO_BATCHES_AHEAD = 8

/** Lets timers, signals and input have their turn. */
export const yieldToLoop = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))
