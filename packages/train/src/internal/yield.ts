/** Lets timers, signals and input have their turn. */
export const yieldToLoop = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
