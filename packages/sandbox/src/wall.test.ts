import { afterAll, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { createServer, type AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { watchMemory } from "./internal/memory-watch.ts"
import { findWall, withoutOwnRoot } from "./internal/wall.ts"
import { sandboxWall } from "./wall.ts"

const folder = mkdtempSync(join(tmpdir(), "sloth-wall-"))
writeFileSync(join(folder, "kept"), "")
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Runs a script of the runtime itself behind the wall, with all rights that the runtime has: what is stopped is stopped by the system. */
const behind = (script: string, making = false): Promise<{ readonly code: number | null; readonly out: string }> => {
  const file = join(folder, "script.mjs")
  writeFileSync(file, script)
  const [program, ...args] = [...findWall().prefix(making, [folder]), process.execPath, file]
  return new Promise((resolve) => {
    const child = spawn(program!, args, { stdio: ["ignore", "pipe", "ignore"] })
    let out = ""
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()))
    child.on("close", (code) => resolve({ code, out: out.trim() }))
  })
}

const wall = sandboxWall()

test.skipIf(process.platform === "linux")("no wall is claimed where there is none", () => {
  const none = { network: false, processes: false, writing: false, reading: false, memory: false }
  expect(wall).toEqual({ ...none, by: [] })
})

test("an own root that was given up is taken back", () => {
  const before = findWall()
  const restore = withoutOwnRoot(before)
  expect(sandboxWall()).toMatchObject({ reading: false, network: wall.network, writing: wall.writing })
  restore()
  expect(findWall()).toBe(before)
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

test.skipIf(!wall.reading)("no file of the user can be read, and there are no rights to undo it", async () => {
  const secret = mkdtempSync(join(tmpdir(), "sloth-secret-"))
  writeFileSync(join(secret, "key.txt"), "secret")
  const project = join(import.meta.dirname, "../../../package.json")
  const { out } = await behind(`
    import { readdirSync, readFileSync, rmSync } from "node:fs"
    const seen = []
    for (const path of [${JSON.stringify(join(secret, "key.txt"))}, ${JSON.stringify(project)}, "/etc/passwd", "/etc/hostname", "key.txt", "/proc/1/root/etc/passwd", "/proc/1/cwd/etc/passwd"])
      try { readFileSync(path); seen.push(path) } catch {}
    for (const path of ["/home", "/root", "/var", "/sys"]) try { if (readdirSync(path).length > 0) seen.push(path) } catch {}
    try { rmSync(${JSON.stringify(join(folder, "kept"))}); seen.push("removed") } catch {}
    const rights = /CapEff:\\s*(\\w+)/.exec(readFileSync("/proc/self/status", "latin1"))[1]
    console.log(JSON.stringify(seen), Number("0x" + rights), process.cwd())`)
  rmSync(secret, { recursive: true })
  expect(out).toBe("[] 0 /")
})

test.skipIf(!wall.memory)(
  "a process that takes far more memory than its program may have is ended",
  async () => {
    const child = spawn(process.execPath, [
      "-e",
      "const all = []; setInterval(() => all.push(new Uint8Array(64 * 2 ** 20).fill(1)), 30); setTimeout(() => process.exit(7), 30_000)",
    ])
    const closed = new Promise<NodeJS.Signals | null>((resolve) =>
      child.on("close", (_code, signal) => resolve(signal)),
    )
    const watch = watchMemory(child.pid, 2 ** 24, () => child.kill("SIGKILL"))
    expect(await closed).toBe("SIGKILL")
    expect(watch.stop()).toBe(true)
  },
  60_000,
)

test.skipIf(!wall.memory)(
  "a process that takes what it may is left alone",
  async () => {
    const child = spawn(process.execPath, [
      "-e",
      "const all = new Uint8Array(2 ** 27).fill(1); setTimeout(() => process.exit(all[5] + 1), 400)",
    ])
    const closed = new Promise<number | null>((resolve) => child.on("close", resolve))
    const watch = watchMemory(child.pid, 2 ** 24, () => child.kill("SIGKILL"))
    expect(await closed).toBe(2)
    expect(watch.stop()).toBe(false)
  },
  60_000,
)

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
