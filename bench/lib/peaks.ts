import { execFileSync, spawn, type ChildProcessWithoutNullStreams } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, renameSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"

export type PeakKind = "f32" | "int8" | "bf16" | "read"

const root = join(import.meta.dirname, "../..")
const source = join(root, "bench/native/peak.cpp")

/** Compiles the program that measures limits, once for each source and compiler. Throws when there is no C++ compiler. */
const program = (): string => {
  const compilers = [process.env["CXX"], "c++", "g++", "clang++"].filter(
    (c): c is string => c !== undefined && c !== "",
  )
  for (const compiler of compilers) {
    let version: string
    try {
      version = execFileSync(compiler, ["--version"], { encoding: "utf8" })
    } catch {
      continue
    }
    const hash = createHash("sha256").update(readFileSync(source)).update(version).digest("hex").slice(0, 16)
    const folder = join(root, ".cache/bench")
    const path = join(folder, `peak-${hash}`)
    if (!existsSync(path)) {
      mkdirSync(folder, { recursive: true })
      const temporary = `${path}.${process.pid}`
      execFileSync(compiler, ["-O3", "-std=c++17", "-pthread", source, "-o", temporary], { stdio: "inherit" })
      renameSync(temporary, path)
    }
    return path
  }
  throw new Error(`bench needs a C++ compiler to measure the machine (tried ${compilers.join(", ")})`)
}

/** Measures what the machine can do at most, whenever it is asked. */
export class Peaks implements Disposable {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #waiting: ((line: string) => void)[] = []
  /** What the processor has, with the instructions used. */
  kinds: ReadonlyMap<PeakKind, string> = new Map()

  private constructor() {
    this.#child = spawn(program(), [], { stdio: ["pipe", "pipe", "pipe"] })
    createInterface(this.#child.stdout).on("line", (line) => this.#waiting.shift()?.(line))
    this.#child.on("exit", () => {
      for (const answer of this.#waiting.splice(0)) answer("-")
    })
  }

  static async open(): Promise<Peaks> {
    const peaks = new Peaks()
    const list = await peaks.#ask("kinds")
    peaks.kinds = new Map(list.split(";").map((k) => k.split("=") as [PeakKind, string]))
    return peaks
  }

  #ask(request: string): Promise<string> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      this.#child.stdin.write(`${request}\n`)
    })
  }

  /** Operations per second (a multiply-add counts two), or bytes per second for "read". NaN for what the processor does not have. */
  async measure(kind: PeakKind, threads: number, seconds: number): Promise<number> {
    const answer = await this.#ask(`${kind} ${threads} ${seconds}`)
    return answer === "-" ? Number.NaN : Number(answer)
  }

  [Symbol.dispose](): void {
    this.#child.stdin.end("quit\n")
  }
}
