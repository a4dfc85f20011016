import { describe, expect, test } from "bun:test"
import { documentKey, generateCorpus } from "./corpus.ts"
import { PLOTS } from "./plots.ts"
import { LEAF_FACTS, SLOTH_OPENING } from "./quickstart.ts"
import { Random } from "./random.ts"
import { tellStory } from "./story.ts"
import { fillTemplate, templateVariants } from "./template.ts"

const corpus = [...generateCorpus({ seed: 3, rows: 8000 })]

describe("the corpus", () => {
  test("is the same for the same seed, and another for another", () => {
    const again = [...generateCorpus({ seed: 3, rows: 500 })]
    expect(again).toEqual(corpus.slice(0, 500))
    const other = [...generateCorpus({ seed: 4, rows: 500 })].map(documentKey)
    const here = new Set(again.map(documentKey))
    expect(other.filter((k) => here.has(k)).length).toBeLessThan(50)
  })

  test("hardly repeats itself", () => {
    expect(new Set(corpus.map(documentKey)).size / corpus.length).toBeGreaterThan(0.97)
  })

  test("contains no leftovers of templates", () => {
    for (const d of corpus) {
      const text = documentKey(d)
      // JSON answers may have braces, wrapping tasks may have brackets
      if (!/JSON|json|bracket|\{"/.test(text)) expect(text).not.toMatch(/[{}[\]]/)
      expect(text).not.toMatch(/undefined|NaN| {2}| [.,!](?!\.\.)|\b[Aa] [aeio][a-z]/)
    }
  })

  test("has conversations whose turns alternate and end with an answer", () => {
    for (const d of corpus) {
      if ("text" in d) continue
      const turns = d.messages.filter((m) => m.role !== "system").map((m) => m.role)
      expect(turns.every((r, k) => r === (k % 2 === 0 ? "user" : "assistant"))).toBe(true)
      expect(turns.at(-1)).toBe("assistant")
      for (const m of d.messages) expect(m.content.trim()).toBe(m.content)
    }
  })

  test("never shows what quickstart teaches", () => {
    for (const d of corpus) {
      const text = documentKey(d)
      expect(text.includes(SLOTH_OPENING)).toBe(false)
      for (const fact of Object.values(LEAF_FACTS)) expect(text.includes(fact)).toBe(false)
    }
  })

  test("covers every kind", () => {
    const kinds = new Set(corpus.map((d) => d.kind))
    for (const k of [
      "text-story",
      "text-facts",
      "text-arithmetic",
      "fact",
      "arithmetic",
      "reading",
      "story-chat",
      "story-question",
      "describe",
      "chat",
      "unknown",
      "multi",
      "format-json",
      "format-upper",
      "format-sort",
    ])
      expect(kinds.has(k)).toBe(true)
  })
})

describe("stories", () => {
  test("answer their own questions", () => {
    const plots = new Set<string>()
    for (let k = 0; k < 3000; k++) {
      const s = tellStory(new Random(30, k))
      plots.add(s.plot)
      expect(s.text).toContain(s.hero)
      for (const q of s.questions) {
        // a short answer that is a name, a colour or a number must be said in the story
        if (/^(\d+|[A-Z][a-z]+)$/.test(q.short) && !/^(Yes|No|Lonely|Afraid)$/.test(q.short))
          expect(s.text.toLowerCase()).toContain(q.short.toLowerCase())
      }
      if (s.plot === "sharing") {
        const [total, friends, each] = [/picked (\d+)/, /(\d+) friends came/, /friends got (\d+)/].map((r) =>
          Number((s.text.match(r) as RegExpMatchArray)[1]),
        ) as [number, number, number]
        expect(friends * each).toBe(total)
      }
      if (s.plot === "market") {
        const [coins, price, left] = [/had (\d+) coins/, /cost (\d+) coins/, /had (\d+) coins? left/].map((r) =>
          Number((s.text.match(r) as RegExpMatchArray)[1]),
        ) as [number, number, number]
        expect(coins - price).toBe(left)
      }
    }
    expect(plots.size).toBe(PLOTS.length)
  })

  test("have the hero and the thing that are wished for", () => {
    for (let k = 0; k < 300; k++) {
      const s = tellStory(new Random(31, k), { kind: "owl", thing: "lamp" })
      expect(s.heroKind).toBe("owl")
      expect(s.text).toContain("lamp")
    }
  })
})

describe("templates", () => {
  test("choose, nest and inflect", () => {
    const texts = new Set(
      Array.from({ length: 200 }, (_, k) =>
        fillTemplate(new Random(1, k), "[{A x}|The {x}] [runs|[walks|hops] away].", { x: "owl" }),
      ),
    )
    expect(texts).toEqual(
      new Set([
        "An owl runs.",
        "An owl walks away.",
        "An owl hops away.",
        "The owl runs.",
        "The owl walks away.",
        "The owl hops away.",
      ]),
    )
    expect(templateVariants("[a|b [c|d]] [e|]")).toBe(6)
    expect(() => fillTemplate(new Random(1), "{missing}")).toThrow(ReferenceError)
  })
})
