import * as fs from "node:fs"
import { fileError, SlothError } from "@sloth/core"

/** Bytes that can be read by position; `size` is what is really there, never what a header says. */
export interface ByteSource extends Disposable {
  readonly path: string
  readonly size: number
  /** Fills `target` from absolute byte `position`; the range must lie inside the source. */
  read(target: Uint8Array, position: number): void
}

/** Opens a regular file for reading by position. */
export const openByteSource = (path: string): ByteSource => {
  let fd: number
  let size: number
  try {
    fd = fs.openSync(path, "r")
  } catch (error) {
    throw fileError(error, path, "open")
  }
  try {
    const stat = fs.fstatSync(fd)
    if (stat.isDirectory()) throw fileError({ code: "EISDIR" }, path, "read")
    if (!stat.isFile()) {
      throw new SlothError("SLOTH_FILE_NOT_REGULAR", {
        what: `${path} is not a regular file.`,
        next: "Name a file on disk; pipes and devices cannot be read by position.",
        fields: { path },
      })
    }
    size = stat.size
  } catch (error) {
    fs.closeSync(fd)
    throw error
  }
  return {
    path,
    size,
    read(target, position) {
      let done = 0
      while (done < target.length) {
        const n = fs.readSync(fd, target, done, target.length - done, position + done)
        if (n === 0) {
          throw new SlothError("SLOTH_FILE_CHANGED", {
            what: `${path} became shorter while it was read.`,
            next: "Wait until nothing writes to it and try again.",
            fields: { path },
          })
        }
        done += n
      }
    },
    [Symbol.dispose]() {
      fs.closeSync(fd)
    },
  }
}

/** The same view of bytes in memory; used by tests that damage a file in every position. */
export const memoryByteSource = (bytes: Uint8Array, path = "memory"): ByteSource => ({
  path,
  size: bytes.length,
  read(target, position) {
    target.set(bytes.subarray(position, position + target.length))
  },
  [Symbol.dispose]() {},
})
