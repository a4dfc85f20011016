import { spawn } from "node:child_process"
import { join } from "node:path"

/** How a command line ended. */
export interface BinResult {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
  /** The code of the first error on stderr. */
  readonly error: string | undefined
}

/** Options of {@link runBin}. */
export interface BinOptions {
  readonly cwd: string
  readonly env?: Readonly<Record<string, string>>
  readonly input?: string
  /** Called with all of stderr so far; returning true sends `signal` once. */
  readonly interruptWhen?: (stderr: string) => boolean
  /** The signal it sends then; SIGINT when absent. */
  readonly signal?: "SIGINT" | "SIGKILL"
}

const bin = join(import.meta.dirname, "../src/bin.ts")

/** Runs the real program in a process of its own, as a user without a terminal and without colours. */
export const runBin = (args: readonly string[], options: BinOptions): Promise<BinResult> =>
  new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [bin, ...args], {
      cwd: options.cwd,
      env: {
        PATH: process.env["PATH"],
        HOME: options.cwd,
        SLOTH_CACHE: join(options.cwd, ".cache"),
        NO_COLOR: "1",
        COLUMNS: "120",
        ...options.env,
      },
    })
    let stdout = ""
    let stderr = ""
    let interrupted = false
    child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => {
      stderr += chunk.toString()
      if (!interrupted && options.interruptWhen?.(stderr) === true) {
        interrupted = true
        child.kill(options.signal ?? "SIGINT")
      }
    })
    child.on("error", reject)
    child.on("close", (code) =>
      resolve({ code, stdout, stderr, error: /^error (SLOTH_\w+):/m.exec(stderr)?.[1] ?? undefined }),
    )
    child.stdin.end(options.input ?? "")
  })
