import type { PreviewPiece } from "@sloth/data"
import type { Terminal } from "./terminal.ts"

/** Most characters of an example that are shown. */
const LIMIT = 900

/**
 * An example as text with its scored part highlighted: by colour on a terminal, else between [[ and ]].
 */
export const previewText = (pieces: readonly PreviewPiece[], terminal: Pick<Terminal, "color" | "style">): string => {
  let room = LIMIT
  let out = ""
  for (const { text, scored } of pieces) {
    if (room <= 0) break
    const part = text.length > room ? `${text.slice(0, room)}…` : text
    room -= part.length
    // Marks are set line by line, so that a line's end is not coloured to the edge of the screen.
    out += !scored
      ? part
      : terminal.color
        ? part
            .split("\n")
            .map((line) => terminal.style.mark(line))
            .join("\n")
        : `[[${part}]]`
  }
  return out
    .replace(/\n+$/, "")
    .split("\n")
    .map((line) => `  │ ${line}`)
    .join("\n")
}
