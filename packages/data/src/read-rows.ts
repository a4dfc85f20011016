import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { SlothError } from "@sloth/core"
import { createReaderRegistry } from "./reader.ts"
import type { DatasetReader, ReaderRegistry } from "./reader.ts"
import type { SourceRow } from "./rows.ts"
import { fileError } from "./text-file.ts"

/** Options of {@link readRows}. */
export interface ReadOptions {
  /** Readers to choose from; the built-in ones by default. */
  readonly registry?: ReaderRegistry
  /** Name of the reader for all files, whatever their endings. */
  readonly format?: string
}

const known = (registry: ReaderRegistry): string => registry.readers.flatMap((r) => r.extensions).join(", ")

/**
 * Finds the reader for each path and checks that each is a file, before anything is read.
 * Errors: `SLOTH_DATA_NO_FILES`, `SLOTH_DATA_NOT_FOUND`, `SLOTH_DATA_IS_DIRECTORY`, `SLOTH_DATA_UNREADABLE`, `SLOTH_DATA_UNKNOWN_FORMAT`.
 */
export const chooseReaders = (
  paths: readonly string[],
  options: ReadOptions = {},
): readonly { readonly path: string; readonly reader: DatasetReader }[] => {
  const registry = options.registry ?? createReaderRegistry()
  if (paths.length === 0) {
    throw new SlothError("SLOTH_DATA_NO_FILES", {
      what: "No data file was named.",
      next: "Name at least one, such as data.jsonl.",
    })
  }
  return paths.map((path) => {
    checkFile(path, registry)
    const reader = options.format === undefined ? registry.forPath(path) : registry.byName(options.format)
    if (reader !== undefined) return { path, reader }
    throw options.format === undefined
      ? new SlothError("SLOTH_DATA_UNKNOWN_FORMAT", {
          what: `The ending of ${path} says nothing about its format.`,
          why: `Known endings: ${known(registry)}, each also with .gz.`,
          next: "Rename the file, or name the format by the format option.",
          fields: { path },
        })
      : new SlothError("SLOTH_DATA_UNKNOWN_FORMAT", {
          what: `There is no reader named "${options.format}".`,
          why: `Known readers: ${registry.readers.map((r) => r.name).join(", ")}.`,
          next: "Use one of these names, or add the plugin that brings the reader.",
          fields: { format: options.format },
        })
  })
}

const checkFile = (path: string, registry: ReaderRegistry): void => {
  let isDirectory: boolean
  try {
    isDirectory = statSync(path).isDirectory()
  } catch (error) {
    throw fileError(path, error)
  }
  if (!isDirectory) return
  let found: string[] = []
  try {
    found = readdirSync(path).filter((name) => registry.forPath(name) !== undefined)
  } catch {
    // The list only helps the message; the folder itself is already the error.
  }
  const shown = found.slice(0, 5).map((name) => join(path, name))
  throw new SlothError("SLOTH_DATA_IS_DIRECTORY", {
    what: `${path} is a folder, and a data file is needed.`,
    next:
      shown.length === 0
        ? "Name a file."
        : `Name the files in it that should be read, such as ${shown.join(", ")}${found.length > shown.length ? ", ..." : ""}.`,
    fields: { path, files: found.slice(0, 100) },
  })
}

/**
 * Reads all rows of the files, in order.
 * Errors: those of {@link chooseReaders} and of the readers, and `SLOTH_DATA_EMPTY` if there is not one row.
 */
export const readRows = async (paths: string | readonly string[], options: ReadOptions = {}): Promise<SourceRow[]> => {
  const list = typeof paths === "string" ? [paths] : paths
  const rows: SourceRow[] = []
  for (const { path, reader } of chooseReaders(list, options)) {
    for await (const { row, line } of reader.read(path)) rows.push({ row, line, file: path })
  }
  if (rows.length === 0) throw emptyDataset(list)
  return rows
}

/** The error for a data set without rows. */
export const emptyDataset = (paths: readonly string[]): SlothError =>
  new SlothError("SLOTH_DATA_EMPTY", {
    what: paths.length === 0 ? "The data set has no rows." : `There is no row in ${paths.join(", ")}.`,
    next: "Check that the file was written completely.",
    fields: { paths },
  })
