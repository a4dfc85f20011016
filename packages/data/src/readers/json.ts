import { SlothError } from "@sloth/core"
import type { DatasetReader, ReadRow } from "../reader.ts"
import { readTextFile } from "../text-file.ts"

const listKeys = ["data", "rows", "train"] as const

/** Reads one JSON document: a list of rows, or an object that holds the list under `data`, `rows` or `train`. */
export const jsonReader: DatasetReader = Object.freeze({
  name: "json",
  extensions: Object.freeze([".json"]),
  async *read(path: string): AsyncGenerator<ReadRow, void, undefined> {
    const text = await readTextFile(path)
    // An empty file has no rows; the caller reports it as an empty data set, which says more than a parse error.
    if (text.trim() === "") return
    let document: unknown
    try {
      document = JSON.parse(text)
    } catch (cause) {
      throw new SlothError("SLOTH_DATA_JSON", {
        what: `${path} is not valid JSON.`,
        why: cause instanceof Error ? `${cause.message}.` : String(cause),
        next: "Mend the file; if it holds one object a line, name it .jsonl.",
        fields: { path },
        cause,
      })
    }
    for (const row of listOf(document, path)) yield { row }
  },
})

const listOf = (document: unknown, path: string): readonly unknown[] => {
  if (Array.isArray(document)) return document
  const keys = typeof document === "object" && document !== null ? Object.keys(document) : []
  for (const key of listKeys) {
    const value = keys.includes(key) ? (document as Record<string, unknown>)[key] : undefined
    if (Array.isArray(value)) return value
  }
  throw new SlothError("SLOTH_DATA_JSON_SHAPE", {
    what: `${path} holds no list of rows.`,
    why: `A list is expected, or an object with a list under ${listKeys.map((k) => `"${k}"`).join(", ")}; found ${
      keys.length > 0 ? `an object with ${keys.map((k) => `"${k}"`).join(", ")}` : typeof document
    }.`,
    next: "Put the rows in a list.",
    fields: { path, keys },
  })
}
