import { afterAll, describe, expect, test } from "bun:test"
import { createSandbox } from "@sloth/sandbox"
import { checkImports, codeBlock } from "./code-text.ts"
import { allowedImports, codeRuns, unitTests } from "./code.ts"
import { runRewards } from "./run-rewards.ts"
import { sameValue } from "./same-value.ts"

const python = createSandbox({ language: "python", processes: 1, timeMs: 3000 })
const javascript = createSandbox({ language: "javascript", processes: 1 })
afterAll(async () => {
  await python[Symbol.asyncDispose]()
  await javascript[Symbol.asyncDispose]()
})

const sample = (completion: string, row: Record<string, unknown> = {}) => ({
  prompt: "",
  completion,
  completionTokens: [],
  finishReason: "stop" as const,
  row,
})
const fence = (language: string, code: string): string => `Here it is:\n\`\`\`${language}\n${code}\n\`\`\`\nDone.`

describe("unitTests", () => {
  const half = fence("python", "def double(x):\n    return x * 2 if x > 0 else 0")

  test("the share of tests that pass, or all", async () => {
    const row = {
      entry_point: "double",
      tests: [
        { args: [2], expected: 4 },
        { args: [-3], expected: -6 },
      ],
    }
    const options = { language: "python", sandbox: python } as const
    expect(await unitTests(options).score([sample(half, row), sample("no code", row)])).toEqual([0.5, 0])
    expect(await unitTests({ ...options, score: "all" }).score([sample(half, row)])).toEqual([0])
  })

  test("Python asserts become calls whose values are compared outside", async () => {
    const tests = [
      "assert double(2) == 4",
      "assert double(-3) == -6, 'negative'",
      "assert 10 == double(5)",
      "assert abs(double(1) - 2) < 1e-6",
    ]
    const reward = unitTests({ language: "python", sandbox: python })
    const cheat = fence("python", "class E:\n    def __eq__(self, o): return True\ndef double(x): return E()")
    const { scores, metrics } = await runRewards(
      [reward],
      [sample(half, { tests }), sample(cheat, { tests: tests.join("\n") })],
    )
    expect(scores).toEqual([[2 / 3, 0]])
    expect(metrics["rewards/unit_tests/unread_tests"]).toBe(1)
  })

  test("a check function around asserts, tuples as arguments, sets as values", async () => {
    const row = {
      entry_point: "ends",
      tests:
        "def check(candidate):\n    assert candidate((1, 2, 3)) == {1, 3}\n    assert candidate([]) is None\n    assert not candidate('')",
    }
    const right = fence(
      "py",
      "def ends(xs):\n    if not xs: return None if isinstance(xs, list) else False\n    assert isinstance(xs, tuple)\n    return {xs[0], xs[-1]}",
    )
    expect(await unitTests({ language: "python", sandbox: python }).score([sample(right, row)])).toEqual([1])
  })

  test("programs that read and print", async () => {
    const row = { tests: JSON.stringify({ inputs: ["1 2\n", "3 4\n"], outputs: ["3", "7\n"] }) }
    const code = fence("python", "a, b = map(int, input().split())\nprint(a + b)")
    const memory = fence(
      "python",
      "import os\nif os.path.exists('/tmp/n'): print(7)\nelse: open('/tmp/n', 'w'); print(3)",
    )
    const reward = unitTests({ language: "python", sandbox: python })
    expect(await reward.score([sample(code, row), sample(memory, row)])).toEqual([1, 0.5])
  })

  test("JavaScript, and tests that a program cannot have foreseen", async () => {
    const reward = unitTests({
      language: "javascript",
      sandbox: javascript,
      fresh: (_row, random) =>
        [1, 2, 3].map(() => {
          const x = Math.floor(random() * 1e9)
          return { args: [x], expected: x * 2 }
        }),
    })
    const row = { entry_point: "double" }
    const samples = [
      sample(fence("js", "const double = (x) => x * 2"), row),
      sample(fence("js", "const double = () => 4"), row),
    ]
    expect(await reward.score(samples)).toEqual([1, 0])
    expect(await reward.score(samples)).toEqual([1, 0])
  })

  test("a locked function cannot cache", async () => {
    const row = {
      entry_point: "f",
      tests: [
        { args: [1], expected: 1 },
        { args: [5], expected: 1 },
      ],
    }
    const caching = fence("python", "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen) and seen[0]")
    const options = { language: "python", sandbox: python } as const
    expect(await unitTests(options).score([sample(caching, row)])).toEqual([1])
    expect(await unitTests({ ...options, locked: true }).score([sample(caching, row)])).toEqual([0])
  })

  test("rows that cannot be read are an error with a code; imports that are not allowed earn what is set", async () => {
    const reward = unitTests({ language: "python", sandbox: python, imports: ["math"], refused: -1 })
    expect(reward.score([sample(half, { entry_point: "double", tests: [{ args: 3 }] })])).rejects.toMatchObject({
      code: "SLOTH_REWARD_TESTS",
    })
    expect(reward.score([sample(half, { tests: [{ args: [1], expected: 2 }] })])).rejects.toMatchObject({
      code: "SLOTH_REWARD_TESTS",
    })
    const row = { entry_point: "double", tests: [{ args: [2], expected: 4 }] }
    const imports = fence("python", "import os\ndef double(x): return 2 * x")
    expect(await reward.score([sample(imports, row), sample(half, row)])).toEqual([-1, 1])
    expect(() => unitTests({ language: "javascript", sandbox: python })).toThrow(
      expect.objectContaining({ code: "SLOTH_REWARD_SANDBOX" }),
    )
  })
})

test("codeRuns: runs to its end and defines what the row names", async () => {
  const reward = codeRuns({ language: "python", sandbox: python })
  const scores = await reward.score([
    sample(fence("python", "def f(): pass"), { entry_point: "f" }),
    sample(fence("python", "def g(): pass"), { entry_point: "f" }),
    sample(fence("python", "1 / 0")),
    sample("nothing"),
  ])
  expect(scores).toEqual([1, 0, 0, 0])
})

test("codeBlock: the last closed block of the language, after the thoughts", () => {
  expect(codeBlock("```python\n1\n```\n```js\n2\n```\n```py\n3\n```", "python")).toBe("3\n")
  expect(codeBlock("```js\n2\n```", "python")).toBeUndefined()
  expect(codeBlock("```python\n1\n```</think> none", "python")).toBeUndefined()
  expect(codeBlock("```python\n1", "python")).toBeUndefined()
})

test("checkImports reads code, not texts and comments", () => {
  expect(
    checkImports("def f():\n    import math, os.path as p\n    from collections.abc import Set", "python"),
  ).toMatchObject({
    ok: false,
    imports: ["collections", "math", "os"],
    refused: ["os"],
  })
  expect(checkImports("# import os\nx = 'import os'\n'''\nimport os\n'''", "python")).toMatchObject({
    ok: true,
    imports: [],
  })
  expect(checkImports("__import__('os')", "python").refused).toEqual(["__import__"])
  expect(checkImports("import fs from 'node:fs'; const x = require('os')", "javascript").refused).toEqual(["fs", "os"])
  expect(checkImports("// import 'fs'", "javascript").ok).toBe(true)
  const reward = allowedImports({ language: "python" })
  expect(
    reward.score([sample(fence("python", "import numpy")), sample(fence("python", "import math")), sample("-")]),
  ).toEqual([-20, 1, -1])
})

test("sameValue", () => {
  expect(sameValue([1, { a: 0.1 + 0.2, b: null }], [1, { b: null, a: 0.3 }])).toBe(true)
  expect(sameValue(1e20 + 1e5, 1e20)).toBe(false)
  expect(
    sameValue(
      {
        $map: [
          [1, 2],
          [3, 4],
        ],
      },
      {
        $map: [
          [3, 4],
          [1, 2],
        ],
      },
    ),
  ).toBe(true)
  for (const [a, b] of [
    [1, true],
    [[], {}],
    [{ a: 1 }, { b: 1 }],
    ["1", 1],
    [null, 0],
    [[1], [1, 2]],
  ] as const)
    expect(sameValue(a, b)).toBe(false)
})
