import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs"
import { fileError, writeFileAtomic } from "@sloth/core"
import type { SampleRecord } from "./online.ts"

interface Line {
  readonly text: string
  readonly record: SampleRecord
}

/** Complete lines of the file; a last line that a kill has torn is left out. */
const parse = (text: string): Line[] =>
  text
    .slice(0, text.lastIndexOf("\n") + 1)
    .split("\n")
    .flatMap((line) => {
      if (line.trim() === "") return []
      try {
        const record = JSON.parse(line) as SampleRecord
        return typeof record?.step === "number" ? [{ text: line, record }] : []
      } catch {
        // After a power loss a line can be garbage; samples are for reading only.
        return []
      }
    })

const read = (path: string): string | undefined => {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    if ((error as { readonly code?: unknown }).code === "ENOENT") return undefined
    throw fileError(error, path, "read")
  }
}

/** All lines of a `samples.jsonl`, in order; none where there is no file. Errors: those of `fileError`. */
export const readSamples = (path: string): readonly SampleRecord[] =>
  parse(read(path) ?? "").map(({ record }) => record)

/** Appends to the `samples.jsonl` of a run: one JSON object a line. */
export class SampleLog implements Disposable {
  readonly #path: string
  #fd: number | undefined

  private constructor(path: string, fd: number) {
    this.#path = path
    this.#fd = fd
  }

  /** Opens the file; resuming from a checkpoint drops what later steps wrote, because they run again. Errors: those of `fileError`. */
  static async open(path: string, resumedFromStep: number | undefined): Promise<SampleLog> {
    const text = resumedFromStep === undefined ? undefined : read(path)
    if (text !== undefined) {
      const kept = parse(text)
        .filter(({ record }) => record.step <= resumedFromStep!)
        .map((line) => `${line.text}\n`)
        .join("")
      if (kept !== text) await writeFileAtomic(path, kept)
    }
    try {
      const fd = openSync(path, "a")
      if (resumedFromStep === undefined) ftruncateSync(fd, 0)
      return new SampleLog(path, fd)
    } catch (error) {
      throw fileError(error, path, "open")
    }
  }

  /** Writes lines in one piece. Errors: those of `fileError`. */
  append(records: readonly SampleRecord[]): void {
    if (this.#fd === undefined || records.length === 0) return
    const bytes = Buffer.from(records.map((record) => `${JSON.stringify(record)}\n`).join(""), "utf8")
    try {
      for (let at = 0; at < bytes.length;) at += writeSync(this.#fd, bytes, at, bytes.length - at)
    } catch (error) {
      throw fileError(error, this.#path, "append to")
    }
  }

  [Symbol.dispose](): void {
    const fd = this.#fd
    this.#fd = undefined
    if (fd !== undefined) closeSync(fd)
  }
}
