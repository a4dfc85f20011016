import { spawn, type ChildProcess } from "node:child_process"
import { tmpdir } from "node:os"
import { fileURLToPath } from "node:url"
import { SlothError } from "@sloth/core"
import type { SandboxOutcome } from "../outcome.ts"
import { watchMemory } from "./memory-watch.ts"
import { findWall } from "./wall.ts"
import type { GuestConfig, GuestReply, GuestRequest } from "./protocol.ts"

declare const Deno: unknown

/** Most characters of one answer: both limits of a step, written as JSON with every character escaped, and what stands around them. */
const lineLimit = (config: GuestConfig): number => config.outputBytes * 12 + 100_000

/** How this runtime is started on a file, with as few rights as it can be told to give. */
const command = (file: string, config: GuestConfig): { readonly program: string; readonly args: string[] } => {
  const words = [file, JSON.stringify(config)]
  const program = process.execPath
  if (typeof Deno !== "undefined") {
    const write = config.make === true ? ["--allow-write"] : []
    return { program, args: ["run", "--no-prompt", "--allow-read", "--allow-env", "--allow-sys", ...write, ...words] }
  }
  if (process.versions["bun"] !== undefined) return { program, args: words }
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number)
  const flag = major > 23 || (major === 23 && minor >= 5) || (major === 22 && minor >= 13) ? "" : "experimental-"
  const write = config.make === true ? ["--allow-fs-write=*"] : []
  return { program, args: [`--${flag}permission`, "--allow-fs-read=*", "--allow-worker", ...write, ...words] }
}

/** A guest process seen from outside. */
export class GuestProcess {
  readonly #child: ChildProcess
  readonly #config: GuestConfig
  #buffer: string[] = []
  #size = 0
  #waiting: ((reply: GuestReply | undefined) => void) | undefined
  #errors = ""
  #dead = false

  constructor(config: GuestConfig) {
    this.#config = config
    const extension = import.meta.url.endsWith(".ts") ? "ts" : "js"
    const file = fileURLToPath(new URL(`./guest/main.${extension}`, import.meta.url))
    const { program, args } = command(file, config)
    const { pyodide, snapshot } = config
    const readable = [...(pyodide === undefined ? [] : [pyodide.folder]), ...(snapshot === undefined ? [] : [snapshot])]
    const [first, ...rest] = [...findWall().prefix(config.make === true, readable), program, ...args]
    this.#child = spawn(first!, rest, {
      cwd: tmpdir(),
      // Nothing of the environment: it holds keys.
      env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
      stdio: ["pipe", "pipe", "pipe"],
    })
    this.#child.stdout!.setEncoding("utf8")
    this.#child.stdout!.on("data", (text: string) => this.#read(text))
    this.#child.stderr!.setEncoding("utf8")
    this.#child.stderr!.on("data", (text: string) => (this.#errors = (this.#errors + text).slice(-4000)))
    this.#child.stdin!.on("error", () => undefined)
    this.#child.on("error", (error) => {
      this.#errors += error.message
      this.#end()
    })
    this.#child.on("close", () => this.#end())
  }

  get dead(): boolean {
    return this.#dead
  }

  /** Waits until it can take a program. Errors: SLOTH_SANDBOX_START. */
  async ready(timeMs: number): Promise<void> {
    const reply = await this.#next(timeMs)
    if (reply !== "timeout" && reply?.type === "ready") return
    this.kill()
    throw new SlothError("SLOTH_SANDBOX_START", {
      what: `The sandbox for ${this.#config.language} did not start.`,
      why:
        reply === "timeout"
          ? `It was not ready in ${timeMs / 1000} s.`
          : reply?.type === "broken"
            ? reply.message
            : this.#errors.trim() || "Its process ended.",
      next: "Run it again; if it stays so, report what stands here.",
      fields: { language: this.#config.language },
    })
  }

  /** Waits for the end of a process that makes an image. Errors: SLOTH_SANDBOX_START. */
  async finished(timeMs: number): Promise<void> {
    const reply = await this.#next(timeMs)
    if (reply === undefined && this.#child.exitCode === 0) return
    this.kill()
    throw new SlothError("SLOTH_SANDBOX_START", {
      what: "The image of the Python interpreter could not be made.",
      why: reply !== "timeout" && reply?.type === "broken" ? reply.message : this.#errors.trim() || "It took too long.",
      next: "Check that the cache folder can be written, or set SLOTH_CACHE to another.",
      fields: { path: this.#config.snapshot },
    })
  }

  /** One step. A guest that does not answer by `timeMs` and a grace is killed. */
  async step(request: Exclude<GuestRequest, { type: "close" }>, graceMs: number): Promise<SandboxOutcome> {
    const started = performance.now()
    const memory = watchMemory(this.#child.pid, this.#config.memoryBytes, () => this.kill())
    this.#send(request)
    const reply = await this.#next(request.timeMs + graceMs)
    if (memory.stop()) {
      const message = "the process took far more memory than the program may have"
      return { stdout: "", ms: performance.now() - started, status: "memory", message }
    }
    if (reply !== "timeout" && reply?.type === "outcome") return reply.outcome
    this.kill()
    const base = { stdout: "", ms: performance.now() - started }
    if (reply === "timeout") return { ...base, status: "timeout", message: "the time is up, and it did not let go" }
    return { ...base, status: "error", name: "Crash", message: this.#errors.trim().slice(-500) || "the process ended" }
  }

  /** Lets go of the program and waits for a fresh interpreter. */
  async close(timeMs: number): Promise<void> {
    this.#send({ type: "close" })
    await this.ready(timeMs)
  }

  kill(): void {
    this.#dead = true
    this.#child.kill("SIGKILL")
  }

  /** Lets the host's process end while this one idles. */
  hold(on: boolean): void {
    for (const part of [this.#child, this.#child.stdin, this.#child.stdout, this.#child.stderr] as unknown as {
      ref?(): void
      unref?(): void
    }[])
      if (on) part.ref?.()
      else part.unref?.()
  }

  #send(request: GuestRequest): void {
    if (!this.#dead) this.#child.stdin!.write(`${JSON.stringify(request)}\n`)
  }

  #next(timeMs: number): Promise<GuestReply | "timeout" | undefined> {
    if (this.#dead) return Promise.resolve(undefined)
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#waiting = undefined
        resolve("timeout")
      }, timeMs)
      this.#waiting = (reply) => {
        clearTimeout(timer)
        this.#waiting = undefined
        resolve(reply)
      }
    })
  }

  #end(): void {
    this.#dead = true
    this.#waiting?.(undefined)
  }

  #read(text: string): void {
    this.#size += text.length
    if (this.#size > lineLimit(this.#config)) {
      this.kill()
      this.#end()
      return
    }
    this.#buffer.push(text)
    if (!text.includes("\n")) return
    const lines = this.#buffer.join("").split("\n")
    const rest = lines.pop()!
    this.#buffer = rest === "" ? [] : [rest]
    this.#size = rest.length
    for (const line of lines) {
      let reply: GuestReply
      try {
        reply = JSON.parse(line) as GuestReply
      } catch {
        continue
      }
      this.#waiting?.(reply)
    }
  }
}
