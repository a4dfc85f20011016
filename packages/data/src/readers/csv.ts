import { Readable } from "node:stream"
import { SlothError } from "@sloth/core"
import { parse } from "csv-parse"
import type { DatasetReader, ReadRow } from "../reader.ts"
import { readTextChunks } from "../text-file.ts"

/** The text with `\n` for every `\r\n`, also where a chunk ends between the two: lines are then counted right, in quoted cells too. */
async function* withPlainLineEnds(chunks: AsyncIterable<string>): AsyncGenerator<string, void, undefined> {
  let held = ""
  for await (const chunk of chunks) {
    const text = held + chunk
    held = text.endsWith("\r") ? "\r" : ""
    yield text.slice(0, text.length - held.length).replaceAll("\r\n", "\n")
  }
  if (held !== "") yield held
}

async function* readTable(path: string, delimiter: string): AsyncGenerator<ReadRow, void, undefined> {
  const parser = parse({ columns: true, delimiter, info: true, skip_empty_lines: true, relax_quotes: false })
  const source = Readable.from(withPlainLineEnds(readTextChunks(path)))
  source.on("error", (error) => parser.destroy(error))
  source.pipe(parser)
  try {
    for await (const item of parser as AsyncIterable<{ record: Record<string, string>; info: { lines: number } }>) {
      yield { row: item.record, line: item.info.lines }
    }
  } catch (cause) {
    const parsing = cause as { code?: string; message: string; lines?: number }
    if (cause instanceof SlothError || !parsing.code?.startsWith("CSV_")) throw cause
    throw new SlothError("SLOTH_DATA_CSV", {
      what: `${path}${parsing.lines === undefined ? "" : ` line ${parsing.lines}`} is not a valid table row.`,
      why: `${parsing.message}.`,
      next: "The first line names the columns; quote cells that hold the delimiter, a quote or a line end.",
      fields: { path, line: parsing.lines, reason: parsing.code },
      cause,
    })
  } finally {
    source.destroy()
  }
}

/** Reads comma-separated values with a header line; every cell is a string, its line ends `\n`. */
export const csvReader: DatasetReader = Object.freeze({
  name: "csv",
  extensions: Object.freeze([".csv"]),
  read: (path: string) => readTable(path, ","),
})

/** Reads tab-separated values with a header line; every cell is a string. */
export const tsvReader: DatasetReader = Object.freeze({
  name: "tsv",
  extensions: Object.freeze([".tsv"]),
  read: (path: string) => readTable(path, "\t"),
})
