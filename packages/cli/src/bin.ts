// Whoever reads our output may stop early, as `head` does: that is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0)
  throw error
})

const argv = process.argv.slice(2)

// The version needs nothing of the rest.
if (argv.length === 1 && (argv[0] === "--version" || argv[0] === "-v")) {
  const { cliVersion } = await import("./version.ts")
  process.stdout.write(`${cliVersion()}\n`)
} else {
  const { main } = await import("./main.ts")
  const status = await main(argv)
  // What code of the user left behind, such as the timer of a reward that nobody waits for any more, must not hold the prompt back.
  const written = (stream: NodeJS.WriteStream): Promise<void> => new Promise((done) => stream.write("", () => done()))
  await Promise.all([written(process.stdout), written(process.stderr)])
  process.exit(status)
}
