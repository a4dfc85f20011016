import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { runBin, type BinOptions, type BinResult } from "./run-bin.ts"

/** A user's folder, in which the program is run. */
export interface CliProject {
  readonly path: string
  /** A path below it. */
  at(...parts: string[]): string
  /** Runs the program there with a line of words, or with arguments as they are. */
  run(args: string | readonly string[], options?: Partial<BinOptions>): Promise<BinResult>
  /** Writes a file and the folders above it; objects become lines of JSON. Returns its path. */
  write(path: string, content: string | readonly object[]): string
  read(path: string): string
  /** The objects of a file of lines of JSON. */
  lines(path: string): Record<string, unknown>[]
  /** Deletes it. */
  remove(): void
}

/** The objects of a text of lines of JSON. */
export const jsonLines = (text: string): Record<string, unknown>[] =>
  text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Record<string, unknown>)

/** Makes an empty project in a temporary folder. */
export const cliProject = (name: string): CliProject => {
  const path = mkdtempSync(join(tmpdir(), `sloth-${name}-`))
  const at = (...parts: string[]): string => join(path, ...parts)
  const read = (file: string): string => readFileSync(at(file), "utf8")
  return {
    path,
    at,
    read,
    run: (args, options = {}) => runBin(typeof args === "string" ? args.split(" ") : args, { cwd: path, ...options }),
    write: (file, content) => {
      mkdirSync(dirname(at(file)), { recursive: true })
      writeFileSync(
        at(file),
        typeof content === "string" ? content : content.map((row) => `${JSON.stringify(row)}\n`).join(""),
      )
      return at(file)
    },
    lines: (file) => jsonLines(read(file)),
    remove: () => rmSync(path, { recursive: true, force: true }),
  }
}
