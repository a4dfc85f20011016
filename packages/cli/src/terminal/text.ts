// eslint-disable-next-line no-control-regex
const escapes = /\u001b\[[0-9;]*m/g

/** Columns that a text takes, colour left out. */
export const visibleLength = (text: string): number => [...text.replace(escapes, "")].length

/** Pads on the right by what is seen. */
export const pad = (text: string, width: number): string => text + " ".repeat(Math.max(0, width - visibleLength(text)))

/** Cuts a plain text to a number of columns. */
export const clip = (text: string, width: number): string => {
  const all = [...text]
  return all.length <= width ? text : `${all.slice(0, Math.max(0, width - 1)).join("")}…`
}

/** Breaks a text into lines of at most `width` columns at spaces; a longer word stays whole. */
export const wrapText = (text: string, width: number): string[] =>
  text.split("\n").flatMap((paragraph) => {
    const lines: string[] = []
    let line = ""
    for (const word of paragraph.split(" ")) {
      if (line !== "" && visibleLength(line) + 1 + visibleLength(word) > width) {
        lines.push(line)
        line = word
      } else line = line === "" ? word : `${line} ${word}`
    }
    lines.push(line)
    return lines
  })

/** Two columns: short names on the left, texts wrapped on the right. */
export const columns = (
  rows: readonly (readonly [name: string, text: string])[],
  width: number,
  indent = 2,
  most = 30,
): string[] => {
  const left = Math.min(most, Math.max(0, ...rows.map(([name]) => visibleLength(name)))) + 2
  const room = Math.max(20, width - indent - left)
  const space = " ".repeat(indent)
  return rows.flatMap(([name, text]) => {
    const lines = wrapText(text, room)
    const first = visibleLength(name) + 2 > left ? [`${space}${name}`] : []
    const rest = first.length === 0 ? [`${space}${pad(name, left)}${lines.shift() ?? ""}`.trimEnd()] : []
    return [...first, ...rest, ...lines.map((line) => `${space}${" ".repeat(left)}${line}`)]
  })
}

/** A table with a header; columns are as wide as their widest cell, numbers to the right. */
export const table = (header: readonly string[], rows: readonly (readonly string[])[], indent = 2): string[] => {
  const widths = header.map((name, i) =>
    Math.max(visibleLength(name), ...rows.map((row) => visibleLength(row[i] ?? ""))),
  )
  const numeric = header.map(
    (_, i) =>
      rows.length > 0 &&
      rows.every((row) => /^[-+]?[\d.,]+( ?[%a-zA-Z/]+)?$|^-?$/.test((row[i] ?? "").replace(escapes, ""))),
  )
  const line = (row: readonly string[]): string =>
    `${" ".repeat(indent)}${row
      .map((cell, i) =>
        numeric[i] === true ? " ".repeat(Math.max(0, widths[i]! - visibleLength(cell))) + cell : pad(cell, widths[i]!),
      )
      .join("  ")}`.trimEnd()
  return [line(header), ...rows.map(line)]
}

/** 12,345 and so on. */
export const count = (n: number): string => Math.round(n).toLocaleString("en-US")

/** 134.5 M, 1.24 B. */
export const large = (n: number): string =>
  n >= 1e9
    ? `${(n / 1e9).toFixed(2)} B`
    : n >= 1e6
      ? `${(n / 1e6).toFixed(2)} M`
      : n >= 1e4
        ? `${(n / 1e3).toFixed(1)} K`
        : count(n)

/** A number with so many decimals; what rounds to zero has no sign. */
export const fixed = (value: number, decimals: number): string => {
  const text = value.toFixed(decimals)
  return Number(text) === 0 ? text.replace("-", "") : text
}
