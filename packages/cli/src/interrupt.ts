/** Turns the first Ctrl-C into an abort and the second into an immediate exit; `onFirst` and `onSecond` say what happens now. */
export const interruptible = (
  onFirst: () => void,
  onSecond: () => void = () => void process.stderr.write("\n"),
): {
  readonly signal: AbortSignal
  readonly stop: () => void
} => {
  const controller = new AbortController()
  const handle = (): void => {
    if (controller.signal.aborted) {
      onSecond()
      process.exit(130)
    }
    controller.abort()
    onFirst()
  }
  process.on("SIGINT", handle)
  process.on("SIGTERM", handle)
  return {
    signal: controller.signal,
    stop: () => {
      process.off("SIGINT", handle)
      process.off("SIGTERM", handle)
    },
  }
}
