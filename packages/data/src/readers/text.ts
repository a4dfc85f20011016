import type { DatasetReader, ReadRow } from "../reader.ts"
import { readTextChunks } from "../text-file.ts"

/**
 * Yields the documents of a text file as `{ text }` rows. A form feed ends a document; without one the file is one document.
 * Windows line ends become `\n`; documents of white space only are left out.
 */
async function* readDocuments(path: string): AsyncGenerator<ReadRow, void, undefined> {
  let held = ""
  let line = 1
  const documentOf = (raw: string): ReadRow | undefined => {
    const start = line
    for (let at = raw.indexOf("\n"); at >= 0; at = raw.indexOf("\n", at + 1)) line += 1
    if (raw.trim() === "") return undefined
    // A document usually starts after the line end that follows the form feed; that line end is no part of the text.
    const text = raw.replaceAll("\r\n", "\n").replace(/^\n/, "")
    return { row: { text }, line: raw.startsWith("\n") || raw.startsWith("\r\n") ? start + 1 : start }
  }
  for await (const chunk of readTextChunks(path)) {
    const parts = (held + chunk).split("\f")
    held = parts.pop() as string
    for (const part of parts) {
      const found = documentOf(part)
      if (found !== undefined) yield found
    }
  }
  const last = documentOf(held)
  if (last !== undefined) yield last
}

/** Reads plain text for continued pretraining: documents split on form feed, else one a file. */
export const textReader: DatasetReader = Object.freeze({
  name: "text",
  extensions: Object.freeze([".txt", ".text"]),
  read: readDocuments,
})

/** Reads Markdown as plain text, mark-up kept. */
export const markdownReader: DatasetReader = Object.freeze({
  name: "markdown",
  extensions: Object.freeze([".md", ".markdown"]),
  read: readDocuments,
})
