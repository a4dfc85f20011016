import { readSync, writeSync } from "node:fs"
import type { GuestConfig, GuestProgram, GuestReply, GuestRequest } from "../protocol.ts"

/**
 * The process in which the code of a model runs. It reads steps from its input, line by line, and answers on its output. It has no environment and an
 * empty folder; whoever started it kills it when it does not answer in time.
 */
const config = JSON.parse(process.argv[2] ?? "{}") as GuestConfig

const reply = (message: GuestReply): void => {
  const bytes = Buffer.from(`${JSON.stringify(message)}\n`)
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(1, bytes, at)
    } catch (error) {
      // The other end reads, only later than we write.
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") process.exit(1)
    }
  }
}

/** Lines of the input; reading waits, since there is nothing else to do. */
const lines = function* (): Generator<string> {
  const chunk = Buffer.allocUnsafe(1 << 16)
  const wait = new Int32Array(new SharedArrayBuffer(4))
  let parts: Buffer[] = []
  for (;;) {
    let read = 0
    try {
      read = readSync(0, chunk, 0, chunk.length, null)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === "EAGAIN") {
        Atomics.wait(wait, 0, 0, 1)
        continue
      }
      if (code !== "EOF") throw error
    }
    if (read === 0) return
    let rest = Buffer.from(chunk.subarray(0, read))
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      yield Buffer.concat([...parts, rest.subarray(0, end)]).toString("utf8")
      parts = []
      rest = rest.subarray(end + 1)
    }
    if (rest.length > 0) parts.push(rest)
  }
}

const language = async () =>
  config.language === "javascript"
    ? (await import("./javascript.ts")).javascriptGuest(config)
    : (await import("./python.ts")).pythonGuest(config)

try {
  const guest = await language()
  if (config.make === true) process.exit(0)
  let program: GuestProgram | undefined = await guest.prepare()
  reply({ type: "ready" })
  for (const line of lines()) {
    const request = JSON.parse(line) as GuestRequest
    if (request.type === "close") {
      program?.dispose()
      program = undefined
      program = await guest.prepare()
      reply({ type: "ready" })
      continue
    }
    const deadline = Date.now() + request.timeMs
    const outcome =
      request.type === "open" ? program!.open(request.code, request.stdin, deadline) : program!.call(request, deadline)
    reply({ type: "outcome", outcome })
  }
  process.exit(0)
} catch (error) {
  reply({ type: "broken", message: error instanceof Error ? (error.stack ?? error.message) : String(error) })
  process.exit(1)
}
