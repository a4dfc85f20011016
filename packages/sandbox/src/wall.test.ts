import { afterAll, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { findWall } from "./internal/wall.ts"
import { sandboxWall } from "./wall.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-wall-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Runs a script of the runtime itself behind the wall, with all rights that the runtime has: what is stopped is stopped by the system. */
const behind = (script: string, making = false): Promise<{ readonly code: number | null; readonly out: string }> => {
  const file = join(folder, "script.mjs")
  writeFileSync(file, script)
  const [program, ...args] = [...findWall().prefix(making), process.execPath, file]
  return new Promise((resolve) => {
    const child = spawn(program!, args, { stdio: ["ignore", "pipe", "ignore"] })
    let out = ""
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()))
    child.on("close", (code) => resolve({ code, out: out.trim() }))
  })
}

const wall = sandboxWall()

test.skipIf(process.platform === "linux")("no wall is claimed where there is none", () => {
  expect(wall).toEqual({ network: false, processes: false, writing: false, by: [] })
})

test.skipIf(!wall.network)("no network, not even this machine's own", async () => {
  const server = createServer((socket) => socket.end("reached"))
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
  const { port } = server.address() as AddressInfo
  const script = `import { connect } from "node:net"
    connect(${port}, "127.0.0.1").on("data", (d) => { console.log(String(d)); process.exit(0) }).on("error", () => { console.log("refused"); process.exit(0) })`
  const { out } = await behind(script)
  server.close()
  expect(out).toBe("refused")
})

test.skipIf(!wall.processes)("other processes cannot be signalled", async () => {
  const { out } = await behind(
    `try { process.kill(${process.pid}, 0); console.log("reached") } catch { console.log("refused") }`,
  )
  expect(out).toBe("refused")
})

test.skipIf(!wall.writing)("no file can be written, but by the process that makes an image", async () => {
  const write = (path: string): string =>
    `import { writeFileSync } from "node:fs"
     process.on("SIGXFSZ", () => undefined)
     try { writeFileSync(${JSON.stringify(path)}, "here") } catch {}
     console.log("ran")`
  const { size = 0 } = Bun.file(join(folder, "none"))
  await behind(write(join(folder, "none")))
  expect(existsSync(join(folder, "none")) ? Bun.file(join(folder, "none")).size : size).toBe(0)
  expect((await behind(write(join(folder, "made")), true)).out).toBe("ran")
  expect(Bun.file(join(folder, "made")).size).toBe(4)
})

test.skipIf(!wall.processes)("what is behind it dies with what started it", async () => {
  const [program, ...args] = [
    ...findWall().prefix(false),
    process.execPath,
    "-e",
    "console.log('up'); setInterval(() => {}, 1000)",
  ]
  const child = spawn(program!, args, { stdio: ["ignore", "pipe", "ignore"] })
  await new Promise((resolve) => child.stdout.once("data", resolve))
  const closed = new Promise((resolve) => child.stdout.once("close", resolve))
  child.kill("SIGKILL")
  // Its output closes only when the last process that holds it is gone.
  await closed
  expect(child.killed).toBe(true)
})
