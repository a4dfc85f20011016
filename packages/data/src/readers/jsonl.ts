import { SlothError } from "@sloth/core"
import type { DatasetReader, ReadRow } from "../reader.ts"
import { readLineBatches } from "../text-file.ts"

const brokenLine = (path: string, line: number, text: string, cause: unknown): SlothError =>
  new SlothError("SLOTH_DATA_JSON", {
    what: `${path} line ${line} is not valid JSON.`,
    why: `${cause instanceof Error ? cause.message : String(cause)}; the line starts with ${JSON.stringify(text.slice(0, 60))}.`,
    next:
      line === 1 && /^\s*\[?\s*\{?\s*$/.test(text)
        ? "It looks like one JSON document over several lines: name it .json, or write one object a line."
        : "Each line holds one whole JSON object: mend or remove this line.",
    fields: { path, line },
    cause,
  })

/** Reads JSON Lines: one JSON value a line, blank lines allowed. */
export const jsonlReader: DatasetReader = Object.freeze({
  name: "jsonl",
  extensions: Object.freeze([".jsonl", ".ndjson"]),
  async *read(path: string): AsyncGenerator<ReadRow, void, undefined> {
    let line = 0
    for await (const batch of readLineBatches(path)) {
      for (const text of batch) {
        line += 1
        if (text.trim() === "") continue
        let row: unknown
        try {
          row = JSON.parse(text)
        } catch (cause) {
          throw brokenLine(path, line, text, cause)
        }
        yield { row, line }
      }
    }
  },
})
