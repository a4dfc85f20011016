import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs"
import { basename, dirname, join, resolve } from "node:path"
import { fileError, isSlothError, recoverDirectory, replaceDirectoryAtomic, SlothError } from "@sloth/core"

/** Bytes of all files below a folder, or of a file. */
export const bytesOnDisk = (path: string): number => {
  const s = statSync(path)
  return s.isDirectory() ? readdirSync(path).reduce((n, name) => n + bytesOnDisk(join(path, name)), 0) : s.size
}

/** Errors of the file system, told as `fileError` does; others as they are. */
const told = async <R>(path: string, body: () => Promise<R>): Promise<R> => {
  try {
    return await body()
  } catch (error) {
    const ofSystem = !isSlothError(error) && typeof (error as NodeJS.ErrnoException).code === "string"
    throw ofSystem ? fileError(error, path, "write") : error
  }
}

/**
 * Fills a folder beside its final place, lets `check` read it back, and only then puts it there; an earlier export of the same kind is replaced, anything else is not touched.
 * Errors: SLOTH_EXPORT_TARGET when something else stands there, SLOTH_FILE_*, SLOTH_DISK_*.
 */
export const writeFolder = async <R>(
  to: string,
  marker: string,
  fill: (folder: string) => Promise<void>,
  check: (folder: string) => Promise<R>,
): Promise<R> =>
  told(to, async () => {
    const target = resolve(to)
    await recoverDirectory(target)
    if (
      existsSync(target) &&
      !(statSync(target).isDirectory() && (readdirSync(target).length === 0 || existsSync(join(target, marker))))
    )
      throw new SlothError("SLOTH_EXPORT_TARGET", {
        what: `${to} exists and is not an earlier export of this kind.`,
        next: "Choose another place, or remove it first.",
        fields: { path: to },
      })
    const temporary = join(dirname(target), `.${basename(target)}.partial-${process.pid}`)
    rmSync(temporary, { recursive: true, force: true })
    mkdirSync(temporary, { recursive: true })
    try {
      await fill(temporary)
      const result = await check(temporary)
      await replaceDirectoryAtomic(temporary, target)
      return result
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  })

/** The first bytes of a file, as text. */
const beginning = (path: string, length: number): string => {
  const bytes = Buffer.alloc(length)
  const fd = openSync(path, "r")
  try {
    return bytes.toString("latin1", 0, readSync(fd, bytes, 0, length, 0))
  } finally {
    closeSync(fd)
  }
}

/** The same for a single file, whose kind is told by its first bytes. */
export const writeFile = async <R>(
  to: string,
  { extension, magic }: { readonly extension: string; readonly magic: string },
  fill: (path: string) => Promise<void>,
  check: (path: string) => Promise<R>,
): Promise<R> =>
  told(to, async () => {
    const target = resolve(to)
    if (existsSync(target) && statSync(target).isDirectory())
      throw new SlothError("SLOTH_EXPORT_TARGET", {
        what: `${to} is a folder, but a file is to be written.`,
        next: `Give a path that ends in ${extension}.`,
        fields: { path: to },
      })
    if (existsSync(target) && statSync(target).size > 0 && beginning(target, magic.length) !== magic)
      throw new SlothError("SLOTH_EXPORT_TARGET", {
        what: `${to} exists and is not an earlier export of this kind.`,
        why: `It is not a ${extension.slice(1)} file.`,
        next: "Choose another place, or remove it first.",
        fields: { path: to },
      })
    mkdirSync(dirname(target), { recursive: true })
    const temporary = join(dirname(target), `.${basename(target, extension)}.partial-${process.pid}${extension}`)
    try {
      await fill(temporary)
      const result = await check(temporary)
      renameSync(temporary, target)
      return result
    } finally {
      rmSync(temporary, { force: true })
    }
  })

/** Writes a JSON file with two spaces. */
export const writeJson = (path: string, value: unknown): void =>
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`)
