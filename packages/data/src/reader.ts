import { SlothError } from "@sloth/core"
import { csvReader, tsvReader } from "./readers/csv.ts"
import { jsonReader } from "./readers/json.ts"
import { jsonlReader } from "./readers/jsonl.ts"
import { markdownReader, textReader } from "./readers/text.ts"

/** One row with its line in the file (from 1), where the format has lines. */
export interface ReadRow {
  readonly row: unknown
  readonly line?: number
}

/**
 * Reads the rows of one kind of file. A reader streams: it yields rows while it reads and holds no more than it must.
 * Errors: throws a coded error that names the path and, where it can, the line.
 */
export interface DatasetReader {
  /** Name for the `format` option and for messages. */
  readonly name: string
  /** Lower-case file name endings with their dot, such as `.jsonl`; a further `.gz` is understood for all. */
  readonly extensions: readonly string[]
  read(path: string): AsyncIterable<ReadRow>
}

/** The readers known to a data set; plugins add to it by `createReaderRegistry(readers)`. */
export interface ReaderRegistry {
  readonly readers: readonly DatasetReader[]
  /** Finds a reader by its name. */
  byName(name: string): DatasetReader | undefined
  /** Finds the reader for a path by its ending, `.gz` set aside. */
  forPath(path: string): DatasetReader | undefined
}

/** The readers that come with this package: jsonl, json, text, markdown, csv, tsv. */
export const builtinReaders: readonly DatasetReader[] = Object.freeze([
  jsonlReader,
  jsonReader,
  textReader,
  markdownReader,
  csvReader,
  tsvReader,
])

/**
 * Makes a registry of the built-in readers and the given ones.
 * Errors: `SLOTH_DATA_DUPLICATE_READER` if two readers share a name or an ending.
 */
export const createReaderRegistry = (extra: readonly DatasetReader[] = []): ReaderRegistry => {
  const readers = [...builtinReaders, ...extra]
  const names = new Map<string, DatasetReader>()
  const extensions = new Map<string, DatasetReader>()
  const add = (map: Map<string, DatasetReader>, key: string, reader: DatasetReader, what: string): void => {
    const other = map.get(key)
    if (other !== undefined) {
      throw new SlothError("SLOTH_DATA_DUPLICATE_READER", {
        what: `Two dataset readers claim the ${what} "${key}": "${other.name}" and "${reader.name}".`,
        next: "Remove one of the plugins, or give its reader another name and other endings.",
        fields: { [what]: key, readers: [other.name, reader.name] },
      })
    }
    map.set(key, reader)
  }
  for (const reader of readers) {
    add(names, reader.name, reader, "name")
    for (const extension of reader.extensions) add(extensions, extension.toLowerCase(), reader, "extension")
  }
  return Object.freeze({
    readers: Object.freeze(readers),
    byName: (name: string) => names.get(name),
    forPath: (path: string) => {
      const lower = path.toLowerCase().replace(/\.gz$/, "")
      const dot = lower.lastIndexOf(".")
      return dot < 0 ? undefined : extensions.get(lower.slice(dot))
    },
  })
}
