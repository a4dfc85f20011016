import { createReadStream, readdirSync } from "node:fs"
import { basename, dirname } from "node:path"
import { createGunzip } from "node:zlib"
import { SlothError, suggest } from "@sloth/core"

const code = (error: unknown): string | undefined =>
  typeof error === "object" && error !== null ? (error as { code?: string }).code : undefined

/** A file beside a missing one that was probably meant. */
const neighbour = (path: string): string | undefined => {
  try {
    return suggest(
      basename(path),
      readdirSync(dirname(path)).map((name) => ({ name })),
    )
  } catch {
    return undefined
  }
}

/** Turns an error of the file system into a coded one that names the path; other errors pass through. */
export const fileError = (path: string, error: unknown): unknown => {
  const errno = code(error)
  if (errno === undefined || error instanceof SlothError) return error
  if (errno === "ENOENT" || errno === "ENOTDIR") {
    const near = neighbour(path)
    return new SlothError("SLOTH_DATA_NOT_FOUND", {
      what: `The data file ${path} does not exist.`,
      next:
        near === undefined
          ? "Check the path; it is taken from the folder the command runs in."
          : `Did you mean "${near}"?`,
      fields: { path, ...(near === undefined ? {} : { suggestion: near }) },
      cause: error,
    })
  }
  if (errno === "EISDIR") {
    return new SlothError("SLOTH_DATA_IS_DIRECTORY", {
      what: `${path} is a folder, and a data file is needed.`,
      next: "Name the files in it that should be read.",
      fields: { path },
      cause: error,
    })
  }
  if (errno.startsWith("Z_")) {
    return new SlothError("SLOTH_DATA_GZIP", {
      what: `${path} could not be decompressed.`,
      why: "It is not gzip data, or it was cut off.",
      next: "Copy the file again, or name it without .gz if it is not compressed.",
      fields: { path, errno },
      cause: error,
    })
  }
  return new SlothError("SLOTH_DATA_UNREADABLE", {
    what: `The data file ${path} could not be read (${errno}).`,
    next: "Check who may read it and whether the disk is sound.",
    fields: { path, errno },
    cause: error,
  })
}

const encodingError = (path: string, why: string): SlothError =>
  new SlothError("SLOTH_DATA_ENCODING", {
    what: `${path} is not UTF-8 text.`,
    why,
    next: "Save it as UTF-8 and try again.",
    fields: { path },
  })

/**
 * Streams a file as text: UTF-8, decompressed where the name ends in `.gz`, without a byte order mark.
 * Errors: `SLOTH_DATA_NOT_FOUND`, `SLOTH_DATA_IS_DIRECTORY`, `SLOTH_DATA_UNREADABLE`, `SLOTH_DATA_GZIP`, `SLOTH_DATA_ENCODING`.
 */
export async function* readTextChunks(path: string): AsyncGenerator<string, void, undefined> {
  const file = createReadStream(path, { highWaterMark: 1 << 20 })
  const decoder = new TextDecoder("utf-8", { fatal: true })
  const gunzip = path.toLowerCase().endsWith(".gz") ? createGunzip() : undefined
  if (gunzip !== undefined) {
    file.on("error", (error) => gunzip.destroy(error))
    file.pipe(gunzip)
  }
  const source = gunzip ?? file
  let first = true
  try {
    for await (const chunk of source as AsyncIterable<Uint8Array>) {
      if (first) {
        if ((chunk[0] === 0xff && chunk[1] === 0xfe) || (chunk[0] === 0xfe && chunk[1] === 0xff)) {
          throw encodingError(path, "It starts with a UTF-16 byte order mark.")
        }
        first = false
      }
      const text = decode(decoder, path, chunk)
      if (text !== "") yield text
    }
    const rest = decode(decoder, path, undefined)
    if (rest !== "") yield rest
  } catch (error) {
    throw fileError(path, error)
  } finally {
    file.destroy()
  }
}

const decode = (decoder: TextDecoder, path: string, chunk: Uint8Array | undefined): string => {
  try {
    return chunk === undefined ? decoder.decode() : decoder.decode(chunk, { stream: true })
  } catch {
    throw encodingError(path, "It holds bytes that are no UTF-8 character.")
  }
}

/** Reads a whole text file, as {@link readTextChunks} does piece by piece. */
export const readTextFile = async (path: string): Promise<string> => {
  const parts: string[] = []
  for await (const chunk of readTextChunks(path)) parts.push(chunk)
  return parts.join("")
}

/** Streams the lines of a text file without their line ends (`\n` or `\r\n`), a batch at a time so that long files read fast. */
export async function* readLineBatches(path: string): AsyncGenerator<readonly string[], void, undefined> {
  let held = ""
  for await (const chunk of readTextChunks(path)) {
    const lines = (held + chunk).split("\n")
    held = lines.pop() as string
    if (lines.length > 0) yield lines.map(withoutCr)
  }
  if (held !== "") yield [withoutCr(held)]
}

const withoutCr = (line: string): string => (line.endsWith("\r") ? line.slice(0, -1) : line)
