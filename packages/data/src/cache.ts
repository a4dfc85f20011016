import { createHash } from "node:crypto"
import { mkdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { writeFileAtomic } from "@sloth/core"
import type { Prepared } from "./prepare.ts"
import type { DataReport, Example } from "./example.ts"
import type { Recognition } from "./recognise.ts"

/** What is stored of a prepared data set. */
export interface CachedDataset extends Prepared {
  readonly recognition: Omit<Recognition, "rows" | "skipped">
}

/** What became of a look into the cache. */
export type CacheLookup =
  | { readonly status: "hit"; readonly dataset: CachedDataset }
  | { readonly status: "miss" }
  | { readonly status: "corrupt"; readonly reason: string }

/** Raise when examples made from the same input would differ, or the file is laid out otherwise. */
export const CACHE_VERSION = 1

const magic = Buffer.from("SLOTHDS1", "latin1")

interface Header {
  readonly key: string
  readonly examples: number
  readonly tokens: number
  readonly report: DataReport
  readonly recognition: CachedDataset["recognition"]
}

/** The file that holds the data set of this key. */
export const cachePath = (cacheDir: string, key: string): string => join(cacheDir, `${key}.examples`)

const bytesOf = (array: Int32Array | Uint8Array): Uint8Array =>
  new Uint8Array(array.buffer, array.byteOffset, array.byteLength)

/**
 * Stores a prepared data set. The file appears whole or not at all.
 * Layout: magic, header length (uint32), header (JSON, padded to 4 bytes), lengths and rows (int32 `[examples]` each),
 * tokens (int32 `[tokens]`), mask (uint8 `[tokens]`), SHA-256 of all that; numbers little-endian. Errors: those of the file system.
 */
export const writeCache = async (cacheDir: string, key: string, dataset: CachedDataset): Promise<void> => {
  const { examples, report, recognition } = dataset
  const header: Header = { key, examples: examples.length, tokens: report.tokens, report, recognition }
  const json = Buffer.from(JSON.stringify(header), "utf8")
  const padded = Buffer.concat([json, Buffer.alloc((4 - (json.length % 4)) % 4, 0x20)])
  const prefix = Buffer.alloc(12)
  magic.copy(prefix)
  prefix.writeUInt32LE(padded.length, 8)
  const parts: Uint8Array[] = [
    prefix,
    padded,
    bytesOf(Int32Array.from(examples, (example) => example.tokens.length)),
    bytesOf(Int32Array.from(examples, (example) => example.row)),
    bytesOf(concatenate(examples, (example) => example.tokens, new Int32Array(report.tokens))),
    bytesOf(concatenate(examples, (example) => example.mask, new Uint8Array(report.tokens))),
  ]
  const hash = createHash("sha256")
  for (const part of parts) hash.update(part)
  parts.push(hash.digest())

  await mkdir(cacheDir, { recursive: true })
  await writeFileAtomic(cachePath(cacheDir, key), parts)
}

const concatenate = <A extends Int32Array | Uint8Array>(
  examples: readonly Example[],
  part: (example: Example) => A,
  into: A,
): A => {
  let at = 0
  for (const example of examples) {
    into.set(part(example), at)
    at += example.tokens.length
  }
  return into
}

/** Looks for the data set of this key and checks every byte of it; never throws for a damaged file. */
export const readCache = async (cacheDir: string, key: string): Promise<CacheLookup> => {
  let file: Buffer
  try {
    file = await readFile(cachePath(cacheDir, key))
  } catch (error) {
    const missing = (error as { code?: string }).code === "ENOENT"
    return missing ? { status: "miss" } : { status: "corrupt", reason: (error as Error).message }
  }
  const corrupt = (reason: string): CacheLookup => ({ status: "corrupt", reason })
  if (file.length < 44) return corrupt("the file is too short")
  const end = file.length - 32
  if (!createHash("sha256").update(file.subarray(0, end)).digest().equals(file.subarray(end))) {
    return corrupt("its checksum is wrong")
  }
  const headerEnd = 12 + file.readUInt32LE(8)
  if (!file.subarray(0, 8).equals(magic) || headerEnd > end) return corrupt("it is laid out otherwise")
  let header: Header
  try {
    header = JSON.parse(file.toString("utf8", 12, headerEnd)) as Header
  } catch {
    return corrupt("its header is damaged")
  }
  if (header.key !== key || headerEnd + 8 * header.examples + 5 * header.tokens !== end) {
    return corrupt("it belongs to other data")
  }
  // A copy starts at a multiple of four bytes, which a slice of a pooled buffer need not.
  const body = new Uint8Array(file.subarray(headerEnd, end)).buffer
  const lengths = new Int32Array(body, 0, header.examples)
  const rows = new Int32Array(body, 4 * header.examples, header.examples)
  const tokens = new Int32Array(body, 8 * header.examples, header.tokens)
  const mask = new Uint8Array(body, 8 * header.examples + 4 * header.tokens, header.tokens)
  const examples: Example[] = []
  let at = 0
  for (let i = 0; i < header.examples; i++) {
    const next = at + (lengths[i] as number)
    examples.push({ tokens: tokens.subarray(at, next), mask: mask.subarray(at, next), row: rows[i] as number })
    at = next
  }
  if (at !== header.tokens) return corrupt("its lengths do not add up")
  return { status: "hit", dataset: { examples, report: header.report, recognition: header.recognition } }
}
