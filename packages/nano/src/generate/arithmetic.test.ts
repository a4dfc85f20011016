import { describe, expect, test } from "bun:test"
import { arithmeticQuestion, arithmeticText, calculation, comparison, numberSense, wordProblem } from "./arithmetic.ts"
import { Random } from "./random.ts"

/** A second way from words to numbers, written for the test only. */
const SMALL =
  "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split(
    " ",
  )
const TEN = "twenty thirty forty fifty sixty seventy eighty ninety".split(" ")
function fromWord(word: string): number {
  if (word === "one hundred") return 100
  const [ten, one] = word.split("-") as [string, string?]
  const small = SMALL.indexOf(ten)
  if (small >= 0 && one === undefined) return small
  return (TEN.indexOf(ten) + 2) * 10 + (one === undefined ? 0 : SMALL.indexOf(one))
}

const value = (a: number, sign: string, b: number): number => {
  switch (sign) {
    case "+":
    case "plus":
      return a + b
    case "-":
    case "minus":
      return a - b
    case "x":
    case "*":
    case "times":
      return a * b
    case "/":
    case "divided by":
      return a / b
  }
  throw new Error(`unknown sign ${sign}`)
}

const number = "(\\d+|[a-z]+(?:-[a-z]+)?|one hundred)"
const expression = new RegExp(`${number} (\\+|-|x|\\*|/|plus|minus|times|divided by) ${number}[?.]?(?: = \\?)?$`)
const toNumber = (text: string): number => (/^\d+$/.test(text) ? Number(text) : fromWord(text))

/** Every equation written with digits in a text. */
function checkEquations(text: string): number {
  let found = 0
  for (const m of text.matchAll(/(?<![+\-x*/] )\b(\d+) ([-+x*/]) (\d+)(?: (\+) (\d+))? = (\d+)/g)) {
    const first = value(Number(m[1]), m[2] as string, Number(m[3]))
    expect(`${m[0]}`).toBe(
      `${m[1]} ${m[2]} ${m[3]}${m[5] === undefined ? "" : ` + ${m[5]}`} = ${first + (m[5] === undefined ? 0 : Number(m[5]))}`,
    )
    found++
  }
  return found
}

describe("arithmetic", () => {
  test("calculations are right", () => {
    for (let k = 0; k < 6000; k++) {
      const q = calculation(new Random(100, k))
      const m = q.ask.replace(/( =)?( \?)?$/, "").match(expression)
      if (m === null) throw new Error(`not understood: ${q.ask}`)
      const right = value(toNumber(m[1] as string), m[2] as string, toNumber(m[3] as string))
      expect(`${q.ask} ${q.short}`).toBe(`${q.ask} ${right}`)
      expect(q.answer.match(/\d+/g)?.at(-1)).toBe(String(right))
      checkEquations(q.answer)
    }
  })

  test("word problems are right", () => {
    const seen = { "+": 0, "-": 0, x: 0, "/": 0 }
    for (let k = 0; k < 6000; k++) {
      const { ask, answer, short } = wordProblem(new Random(101, k))
      const [a, b] = (ask.match(/\d+/g) as string[]).map(Number) as [number, number]
      expect(ask.match(/\d+/g)?.length).toBe(2)
      const op = /equally|the same number in each/.test(ask)
        ? "/"
        : /in each\.|Each (one )?(holds|brings)/.test(ask)
          ? "x"
          : /gives \d+|gives .* away|loses|sells|takes|took|roll away|get lost|are sold/.test(ask)
            ? "-"
            : "+"
      seen[op]++
      if (op === "+") expect(ask).toMatch(/more|together/)
      expect(`${ask} ${short}`).toBe(`${ask} ${value(a, op, b)}`)
      expect(checkEquations(answer)).toBe(1)
      expect(answer).toContain(short === "0" ? "No " : short)
    }
    for (const n of Object.values(seen)) expect(n).toBeGreaterThan(200)
  })

  test("comparisons are right", () => {
    for (let k = 0; k < 3000; k++) {
      const { ask, short, answer } = comparison(new Random(102, k))
      const numbers = (ask.match(/\d+/g) as string[]).map(Number)
      const large = /larg|big|great/.test(ask)
      if (ask.startsWith("Is ")) {
        const [a, b] = numbers as [number, number]
        expect(short).toBe((large ? a > b : a < b) ? "Yes" : "No")
        const said = answer.match(/(\d+) is (larger|bigger|greater|smaller) than (\d+)/) as RegExpMatchArray
        expect(Number(said[1]) > Number(said[3])).toBe(said[2] !== "smaller")
      } else expect(Number(short)).toBe(large ? Math.max(...numbers) : Math.min(...numbers))
    }
  })

  test("number sense is right", () => {
    let understood = 0
    for (let k = 0; k < 6000; k++) {
      const { ask, short } = numberSense(new Random(103, k))
      const n = (ask.match(/\d+/g) ?? []).map(Number)
      let right: string | undefined
      if (/comes after \d/.test(ask)) right = String((n[0] as number) + 1)
      else if (/comes before \d/.test(ask)) right = String((n[0] as number) - 1)
      else if (/between/.test(ask)) right = String(((n[0] as number) + (n[1] as number)) / 2)
      else if (ask.endsWith(", ...")) right = String(2 * (n[3] as number) - (n[2] as number))
      else if (/double|twice/.test(ask)) right = String(2 * (n[0] as number))
      else if (/half/.test(ask)) right = String((n[0] as number) / 2)
      else if (/ even\?/.test(ask)) right = (n[0] as number) % 2 === 0 ? "Yes" : "No"
      else if (/ odd\?/.test(ask)) right = (n[0] as number) % 2 === 1 ? "Yes" : "No"
      else if (/missing|must I add/.test(ask)) right = String((n[1] as number) - (n[0] as number))
      else if (n.length === 3) right = String(n.reduce((a, b) => a + b, 0))
      else if (/in digits|with digits/.test(ask))
        right = String(
          fromWord(
            (ask.match(/(?:number|Write) ((?!the)[a-z]+(?: hundred)?(?:-[a-z]+)?)/) as RegExpMatchArray)[1] as string,
          ),
        )
      else if (/word/.test(ask) && n.length === 1)
        right = short === "one hundred" || fromWord(short) === n[0] ? short : `not ${short}`
      else if (/list|things|Count/.test(ask)) right = String((ask.split(": ")[1] as string).split(",").length)
      if (right === undefined) throw new Error(`not understood: ${ask}`)
      understood++
      expect(`${ask} ${short}`).toBe(`${ask} ${right}`)
    }
    expect(understood).toBe(6000)
  })

  test("sheets, tables and answers contain only right equations", () => {
    let equations = 0
    for (let k = 0; k < 2000; k++) equations += checkEquations(arithmeticText(new Random(104, k)))
    for (let k = 0; k < 4000; k++) {
      const q = arithmeticQuestion(new Random(105, k))
      equations += checkEquations(q.answer)
    }
    expect(equations).toBeGreaterThan(10_000)
  })
})
