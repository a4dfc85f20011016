import { createHash, type Hash } from "node:crypto"
import { open, rename, rm, stat, type FileHandle } from "node:fs/promises"
import { fileError, SlothError } from "@sloth/core"
import type { HubRef } from "../hub-ref.ts"
import type { HubCache, HubFile } from "./hub-cache.ts"
import { hubError, hubGet, noAnswer, refusal, type HubConnection } from "./hub-http.ts"

/** How a download behaves when the connection breaks. */
export interface RetryOptions {
  /** Further attempts after one that brought no byte. */
  readonly retries: number
  /** Milliseconds before the second attempt; doubled for each further one. */
  readonly retryDelay: number
  /** Milliseconds without a byte after which a connection counts as broken. */
  readonly stall: number
}

const newHash = (file: HubFile): Hash =>
  file.hash.kind === "sha256" ? createHash("sha256") : createHash("sha1").update(`blob ${file.size}\0`)

const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> =>
  new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer)
      reject(signal?.reason as Error)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop)
      resolve()
    }, ms)
    signal?.addEventListener("abort", stop, { once: true })
  })

/** Feeds the hash with what an earlier download left; returns how much that is. */
const hashExisting = async (handle: FileHandle, file: HubFile, hash: Hash): Promise<number> => {
  const { size } = await handle.stat()
  if (size > file.size) {
    await handle.truncate(0)
    return 0
  }
  const buffer = Buffer.allocUnsafe(1 << 20)
  let at = 0
  while (at < size) {
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, at)
    if (bytesRead === 0) break
    hash.update(buffer.subarray(0, bytesRead))
    at += bytesRead
  }
  return at
}

const writeAll = async (handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> => {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.length - done, position + done)
    done += bytesWritten
  }
}

/** Where a partial answer begins, from its Content-Range header. */
const rangeStart = (response: Response): number | undefined => {
  const match = /^bytes (\d+)-/.exec(response.headers.get("Content-Range") ?? "")
  return match === null ? undefined : Number(match[1])
}

/** One connection: appends to the file from `from` on. Returns the length reached; a broken connection only ends it early. */
const receive = async (
  handle: FileHandle,
  from: number,
  file: HubFile,
  url: string,
  ref: HubRef,
  connection: HubConnection,
  stall: number,
  onBytes: (bytes: Uint8Array, at: number) => void,
): Promise<{ reached: number; broke: unknown }> => {
  const abort = new AbortController()
  const stop = (): void => abort.abort(connection.signal?.reason)
  connection.signal?.addEventListener("abort", stop, { once: true })
  let timer: ReturnType<typeof setTimeout> | undefined
  const alive = (): void => {
    clearTimeout(timer)
    timer = setTimeout(() => abort.abort(new Error(`no data for ${stall} ms`)), stall)
  }
  let at = from
  try {
    alive()
    const response = await hubGet(
      url,
      connection,
      from > 0 ? { Range: `bytes=${from}-`, "Accept-Encoding": "identity" } : { "Accept-Encoding": "identity" },
      abort.signal,
    )
    if (response.status === 416) {
      await response.body?.cancel()
      return { reached: 0, broke: new Error("the server refused the range") }
    }
    if (!response.ok) throw await refusal(response, ref, connection, file.path)
    // A server that knows no ranges sends the whole file again.
    if (from > 0) at = response.status === 206 ? (rangeStart(response) ?? -1) : 0
    if (at !== from && at !== 0) {
      await response.body?.cancel()
      return { reached: 0, broke: new Error("the server sent another range than asked for") }
    }
    if (response.body === null) return { reached: at, broke: new Error("empty answer") }
    const reader = response.body.getReader()
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      alive()
      if (at + value.length > file.size) {
        await reader.cancel()
        throw hubError(
          "SLOTH_HUB_HASH_MISMATCH",
          ref,
          `The server sent more than the ${file.size} bytes that ${file.path} has.`,
          "The mirror or proxy in between changes files; use another one.",
          { path: file.path },
        )
      }
      try {
        await writeAll(handle, value, at)
      } catch (error) {
        await reader.cancel()
        throw fileError(error, file.path, "write")
      }
      onBytes(value, at)
      at += value.length
    }
    return { reached: at, broke: undefined }
  } catch (error) {
    if (error instanceof SlothError || connection.signal?.aborted === true) throw error
    return { reached: at, broke: error }
  } finally {
    clearTimeout(timer)
    connection.signal?.removeEventListener("abort", stop)
  }
}

/**
 * Downloads one file into the cache's blobs: goes on where an earlier attempt stopped, tries again when the connection breaks, and takes the file only
 * when its hash is right. `onLength` hears the length reached.
 */
export const downloadBlob = async (
  cache: HubCache,
  file: HubFile,
  url: string,
  ref: HubRef,
  connection: HubConnection,
  options: RetryOptions,
  onLength: (length: number) => void,
): Promise<void> => {
  const blob = cache.blob(file)
  const partial = `${blob}.incomplete`
  let handle: FileHandle
  try {
    handle = await open(partial, (await stat(partial).catch(() => undefined)) === undefined ? "wx+" : "r+")
  } catch (error) {
    throw fileError(error, partial, "write")
  }
  try {
    let hash = newHash(file)
    let at = await hashExisting(handle, file, hash)
    onLength(at)
    let failures = 0
    while (at < file.size) {
      const start = at
      const { reached, broke } = await receive(
        handle,
        at,
        file,
        url,
        ref,
        connection,
        options.stall,
        (bytes, position) => {
          // The server began again from the first byte.
          if (position === 0 && start > 0) hash = newHash(file)
          hash.update(bytes)
          onLength(position + bytes.length)
        },
      )
      if (reached === 0 && start > 0) {
        await handle.truncate(0)
        hash = newHash(file)
      }
      at = reached
      if (at >= file.size) break
      failures = at > start ? 0 : failures + 1
      if (failures > options.retries) {
        throw at === 0 && broke !== undefined
          ? noAnswer(broke, ref, connection)
          : hubError(
              "SLOTH_HUB_INTERRUPTED",
              ref,
              `The download of ${file.path} broke off at ${at} of ${file.size} bytes, ${failures} times without progress.`,
              "Run the same command again; it goes on where it stopped.",
              { path: file.path, reached: at, size: file.size },
              broke,
            )
      }
      await pause(options.retryDelay * 2 ** failures, connection.signal)
    }
    const digest = hash.digest("hex")
    if (digest !== file.hash.value) {
      await handle.truncate(0)
      throw hubError(
        "SLOTH_HUB_HASH_MISMATCH",
        ref,
        `The content of ${file.path} does not have the hash that the hub lists.`,
        "The damaged download was removed. Run the same command again; if it happens again, the mirror or proxy in between changes files.",
        { path: file.path, expected: file.hash.value, found: digest },
      )
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
  try {
    await rename(partial, blob)
  } catch (error) {
    await rm(partial, { force: true })
    throw fileError(error, blob, "write")
  }
}
