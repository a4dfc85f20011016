import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"

export const root = join(import.meta.dirname, "../..")

/** How a job ended: its objects, one a line of output, or what went wrong. */
export type JobResult<T> =
  | { readonly ok: true; readonly values: readonly T[] }
  | { readonly ok: false; readonly error: string }

/** Runs a program and reads the JSON objects it prints, one a line; other lines are ignored. */
export const runJob = <T>(
  command: string,
  args: readonly string[],
  options: {
    readonly cwd?: string
    readonly env?: Readonly<Record<string, string>>
    readonly onValue?: (value: T) => void
    readonly timeoutSeconds?: number
  } = {},
): Promise<JobResult<T>> =>
  new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: options.cwd ?? root,
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"],
    })
    const values: T[] = []
    let errors = ""
    const timer =
      options.timeoutSeconds === undefined
        ? undefined
        : setTimeout(() => child.kill("SIGKILL"), options.timeoutSeconds * 1000)
    child.stderr.on("data", (d: Buffer) => void (errors = (errors + d.toString()).slice(-4000)))
    createInterface(child.stdout).on("line", (line) => {
      if (!line.startsWith("{")) return
      let value: T
      try {
        value = JSON.parse(line) as T
      } catch {
        return
      }
      values.push(value)
      options.onValue?.(value)
    })
    child.on("error", (e) => resolve({ ok: false, error: e.message }))
    child.on("close", (code, signal) => {
      clearTimeout(timer)
      if (code === 0 && values.length > 0) resolve({ ok: true, values })
      else
        resolve({
          ok: false,
          error: `ended with ${signal ?? code}: ${errors.trim().split("\n").slice(-3).join(" | ")}`,
        })
    })
  })

/** Runs one of the jobs beside this folder in a Bun (or Node) process of its own. */
export const runOwnJob = <T>(name: string, args: readonly string[], options: Parameters<typeof runJob<T>>[2] = {}) =>
  runJob<T>(process.execPath, [join(root, "bench/jobs", name), ...args], options)

/** The Python that has torch, transformers and peft; undefined when there is none. */
export const peerPython = (): string | undefined => {
  const path = process.env["SLOTH_PEER_PYTHON"] ?? join(root, ".cache/peers/python/bin/python")
  return existsSync(path) ? path : undefined
}
export const PYTHON_ABSENT =
  "transformers + PEFT absent: bun run bench:peers python, or SLOTH_PEER_PYTHON=<python with torch, transformers, peft, gguf>"

/** The folder that holds node-llama-cpp; undefined when there is none. */
export const peerLlama = (): string | undefined => {
  const folder = join(root, ".cache/peers/llama")
  return existsSync(join(folder, "node_modules/node-llama-cpp")) ? folder : undefined
}
export const LLAMA_ABSENT = "llama.cpp absent: bun run bench:peers llama"

/**
 * Largest resident size of this process in bytes. On Linux from the process's own table: what getrusage says includes the parent's size at the time of the fork.
 */
export const peakResidentBytes = (): number => {
  try {
    const kb = /VmHWM:\s+(\d+) kB/.exec(readFileSync("/proc/self/status", "utf8"))?.[1]
    if (kb !== undefined) return Number(kb) * 1024
  } catch {
    // Not Linux.
  }
  return process.resourceUsage().maxRSS * 1024
}
