import { randomBytes } from "node:crypto"
import { closeSync, fsyncSync, openSync } from "node:fs"
import { open, readdir, rename, rm, stat } from "node:fs/promises"
import { basename, dirname, join, resolve } from "node:path"
import { fileError, systemCode } from "./file-error.ts"

const replacedName = (final: string): string => join(dirname(final), `.${basename(final)}.replaced`)

/** A new name beside `final` for work in progress; it starts with a dot and ends in `.tmp`, so readers skip it. */
export const temporarySibling = (final: string): string => {
  const full = resolve(final)
  return join(dirname(full), `.${basename(full)}.${process.pid}-${randomBytes(4).toString("hex")}.tmp`)
}

/** Makes the names in a folder durable. Windows cannot open a folder for this, and needs no such call. */
const syncDirectory = (path: string): void => {
  let fd: number
  try {
    fd = openSync(path, "r")
  } catch (error) {
    if (process.platform === "win32") return
    throw error
  }
  try {
    fsyncSync(fd)
  } catch (error) {
    // some network file systems refuse to sync a folder; the rename itself has happened
    const code = systemCode(error)
    if (code !== "EINVAL" && code !== "EPERM" && code !== "ENOTSUP") throw error
  } finally {
    closeSync(fd)
  }
}

const syncTree = async (path: string): Promise<void> => {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    const inner = join(path, entry.name)
    if (entry.isDirectory()) await syncTree(inner)
    else if (entry.isFile()) {
      // Windows syncs only files that are open for writing
      const file = await open(inner, process.platform === "win32" ? "r+" : "r")
      try {
        await file.sync()
      } finally {
        await file.close()
      }
    }
  }
  syncDirectory(path)
}

/**
 * Writes a file so that it appears whole or not at all, also across a crash: temporary sibling, fsync, rename, fsync of the folder.
 * A file that was there before stays until the new one is complete. Errors: those of `fileError`.
 */
export const writeFileAtomic = async (
  path: string,
  data: string | Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> => {
  const temporary = temporarySibling(path)
  try {
    const file = await open(temporary, "wx")
    try {
      if (typeof data === "string" || data instanceof Uint8Array) await file.writeFile(data)
      else for await (const chunk of data) await file.writeFile(chunk)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
    syncDirectory(dirname(resolve(path)))
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined)
    throw fileError(error, path, "write")
  }
}

const exists = async (path: string): Promise<boolean> => {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (systemCode(error) === "ENOENT") return false
    throw error
  }
}

/**
 * Undoes a replacement that a crash cut in half: when `final` is missing and its set-aside predecessor is there, the predecessor is put back.
 * Call it before reading a folder that `replaceDirectoryAtomic` writes. Returns true when something was put back.
 */
export const recoverDirectory = async (final: string): Promise<boolean> => {
  const previous = replacedName(resolve(final))
  try {
    if (!(await exists(previous))) return false
    if (await exists(final)) {
      // the new folder was in place; only the clean-up was missed
      await rm(previous, { recursive: true, force: true })
      return false
    }
    await rename(previous, final)
    syncDirectory(dirname(resolve(final)))
    return true
  } catch (error) {
    throw fileError(error, final, "recover")
  }
}

/**
 * Puts a finished folder in place: every file is synced, then `temporary` (a sibling, see `temporarySibling`) is renamed to `final`.
 * A folder that is there already is set aside first and removed last, so that at every instant either the old or the new one can be had
 * (`recoverDirectory` finishes what a crash left). Errors: those of `fileError`; the old folder is back in place then.
 */
export const replaceDirectoryAtomic = async (temporary: string, final: string): Promise<void> => {
  const previous = replacedName(resolve(final))
  let aside = false
  try {
    await syncTree(temporary)
    await recoverDirectory(final)
    if (await exists(final)) {
      await rename(final, previous)
      aside = true
    }
    await rename(temporary, final)
    aside = false
    syncDirectory(dirname(resolve(final)))
    await rm(previous, { recursive: true, force: true })
  } catch (error) {
    if (aside) await rename(previous, final).catch(() => undefined)
    throw fileError(error, final, "replace")
  }
}

/** Removes work in progress that a killed process left in a folder: its entries named by `temporarySibling`. Returns their names. */
export const removeTemporaries = async (directory: string): Promise<readonly string[]> => {
  try {
    const names = (await readdir(directory)).filter((name) => /^\..+\.\d+-[0-9a-f]{8}\.tmp$/.test(name))
    for (const name of names) await rm(join(directory, name), { recursive: true, force: true })
    return names
  } catch (error) {
    if (systemCode(error) === "ENOENT") return []
    throw fileError(error, directory, "clean")
  }
}
