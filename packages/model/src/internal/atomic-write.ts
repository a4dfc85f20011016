import * as fs from "node:fs/promises"
import { dirname } from "node:path"
import { fileError, requireDisk, SlothError, temporarySibling } from "@sloth/core"
import type { TensorData } from "../tensor-table.ts"

const bufferBytes = 1 << 20

/** Sequential output of one file under its temporary name. */
export interface FileSink {
  write(bytes: Uint8Array): Promise<void>
  /** Writes `count` zero bytes. */
  zeros(count: number): Promise<void>
  /** Bytes written so far. */
  readonly position: number
}

/** A file written under a temporary name, complete and on disk, that takes its real name with `commit`. */
export interface PendingFile {
  commit(): Promise<void>
  discard(): Promise<void>
}

const syncFolder = async (folder: string): Promise<void> => {
  // Windows cannot open a directory; there the rename alone has to do.
  const handle = await fs.open(folder, "r").catch(() => undefined)
  if (handle === undefined) return
  try {
    await handle.sync()
  } catch {
    // Some network file systems refuse to sync a directory.
  } finally {
    await handle.close()
  }
}

const makeSink = (handle: fs.FileHandle): FileSink & { flush(): Promise<void> } => {
  const buffer = Buffer.allocUnsafe(bufferBytes)
  let used = 0
  let position = 0
  const writeAll = async (bytes: Uint8Array): Promise<void> => {
    let done = 0
    while (done < bytes.length) {
      const { bytesWritten } = await handle.write(bytes, done, bytes.length - done)
      done += bytesWritten
    }
  }
  const flush = async (): Promise<void> => {
    if (used === 0) return
    const bytes = buffer.subarray(0, used)
    used = 0
    await writeAll(bytes)
  }
  return {
    get position() {
      return position
    },
    async write(bytes) {
      position += bytes.length
      if (bytes.length >= bufferBytes) {
        await flush()
        await writeAll(bytes)
        return
      }
      if (used + bytes.length > bufferBytes) await flush()
      buffer.set(bytes, used)
      used += bytes.length
    },
    async zeros(count) {
      for (let left = count; left > 0;) {
        const n = Math.min(left, 4096)
        await this.write(new Uint8Array(n))
        left -= n
      }
    },
    flush,
  }
}

/**
 * Writes a file under a temporary name in the same folder and syncs it. Nothing with the real name is touched before `commit`.
 * The caller has checked the disk space.
 */
export const writePending = async (path: string, produce: (sink: FileSink) => Promise<void>): Promise<PendingFile> => {
  const folder = dirname(path)
  const temporary = temporarySibling(path)
  let handle: fs.FileHandle
  try {
    handle = await fs.open(temporary, "wx")
  } catch (error) {
    throw fileError(error, path, "write")
  }
  try {
    const sink = makeSink(handle)
    await produce(sink)
    await sink.flush()
    await handle.sync()
    await handle.close()
  } catch (error) {
    await handle.close().catch(() => undefined)
    await fs.rm(temporary, { force: true })
    // What a data source throws without a system code is its own error, not one of this file.
    throw typeof (error as { code?: unknown } | null)?.code === "string" ? fileError(error, path, "write") : error
  }
  return {
    async commit() {
      try {
        await fs.rename(temporary, path)
      } catch (error) {
        await fs.rm(temporary, { force: true })
        throw fileError(error, path, "write")
      }
      await syncFolder(folder)
    },
    async discard() {
      await fs.rm(temporary, { force: true })
    },
  }
}

/** Writes a whole file or nothing: space check, temporary name, sync, rename, sync of the folder. */
export const writeAtomic = async (
  path: string,
  bytes: number,
  produce: (sink: FileSink) => Promise<void>,
): Promise<void> => {
  await requireDisk(dirname(path), bytes, path)
  const pending = await writePending(path, produce)
  await pending.commit()
}

/** Streams a tensor's data into the sink and insists on its exact length. */
export const writeTensorData = async (
  sink: FileSink,
  name: string,
  bytes: number,
  data: TensorData,
  path: string,
): Promise<void> => {
  const start = sink.position
  const value = typeof data === "function" ? await data() : data
  if (value instanceof Uint8Array) await sink.write(value)
  else for await (const chunk of value) await sink.write(chunk)
  const written = sink.position - start
  if (written !== bytes) {
    throw new SlothError("SLOTH_WRITE_LENGTH", {
      what: `Tensor ${name} produced ${written} bytes; its shape and type say ${bytes}.`,
      next: "Nothing was written. The source of this tensor's data is wrong.",
      fields: { path, tensor: name, written, expected: bytes },
    })
  }
}
