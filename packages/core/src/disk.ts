import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { statfs } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import { SlothError } from "./errors.ts"
import { fileError, systemCode } from "./file-error.ts"

/** Bytes that the user may still write on the file system of `path`; the path itself need not exist yet. */
export const freeDiskBytes = async (path: string): Promise<number> => {
  let place = resolve(path)
  for (;;) {
    try {
      const figures = await statfs(place)
      return figures.bavail * figures.bsize
    } catch (error) {
      const code = systemCode(error)
      const parent = dirname(place)
      if ((code !== "ENOENT" && code !== "ENOTDIR") || parent === place)
        throw fileError(error, path, "measure free space at")
      place = parent
    }
  }
}

/** Bytes as people write them: 1 KB is 1000 bytes. */
export const formatBytes = (bytes: number): string => {
  const units = ["bytes", "KB", "MB", "GB", "TB"]
  let value = Math.abs(bytes)
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  const sign = bytes < 0 ? "-" : ""
  return `${sign}${unit === 0 ? String(Math.round(value)) : value.toFixed(value < 10 ? 2 : 1)} ${units[unit] ?? ""}`
}

/** Refuses to start what would fill the disk: `what` ("the checkpoints") needs `bytes`. Errors: SLOTH_DISK_SPACE. */
export const requireDisk = async (path: string, bytes: number, what: string): Promise<void> => {
  const free = await freeDiskBytes(path)
  if (bytes <= free) return
  throw new SlothError("SLOTH_DISK_SPACE", {
    what: `There is not enough disk space at ${path} for ${what}.`,
    why: `${formatBytes(bytes)} are needed and ${formatBytes(free)} are free.`,
    next: "Free some space or choose a folder on another disk.",
    fields: { path, neededBytes: bytes, freeBytes: free },
  })
}

/** SHA-256 of a file's content, as hexadecimal text; the file is streamed. Errors: those of `fileError`. */
export const hashFile = async (path: string): Promise<string> => {
  const hash = createHash("sha256")
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Uint8Array)
  } catch (error) {
    throw fileError(error, path, "read")
  }
  return hash.digest("hex")
}
