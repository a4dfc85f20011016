import { describe, expect, test } from "bun:test"
import { mathEquivalence, sameMathematics } from "./math-equivalence.ts"

const equal: readonly (readonly [string, string])[] = [
  ["\\frac{1}{2}", "0.5"],
  ["\\frac12", "1/2"],
  ["\\dfrac{3}{4}", "$\\tfrac{6}{8}$"],
  ["2\\sqrt{2}", "\\sqrt{8}"],
  ["2\\sqrt{2}", "sqrt(8)"],
  ["\\frac{\\sqrt{3}}{3}", "\\frac{1}{\\sqrt3}"],
  ["3\\frac{1}{2}", "3 1/2"],
  ["3\\frac{1}{2}", "3.5"],
  ["-3\\frac{1}{2}", "-3.5"],
  ["1{,}234", "1,234"],
  ["1234.5", "$1,234.50"],
  ["50\\%", "50%"],
  ["50\\%", "0.5"],
  ["50", "50\\%"],
  ["0.\\overline{3}", "\\frac{1}{3}"],
  ["2\\pi", "\\pi \\cdot 2"],
  ["\\pi/2", "90^\\circ"],
  ["90", "90^\\circ"],
  ["5\\text{ km}", "5"],
  ["5\\text{ km}", "5000\\,\\mathrm{m}"],
  ["12\\text{ apples}", "12"],
  ["\\$5", "5"],
  ["x=3", "3"],
  ["x = 3", "x=\\frac{6}{2}"],
  ["(1,-2)", "\\left(1, -2\\right)"],
  ["\\{1,2\\}", "\\{2, 1\\}"],
  ["1, 2", "2,1"],
  ["\\pm 2", "\\pm\\sqrt{4}"],
  ["[0,1)", "[0, 1)"],
  ["(-\\infty,2)\\cup(3,5]", "(3,5]\\cup(-\\infty,2)"],
  ["x^2+2x+1", "(x+1)^2"],
  ["\\sin^2 x+\\cos^2 x", "1"],
  ["y = 2x + 1", "2x - y + 1 = 0"],
  ["x < 3", "3 > x"],
  ["\\text{no}", "\\text{No}"],
  ["Tuesday", "tuesday."],
  ["infinity", "\\infty"],
  ["\\log_2 8", "3"],
  ["\\ln e^2", "2"],
  ["2^{10}", "1024"],
  ["\\binom{5}{2}", "10"],
  ["5!", "120"],
  ["\\sqrt[3]{-27}", "-3"],
  ["1.5\\times10^{3}", "1500"],
  ["\\infty", "\\infty"],
  ["\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&2^2\\end{pmatrix}"],
  ["\\boxed{7}", "7."],
  ["123456789012345678901", "123456789012345678901"],
]
const different: readonly (readonly [string, string])[] = [
  ["0.5", "0.25"],
  ["\\frac{1}{3}", "0.33"],
  ["123456789012345678901", "123456789012345678902"],
  ["9007199254740993", "9007199254740992"],
  ["1000000", "1000000.5"],
  ["(1,2)", "(2,1)"],
  ["(1,2)", "[1,2)"],
  ["[0,1)", "[0,1]"],
  ["\\{1,2\\}", "\\{1,2,3\\}"],
  ["1", "1,2,3"],
  ["x^2+1", "x^2-1"],
  ["x", "y"],
  ["x < 3", "x > 3"],
  ["x < 3", "x \\le 3"],
  ["y = 2x + 1", "y = 2x - 1"],
  ["5\\text{ km}", "5\\text{ m}"],
  ["5\\text{ km}", "5\\text{ kg}"],
  ["50\\%", "5"],
  ["3", "\\text{three}"],
  ["listen", "silent"],
  ["x = 3", "y = 3"],
  ["3", ""],
  ["3", "\\frac{"],
  ["1", "9^{9^{9^{9}}}"],
  ["1", "100000000!"],
  ["\\sqrt{2}", "1.41421"],
]

describe("the same mathematics", () => {
  for (const [gold, answer] of equal)
    test(`${gold} is ${answer}`, async () => {
      expect(await sameMathematics(gold, answer)).toBe(true)
      expect(await sameMathematics(answer, gold)).toBe(true)
    })
  for (const [gold, answer] of different)
    test(`${gold} is not ${answer}`, async () => expect(await sameMathematics(gold, answer)).toBe(false))
  test("a tolerance for rounded answers", async () => {
    expect(await sameMathematics("\\sqrt{2}", "1.41421", { tolerance: 1e-4 })).toBe(true)
    expect(await sameMathematics("1000", "1001", { tolerance: 0.01 })).toBe(false)
  })
  test("what cannot be read is not scorable as gold", async () => {
    for (const gold of ["", "\\frac{", "\\sum_{k=1}^{n} k", "x".repeat(500)])
      expect(await sameMathematics(gold, "1")).toBeUndefined()
  })
})

describe("hostile answers", () => {
  test("are judged in no time", async () => {
    const answers = [
      "9^{".repeat(100) + "9" + "}".repeat(100),
      "\\sum_{k=1}^{1000000000000} k",
      "\\frac{".repeat(60) + "1" + "}{2}".repeat(60),
      "(".repeat(390),
      "|(".repeat(190),
      "\\sqrt{".repeat(60) + "1",
      "1".repeat(390),
      "1,".repeat(190),
      "\\binom{1000000000}{500000000}",
      "\\left(".repeat(60),
      "constructor(1)",
      "__proto__",
      "0.(" + "3".repeat(300) + ")",
    ]
    const started = performance.now()
    for (const answer of answers) expect(await sameMathematics("\\frac{1}{7}", answer)).toBe(false)
    expect(performance.now() - started).toBeLessThan(20_000)
  })
})

test("the reward", async () => {
  const reward = mathEquivalence({ right: 2, wrong: -1 })
  const sample = (completion: string, answer: unknown) => ({
    prompt: "",
    completion,
    completionTokens: [],
    finishReason: "stop" as const,
    row: { answer },
  })
  expect(
    await reward.score([
      sample("It is \\boxed{\\frac{1}{2}}.", "0.5"),
      sample("It is \\boxed{\\frac{1}{3}}.", "0.5"),
      sample("no number at all", "0.5"),
      sample("<answer>x+x</answer>", "2x"),
      sample("so 1 and then #### 42", "long text of the solution\n#### 42"),
      sample("3", "\\frac{"),
      sample("3", 3),
    ]),
  ).toEqual([2, -1, -1, 2, 2, null, 2])
})
