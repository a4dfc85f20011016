import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { pipeline } from "node:stream/promises"
import { CACHE_VERSION, readCache, writeCache } from "./cache.ts"
import type { CachedDataset } from "./cache.ts"
import type { DataReport, Example } from "./example.ts"
import { splitHeldOut } from "./order.ts"
import { prepareExamples } from "./prepare.ts"
import type { PrepareOptions } from "./prepare.ts"
import { previewExample } from "./preview.ts"
import type { PreviewPiece } from "./preview.ts"
import { chooseReaders, emptyDataset, readRows } from "./read-rows.ts"
import type { ReadOptions } from "./read-rows.ts"
import { recognise } from "./recognise.ts"
import type { ColumnMapping, RowKind } from "./recognise.ts"
import type { SourceRow } from "./rows.ts"
import { fileError } from "./text-file.ts"

/** Options of {@link openDataset}. */
export interface DatasetOptions extends PrepareOptions, ReadOptions {
  /** Which column plays which part, where the names are not the usual ones. */
  readonly columns?: ColumnMapping
  /** Folder for prepared data sets; without it nothing is kept. */
  readonly cacheDir?: string
  /** Rows held out for evaluation: a share below 1, or a number of rows; none by default. */
  readonly heldOut?: number
  /** Seed of the choice of held-out rows; 0 by default. */
  readonly seed?: number
}

/** A data set that is ready to train on. */
export interface Dataset {
  /** Examples to train on, in the order of their rows. */
  readonly examples: readonly Example[]
  /** Examples of the held-out rows; the pieces of a split row are never in both. */
  readonly heldOut: readonly Example[]
  readonly kind: RowKind
  /** Printable sentence on what the rows were recognised as. */
  readonly statement: string
  /** Counts over all rows, held-out ones included; `formatReport` prints them. */
  readonly report: DataReport
  /** The first example in stretches of scored and unscored text. */
  readonly preview: readonly PreviewPiece[]
  /** SHA-256 (hex) of the data: the bytes of the files in order, or the rows. */
  readonly contentHash: string
  /** SHA-256 (hex) of all that decides the examples: data, tokenizer, template, options, version of the preparation. */
  readonly examplesHash: string
  /** The date the chat template printed, if it prints one; pass it as `date` to get the same examples on another day. */
  readonly date: string | undefined
  /** `off`: no cache folder; `rebuilt`: the cached file was damaged; `unwritable`: prepared, but the folder could not be written. */
  readonly cache: "off" | "hit" | "miss" | "rebuilt" | "unwritable"
}

/**
 * Opens a data set: reads the files (or takes the rows), recognises their kind, and prepares examples, from the cache if it holds them.
 * Errors: those of `readRows`, `recognise`, `prepareExamples` and `splitHeldOut`, all before anything is trained.
 */
export const openDataset = async (
  source: string | readonly string[] | readonly object[],
  options: DatasetOptions,
): Promise<Dataset> => {
  const paths = pathsOf(source)
  const template = options.template ?? options.tokenizer.chatTemplate
  const printsDate = template?.includes("strftime_now") ?? false
  const date = printsDate ? (options.date ?? new Date().toISOString().slice(0, 10)) : undefined

  const formats = paths === undefined ? ["rows"] : chooseReaders(paths, options).map(({ reader }) => reader.name)
  const hashes = paths === undefined ? [hashRows(source as readonly object[])] : await Promise.all(paths.map(hashFile))
  const contentHash = sha256(JSON.stringify(hashes))
  const examplesHash = sha256(
    JSON.stringify({
      version: CACHE_VERSION,
      hashes,
      formats,
      tokenizer: options.tokenizer.fingerprint,
      template: template ?? null,
      date: date ?? null,
      variables: options.variables ?? null,
      mask: options.mask ?? "assistant",
      maxLength: options.maxLength ?? null,
      overlong: options.overlong ?? "truncate",
      columns: options.columns ?? null,
      // With faulty rows left out the report names files, which the content alone does not know.
      skip: options.onBadRow === "skip" ? (paths ?? true) : false,
    }),
  )

  const build = async (): Promise<CachedDataset> => {
    const rows: readonly SourceRow[] =
      paths === undefined ? (source as readonly object[]).map((row) => ({ row })) : await readRows(paths, options)
    if (rows.length === 0) throw emptyDataset([])
    const { rows: dataRows, skipped, ...recognition } = recognise(rows, options)
    const { examples, report } = await prepareExamples(dataRows, { ...options, date: date ?? options.date })
    return {
      examples,
      recognition,
      report: {
        ...report,
        rows: rows.length,
        skipped: skipped.length + report.skipped,
        reasons: [...skipped, ...report.reasons].slice(0, 5),
      },
    }
  }

  const [dataset, cache] = await cached(cacheFolder(options), examplesHash, build)
  const parts = hold(dataset.examples, options.heldOut ?? 0, options.seed ?? 0)
  return {
    ...parts,
    kind: dataset.recognition.kind,
    statement: dataset.recognition.statement,
    report: dataset.report,
    preview: previewExample(dataset.examples[0] as Example, options.tokenizer),
    contentHash,
    examplesHash,
    date,
    cache,
  }
}

const pathsOf = (source: string | readonly string[] | readonly object[]): readonly string[] | undefined => {
  if (typeof source === "string") return [source]
  if (source.length === 0) throw emptyDataset([])
  return source.every((item) => typeof item === "string") ? (source as readonly string[]) : undefined
}

/** A variable that is a function has no content to make a key of. */
const cacheFolder = (options: DatasetOptions): string | undefined =>
  Object.values(options.variables ?? {}).some((value) => typeof value === "function") ? undefined : options.cacheDir

const cached = async (
  folder: string | undefined,
  key: string,
  build: () => Promise<CachedDataset>,
): Promise<readonly [CachedDataset, Dataset["cache"]]> => {
  if (folder === undefined) return [await build(), "off"]
  const lookup = await readCache(folder, key)
  if (lookup.status === "hit") return [lookup.dataset, "hit"]
  const dataset = await build()
  try {
    await writeCache(folder, key, dataset)
  } catch {
    // Only time is lost: the data set itself is there, and the status says that it was not kept.
    return [dataset, "unwritable"]
  }
  return [dataset, lookup.status === "corrupt" ? "rebuilt" : "miss"]
}

const hold = (
  examples: readonly Example[],
  size: number,
  seed: number,
): { examples: readonly Example[]; heldOut: readonly Example[] } => {
  const rows = [...new Set(examples.map((example) => example.row))]
  const heldOut = new Set(Array.from(splitHeldOut(rows.length, size, seed).heldOut, (i) => rows[i] as number))
  return {
    examples: examples.filter((example) => !heldOut.has(example.row)),
    heldOut: examples.filter((example) => heldOut.has(example.row)),
  }
}

const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex")

const hashFile = async (path: string): Promise<string> => {
  const hash = createHash("sha256")
  try {
    await pipeline(createReadStream(path, { highWaterMark: 1 << 20 }), hash)
  } catch (error) {
    throw fileError(path, error)
  }
  return hash.digest("hex")
}

const hashRows = (rows: readonly object[]): string => {
  const hash = createHash("sha256")
  for (const row of rows) hash.update(`${JSON.stringify(row)}\n`)
  return hash.digest("hex")
}
