import { describe, expect, test } from "bun:test"
import { previewText } from "./preview.ts"
import { sparkline } from "./sparkline.ts"
import { styleOf, wantsColor } from "./terminal.ts"
import { clip, columns, fixed, large, table, visibleLength, wrapText } from "./text.ts"

describe("text", () => {
  test("shows what rounds to zero without a sign", () => {
    expect([fixed(-1e-9, 4), fixed(-0.00004, 4), fixed(-0.00006, 4), fixed(1.25, 1)]).toEqual([
      "0.0000",
      "0.0000",
      "-0.0001",
      "1.3",
    ])
  })

  test("wraps at spaces, keeps long words and paragraphs", () => {
    expect(wrapText("one two three", 7)).toEqual(["one two", "three"])
    expect(wrapText("a\nunbreakable b", 4)).toEqual(["a", "unbreakable", "b"])
  })

  test("columns align by what is seen, and a long name takes a line of its own", () => {
    const { cyan } = styleOf(true)
    const lines = columns(
      [
        [cyan("a"), "x y"],
        ["bbb", "z"],
      ],
      40,
    )
    expect(visibleLength(lines[0]!)).toBe("  a    x y".length)
    expect(
      columns(
        [
          ["n".repeat(40), "text"],
          ["b", "c"],
        ],
        60,
      ),
    ).toHaveLength(3)
  })

  test("clips by characters and counts none of the colour", () => {
    expect(clip("ööö", 2)).toBe("ö…")
    expect(visibleLength(styleOf(true).bold("ab"))).toBe(2)
  })

  test("a table puts numbers to the right", () => {
    expect(
      table(
        ["n", "size"],
        [
          ["a", "5"],
          ["b", "1,200"],
        ],
      ),
    ).toEqual(["  n   size", "  a      5", "  b  1,200"])
  })

  test("large numbers are short", () => {
    expect([999, 12_345, 2_758_000, 1.24e9].map(large)).toEqual(["999", "12.3 K", "2.76 M", "1.24 B"])
  })
})

test("a sparkline goes from the lowest to the highest and never beyond its width", () => {
  expect(sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8)).toBe("▁▂▃▄▅▆▇█")
  expect([
    ...sparkline(
      Array.from({ length: 100 }, (_, i) => i),
      10,
    ),
  ]).toHaveLength(10)
  expect(sparkline([], 10)).toBe("")
  expect(sparkline([Number.NaN, 2, 2], 10)).toBe("▄▄")
})

test("colour: NO_COLOR wins, FORCE_COLOR next, then the terminal", () => {
  expect(wantsColor(true, { NO_COLOR: "1", FORCE_COLOR: "1" })).toBe(false)
  expect(wantsColor(true, { NO_COLOR: "" })).toBe(true)
  expect(wantsColor(false, { FORCE_COLOR: "1" })).toBe(true)
  expect(wantsColor(true, { FORCE_COLOR: "0" })).toBe(false)
  expect(wantsColor(true, { TERM: "dumb" })).toBe(false)
})

test("a preview marks scored text by colour, line by line, or by brackets", () => {
  const pieces = [
    { text: "user\n", scored: false },
    { text: "a\nb", scored: true },
  ]
  expect(previewText(pieces, { color: false, style: styleOf(false) })).toBe("  │ user\n  │ [[a\n  │ b]]")
  const marked = previewText(pieces, { color: true, style: styleOf(true) }).split("\n")
  for (const line of marked.slice(1)) expect(line).toContain("\u001b[30;42m")
})
