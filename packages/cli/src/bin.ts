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
  process.exitCode = await main(argv)
}
