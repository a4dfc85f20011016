import { describe, expect, test } from "bun:test"
import { FORMAT_KINDS, formatTask } from "./formats.ts"
import { Random } from "./random.ts"

const rowsOf = (text: string): string[] => text.split("\n")

describe("format tasks", () => {
  test("every kind keeps to its form", () => {
    for (const kind of FORMAT_KINDS)
      for (let k = 0; k < 300; k++) {
        const t = formatTask(new Random(20, k), kind)
        expect(t.ask).not.toMatch(/[{}]|undefined/)
        expect(t.answer.length).toBeGreaterThan(0)
        const after = t.ask.slice(t.ask.lastIndexOf(": ") + 2)
        switch (kind) {
          case "upper":
            expect(t.answer).toBe(after.toUpperCase())
            break
          case "lower":
            expect(t.answer).toBe(after.toLowerCase())
            break
          case "sortWords":
            expect(t.answer.split(", ").every((w, j, all) => j === 0 || (all[j - 1] as string) < w)).toBe(true)
            expect(t.answer.split(", ").toSorted()).toEqual(after.split(", ").toSorted())
            break
          case "sortNumbers": {
            const n = t.answer.split(", ").map(Number)
            const up = /from small|small first/.test(t.ask)
            expect(n.every((x, j) => j === 0 || (up ? x > (n[j - 1] as number) : x < (n[j - 1] as number)))).toBe(true)
            break
          }
          case "reverse":
            expect(t.answer.split(", ").toReversed().join(", ")).toBe(after)
            break
          case "bullets":
            expect(rowsOf(t.answer).every((r) => r.startsWith("- ") && t.ask.includes(r.slice(2)))).toBe(true)
            break
          case "numbered":
            expect(rowsOf(t.answer).every((r, j) => r.startsWith(`${j + 1}. `) && t.ask.includes(r.slice(3)))).toBe(
              true,
            )
            break
          case "repeat": {
            const said = (t.ask.match(/"(.*)"/) as RegExpMatchArray)[1] as string
            const n = ["two", "three", "four"].findIndex((w) => t.ask.includes(w))
            expect(t.answer).toBe(
              Array.from({ length: n >= 0 ? n + 2 : Number(t.ask.match(/\d/)) }, () => said).join(" "),
            )
            break
          }
          case "echo":
            expect(t.ask.endsWith(t.answer)).toBe(true)
            break
          case "jsonPerson": {
            const value = JSON.parse(t.answer) as Record<string, unknown>
            expect(t.ask).toContain(String(value["name"]))
            for (const v of Object.values(value))
              expect(t.ask.toLowerCase()).toContain(String(v).toLowerCase().replace(/y$/, ""))
            break
          }
          case "jsonList":
          case "jsonArray": {
            const value = JSON.parse(t.answer) as string[] | Record<string, string[]>
            const items = Array.isArray(value) ? value : (Object.values(value)[0] as string[])
            for (const i of items) expect(t.ask).toContain(i)
            break
          }
          case "fact2json":
          case "animal2json":
            JSON.parse(t.answer)
            break
        }
      }
  })
})
