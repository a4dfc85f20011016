import { describe, expect, test } from "bun:test"
import type { Reward, RewardSample } from "@sloth/core"
import { thrown } from "../../../data/fixtures/thrown.ts"
import { boxedAnswer, finalAnswer, lastNumber, markedAnswer, readNumber, taggedAnswer } from "./answers.ts"
import { clipped, gate, normalised, productOf, sumOf } from "./combine.ts"
import { defineReward } from "./define-reward.ts"
import { gsm8kRewards, regexMatch, softFormat, strictFormat, thinkFormat, xmlCount } from "./format.ts"
import { jsonSchema } from "./json-schema.ts"
import { cosineScaled, lengthWithin, repetitionPenalty, softOverlong } from "./length.ts"
import { exactMatch, integerAnswer, numberProximity, numericMatch } from "./match.ts"

const sample = (completion: string, answer?: unknown, tokens: readonly number[] = []): RewardSample => ({
  prompt: "p",
  completion,
  completionTokens: tokens,
  finishReason: "stop",
  row: answer === undefined ? {} : { answer },
})
const scores = async (reward: Reward, ...samples: RewardSample[]) => [...(await reward.score(samples))]
const of = async (reward: Reward, ...texts: string[]) => scores(reward, ...texts.map((text) => sample(text)))
const tokens = (n: number, value: (t: number) => number = (t) => t) =>
  sample(
    "",
    1,
    Array.from({ length: n }, (_, t) => value(t)),
  )

describe("finding answers", () => {
  test("boxed: the last, with braces inside, whole only", () => {
    expect(boxedAnswer("\\boxed{1} then \\boxed{\\frac{1}{2}}.")).toBe("\\frac{1}{2}")
    expect(boxedAnswer("\\boxed{\\{1,2\\}}")).toBe("\\{1,2\\}")
    expect(boxedAnswer("\\boxed{1")).toBeUndefined()
    expect(boxedAnswer("none")).toBeUndefined()
  })
  test("tags: exactly one pair, so that several answers earn nothing", () => {
    expect(taggedAnswer()("<answer> 4 </answer>")).toBe("4")
    expect(taggedAnswer()("<answer>4</answer><answer>5</answer>")).toBeUndefined()
    expect(taggedAnswer()("</answer>4<answer>")).toBeUndefined()
    expect(taggedAnswer("x")("<x>1</x>")).toBe("1")
  })
  test("markers and numbers", () => {
    expect(markedAnswer()("work\n#### 42\nmore")).toBe("42")
    expect(markedAnswer()("work ####")).toBeUndefined()
    expect(lastNumber("1, then 2,345.5, then -3.")).toBe("-3")
    expect(lastNumber("none")).toBeUndefined()
    expect(finalAnswer("1 \\boxed{2} <answer>3</answer> #### 4")).toBe("2")
    expect(finalAnswer("1 <answer>3</answer> #### 4")).toBe("3")
    expect(finalAnswer("1 #### 4 or 5")).toBe("4 or 5")
    expect(finalAnswer("first 1 then 6")).toBe("6")
  })
  test("numbers as people write them", () => {
    const cases: readonly (readonly [string, number | undefined])[] = [
      ["42", 42],
      [" -3.5 ", -3.5],
      ["$1,234.50", 1234.5],
      ["12 %", 12],
      ["1e3", 1000],
      ["1/4", 0.25],
      ["7.", 7],
      ["−5", -5],
      [".5", 0.5],
      ["1/0", undefined],
      ["1,2", undefined],
      ["4 apples", undefined],
      ["", undefined],
      ["0x10", undefined],
      ["Infinity", undefined],
    ]
    for (const [text, value] of cases) expect([text, readNumber(text)]).toEqual([text, value])
  })
})

describe("right answers", () => {
  test("exact", async () => {
    expect(await scores(exactMatch(), sample(" a  b\n", "a b"), sample("A b", "a b"))).toEqual([1, 0])
    expect(await scores(exactMatch({ ignoreCase: true, right: 2 }), sample("A b", "a b"))).toEqual([2])
    expect(
      await scores(
        exactMatch({ find: taggedAnswer(), wrong: -1 }),
        sample("<answer>x</answer>", "x"),
        sample("x", "x"),
      ),
    ).toEqual([1, -1])
    expect((await thrown(() => scores(exactMatch({ column: "gold" }), sample("x", "x")))).code).toBe(
      "SLOTH_REWARD_COLUMN",
    )
  })
  test("numeric", async () => {
    const gold = "They sell 48/2 = 24 clips.\n#### 1,072"
    expect(
      await scores(
        numericMatch(),
        sample("so 1072", gold),
        sample("\\boxed{1,072.0}", 1072),
        sample("1071", gold),
        sample("none", 3),
        sample("3", "no number"),
      ),
    ).toEqual([1, 1, 0, 0, null])
    expect(await scores(numericMatch({ tolerance: 0.01 }), sample("3.14", Math.PI), sample("3", Math.PI))).toEqual([
      1, 0,
    ])
  })
  test("near", async () => {
    const near = numberProximity({ right: 1, wrong: -1, none: -2 })
    expect(
      await scores(
        near,
        sample("10", 10),
        sample("5", 10),
        sample("0", 10),
        sample("1000", 10),
        sample("?", 10),
        sample("1", "?"),
      ),
    ).toEqual([1, 0, -1, -1, -2, null])
    expect(await scores(numberProximity({ reach: 2 }), sample("30", 10))).toEqual([0])
  })
  test("whole numbers", async () =>
    expect(
      await of(integerAnswer({ find: taggedAnswer() }), "<answer>-7</answer>", "<answer>7.5</answer>", "7"),
    ).toEqual([1, 0, 0]))
})

describe("formats", () => {
  const strict = "<reasoning>\na\nb\n</reasoning>\n<answer>\n4\n</answer>\n"
  const soft = "<reasoning>a</reasoning>  <answer>4</answer>"
  test("strict and soft", async () => {
    expect(
      await of(strictFormat(), strict, strict.trimEnd(), soft, `x${strict}`, `${strict}x`, strict + strict),
    ).toEqual([1, 1, 0, 0, 0, 0])
    expect(
      await of(
        softFormat(),
        strict,
        soft,
        `x${soft}`,
        `${soft} tail`,
        "<answer>4</answer><reasoning>a</reasoning>",
        soft + soft,
      ),
    ).toEqual([1, 1, 0, 0, 0, 0])
    expect(await of(softFormat({ tags: ["a.b"] }), "<a.b>x</a.b>", "<aXb>x</aXb>")).toEqual([1, 0])
  })
  test("think", async () =>
    expect(
      await of(thinkFormat(), "<think>\na</think>b", "a<think>b</think>", "<think><think></think>", "<think>a"),
    ).toEqual([1, 0, 0, 0]))
  test("XML count", async () => {
    const [whole, half, twice, tail] = await of(
      xmlCount(),
      strict,
      "<reasoning>\na",
      strict + strict,
      `${strict}0123456789`,
    )
    expect([whole, half, twice]).toEqual([0.5, 0.125, 0])
    expect(tail).toBeCloseTo(0.5 - 0.001 * 11, 12)
  })
  test("regex, also a global one", async () => {
    const reward = regexMatch(/\d+/g, { right: 3, wrong: -1 })
    expect(await of(reward, "a1", "a1", "a", "a1")).toEqual([3, 3, -1, 3])
  })
  test("the five of GSM8K", async () => {
    const total = async (text: string) => (await scores(sumOf(gsm8kRewards()), sample(text, "4")))[0]
    expect(await total(strict)).toBeCloseTo(2 + 0.5 + 0.5 + 0.5 + 0.5, 12)
    expect(await total(soft)).toBeCloseTo(2 + 0.5 + 0 + 0.5 + 0.5, 12)
    expect(await total("4")).toBe(0)
    expect(new Set(gsm8kRewards().map((r) => r.name)).size).toBe(5)
  })
  test("hostile texts do not keep a pattern busy", async () => {
    const started = performance.now()
    const texts = [
      "<reasoning>\n".repeat(3000),
      `<reasoning>${"\n".repeat(50_000)}`,
      `<reasoning>a</reasoning>${" ".repeat(50_000)}x`,
      "<".repeat(50_000),
    ]
    for (const reward of [strictFormat(), softFormat(), xmlCount(), thinkFormat()]) await of(reward, ...texts)
    for (const text of ["1,".repeat(30_000), "9".repeat(50_000), "\\boxed{".repeat(10_000), "1/".repeat(30_000)]) {
      finalAnswer(text)
      readNumber(text)
    }
    expect(performance.now() - started).toBeLessThan(10_000)
  })
})

describe("lengths", () => {
  test("within", async () =>
    expect(
      await scores(
        lengthWithin({ min: 4, max: 8 }),
        tokens(0),
        tokens(2),
        tokens(4),
        tokens(8),
        tokens(12),
        tokens(16),
        tokens(40),
      ),
    ).toEqual([0, 0.5, 1, 1, 0.5, 0, 0]))
  test("soft overlong", async () =>
    expect(
      await scores(softOverlong({ maxLength: 10, cache: 4 }), tokens(6), tokens(8), tokens(10), tokens(11)),
    ).toEqual([0, -0.5, -1, -1]))
  test("repetition", async () => {
    expect(
      await scores(
        repetitionPenalty(),
        tokens(2),
        tokens(5),
        tokens(6, () => 7),
      ),
    ).toEqual([0, -0, -0.75])
    expect(
      await scores(
        repetitionPenalty({ n: 1, penalty: -2 }),
        tokens(4, (t) => t % 2),
      ),
    ).toEqual([-1])
  })
  test("cosine", async () => {
    const reward = cosineScaled(exactMatch(), { maxLength: 10 })
    const at = (text: string, n: number) => ({
      ...sample(text, "a"),
      completionTokens: Array.from({ length: n }, () => 0),
    })
    const found = await scores(reward, at("a", 0), at("a", 10), at("a", 99), at("a", 5), at("b", 0), at("b", 10))
    for (const [i, expected] of [1, 0.5, 0.5, 0.75, -1, -0.5].entries()) expect(found[i]).toBeCloseTo(expected, 12)
  })
  test("limits that are none", async () => {
    for (const make of [
      () => lengthWithin({ max: 0 }),
      () => softOverlong({ maxLength: 10, cache: 0.5 }),
      () => repetitionPenalty({ n: -1 }),
    ])
      expect((await thrown(make)).code).toBe("SLOTH_REWARD_DEFINITION")
  })
})

describe("JSON", () => {
  const schema = {
    type: "object",
    properties: { n: { type: "integer", minimum: 1 } },
    required: ["n"],
    additionalProperties: false,
  }
  test("fits, parses, or neither; alone or in a fence", async () => {
    const reward = jsonSchema(schema, { parses: 0.25 })
    expect(
      await of(
        reward,
        '{"n": 2}',
        '{"n": 0}',
        "[1]",
        "{n: 2}",
        'Here:\n```json\n{"n": 3}\n```\nDone.',
        '```\n{"n":1}\n```\n```\n{"n":1}\n```',
        "",
      ),
    ).toEqual([1, 0.25, 0.25, 0, 1, 0, 0])
    expect(await of(jsonSchema(schema), '{"n": 0}')).toEqual([0])
  })
  test("2020-12, and a schema that is none", async () => {
    const tuple = {
      $schema: "https://json-schema.org/draft/2020-12/schema",
      prefixItems: [{ type: "string" }],
      items: false,
    }
    expect(await of(jsonSchema(tuple), '["a"]', '["a", 1]', "[1]")).toEqual([1, 0, 0])
    expect((await thrown(() => jsonSchema({ type: "strnig" }))).code).toBe("SLOTH_REWARD_SCHEMA")
  })
})

describe("combinations", () => {
  const fixed = (name: string, values: readonly (number | null)[], weight?: number) =>
    defineReward({ name, weight, score: (all) => all.map((_, i) => values[i]!) })
  const a = fixed("a", [1, 2, null, null], 2)
  const b = fixed("b", [3, 0.5, 4, null])
  const four = [0, 1, 2, 3].map((i) => sample(String(i)))
  test("sum, product, clip, normalise", async () => {
    expect(await scores(sumOf([a, b]), ...four)).toEqual([5, 4.5, 4, null])
    expect(await scores(productOf([a, b]), ...four)).toEqual([3, 1, null, null])
    expect(await scores(clipped(b, [1, 3]), ...four)).toEqual([3, 1, 3, null])
    const found = await scores(normalised(b), ...four)
    expect(found[3]).toBeNull()
    expect((found[0]! + found[1]! + found[2]!) / 3).toBeCloseTo(0, 12)
    expect(found[2]! - found[1]!).toBeCloseTo(3.5 / Math.sqrt((0.5 ** 2 + 2 ** 2 + 1.5 ** 2) / 2), 12)
    expect(await scores(normalised(fixed("c", [2, 2, null])), ...four.slice(0, 3))).toEqual([0, 0, null])
    expect([sumOf([a, b]).name, productOf([a, b], { name: "p", weight: 3 })]).toMatchObject([
      "sum(a,b)",
      { name: "p", weight: 3 },
    ])
  })
  test("a gate: only what passes is scored", async () => {
    const seen: string[] = []
    const dear = defineReward({ name: "dear", each: ({ completion }) => (seen.push(completion), 7) })
    expect(await scores(gate(fixed("open", [1, 0, null, 0.5]), dear, { closed: -1 }), ...four)).toEqual([
      7,
      -1,
      null,
      7,
    ])
    expect(seen).toEqual(["0", "3"])
    expect(await scores(gate(fixed("open", [0, 0]), dear), ...four.slice(0, 2))).toEqual([0, 0])
  })
  test("a part that gives the wrong number of scores is named", async () => {
    const short: Reward = { name: "short", score: () => [1] }
    const error = await thrown(() => scores(sumOf([a, short]), ...four))
    expect(error.code).toBe("SLOTH_REWARD_LENGTH")
    expect(error.message).toContain('"short"')
  })
  test("a part that gives no number is named, not hidden in a comparison", async () => {
    const broken: Reward = { name: "broken", score: (all) => all.map(() => Number.NaN) }
    for (const reward of [
      sumOf([broken]),
      gate(broken, a),
      normalised(broken),
      cosineScaled(broken, { maxLength: 5 }),
    ]) {
      const error = await thrown(() => scores(reward, ...four))
      expect(error.code).toBe("SLOTH_REWARD_NOT_A_NUMBER")
      expect(error.message).toContain('"broken"')
    }
  })
})
