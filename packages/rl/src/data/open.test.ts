import { describe, expect, test } from "bun:test"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { CHATML_TEMPLATE } from "@sloth/data"
import { byteTokenizer } from "../../../data/fixtures/byte-tokenizer.ts"
import { thrown } from "../../../data/fixtures/thrown.ts"
import type { ScoredText } from "../preference/completions-unit.ts"
import { openPreferences, openRatings, type PreferenceOptions } from "./open.ts"

const tokenizer = byteTokenizer({ chatTemplate: CHATML_TEMPLATE, addBos: true, words: [" the", "cat"] })
const pairs = (rows: readonly object[], options: Partial<PreferenceOptions> = {}) =>
  openPreferences(rows, { tokenizer, ...options })
const ratings = (rows: readonly object[], options: Partial<PreferenceOptions> = {}) =>
  openRatings(rows, { tokenizer, ...options })

/** The text with its scored stretches in brackets. */
const shown = ({ tokens, scored }: ScoredText): string => {
  let out = ""
  for (let t = 0, end; t < tokens.length; t = end) {
    end = t + 1
    while (end < tokens.length && scored[end] === scored[t]) end++
    const text = tokenizer.decode([...tokens.subarray(t, end)])
    out += scored[t] === 1 ? `[${text}]` : text
  }
  return out
}
const shownPair = async (row: object, options: Partial<PreferenceOptions> = {}) => {
  const { examples } = await pairs([row], options)
  return [shown(examples[0]!.chosen), shown(examples[0]!.rejected)]
}
const user = (content: string) => ({ role: "user", content })
const assistant = (content: string) => ({ role: "assistant", content })
const chat = (question: string, answer: string) =>
  `<|im_start|>user\n${question}<|im_end|>\n<|im_start|>assistant\n[${answer}<|im_end|>]\n`

describe("pairs", () => {
  test("conversations with a prompt of their own", async () => {
    expect(
      await shownPair({ prompt: [user("Sky?")], chosen: [assistant("Blue.")], rejected: [assistant("No.")] }),
    ).toEqual([chat("Sky?", "Blue."), chat("Sky?", "No.")])
  })
  test("conversations whose common beginning is the prompt; earlier answers are not scored", async () => {
    const start = [user("a"), assistant("b"), user("c")]
    expect(await shownPair({ chosen: [...start, assistant("d")], rejected: [...start, assistant("e")] })).toEqual([
      `<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n${chat("c", "d")}`,
      `<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n${chat("c", "e")}`,
    ])
  })
  test("a prompt as text beside whole conversations, beside answers, and beside a single message", async () => {
    const whole = { prompt: "Hi", chosen: [user("Hi"), assistant("yes")], rejected: [user("Hi"), assistant("no")] }
    const answers = { prompt: "Hi", chosen: [assistant("yes")], rejected: [assistant("no")] }
    const single = { prompt: "Hi", chosen: assistant("yes"), rejected: assistant("no") }
    for (const row of [whole, answers, single])
      expect(await shownPair(row)).toEqual([chat("Hi", "yes"), chat("Hi", "no")])
  })
  test("texts: bos in front, eos after the completion", async () => {
    expect(await shownPair({ prompt: "The sky is", chosen: " blue", rejected: " a lie" })).toEqual([
      "<s>The sky is[ blue</s>]",
      "<s>The sky is[ a lie</s>]",
    ])
  })
  test("texts whose common beginning is the prompt; a space goes with the completions", async () => {
    expect(await shownPair({ chosen: "It is blue", rejected: "It is black" })).toEqual([
      "<s>It is bl[ue</s>]",
      "<s>It is bl[ack</s>]",
    ])
    expect(await shownPair({ chosen: "It is blue", rejected: "It is red" })).toEqual([
      "<s>It is[ blue</s>]",
      "<s>It is[ red</s>]",
    ])
    expect(await shownPair({ chosen: "It 🦥", rejected: "It 🦦" })).toEqual(["<s>It[ 🦥</s>]", "<s>It[ 🦦</s>]"])
  })
  test("a token that reaches from the prompt into the completion belongs to the completion", async () => {
    const { examples } = await pairs([{ prompt: "see", chosen: " the cat", rejected: "n" }])
    expect(shown(examples[0]!.chosen)).toBe("<s>see[ the cat</s>]")
    const [chosen] = await shownPair({ prompt: "see t", chosen: "he", rejected: "x" }, { tokenizer: byteTokenizer() })
    expect(chosen).toBe("see t[he</s>]")
  })
  test("token ids stay as they are", async () => {
    const { examples } = await pairs([{ prompt: [1, 2], chosen: [3], rejected: [4, 5] }])
    expect([...examples[0]!.chosen.tokens]).toEqual([1, 2, 3])
    expect([...examples[0]!.rejected.scored]).toEqual([0, 0, 1, 1])
  })
  test("the gold completion, the reference's sums, tools, and lists written as text", async () => {
    const { examples, statement } = await pairs([
      {
        prompt: "p",
        chosen: "a",
        rejected: "b",
        gold: "c",
        ref_chosen_logps: -3.5,
        ref_rejected_logps: -4,
      },
      { prompt: "p", chosen: "a", rejected: "b", reference: "d" },
    ])
    expect(shown(examples[0]!.gold!)).toBe("<s>p[c</s>]")
    expect(shown(examples[1]!.gold!)).toBe("<s>p[d</s>]")
    expect(examples[0]!.reference).toEqual({ chosen: -3.5, rejected: -4 })
    expect(statement).toBe("Recognised 2 rows of preference pairs (texts).")
    const table = {
      prompt: JSON.stringify([user("q")]),
      chosen: JSON.stringify([assistant("y")]),
      rejected: JSON.stringify([assistant("n")]),
    }
    expect(await shownPair(table)).toEqual([chat("q", "y"), chat("q", "n")])
    const template = "{{ tools | tojson }}{% for m in messages %}<{{ m.role }}>{{ m.content }}<|im_end|>{% endfor %}"
    const tooled = {
      tools: [{ name: "t" }],
      chosen: [user("q"), assistant("y")],
      rejected: [user("q"), assistant("n")],
    }
    expect((await shownPair(tooled, { template }))[0]).toStartWith('[{"name": "t"}]<user>q')
  })
  test("the limit cuts the end, and leaves rows out whose prompt fills it", async () => {
    const rows = [
      { prompt: "abc", chosen: "0123456789", rejected: "x" },
      { prompt: "abcdefghijk", chosen: "y", rejected: "z" },
      { prompt: "a", chosen: "b", rejected: "b" },
    ]
    const cut = await pairs(rows, { maxLength: 8 })
    expect(shown(cut.examples[0]!.chosen)).toBe("<s>abc[0123]")
    expect(cut.examples.map((e) => e.row)).toEqual([0, 2])
    expect(cut.report).toMatchObject({ rows: 3, examples: 2, truncated: 1, dropped: 1, identical: 1, longest: 8 })
    expect(cut.statement).toContain("1 cut at the limit; 1 left out for want of room; 1 with equal completions")
    const dropped = await pairs(rows, { maxLength: 8, overlong: "drop" })
    expect(dropped.examples.map((e) => e.row)).toEqual([2])
  })
  test("files, held-out rows, and a hash of the content", async () => {
    const folder = mkdtempSync(join(tmpdir(), "sloth-rl-"))
    try {
      const rows = Array.from({ length: 10 }, (_, i) => ({ prompt: `p${i}`, chosen: "a", rejected: "b" }))
      const path = join(folder, "pairs.jsonl")
      writeFileSync(path, rows.map((row) => JSON.stringify(row)).join("\n"))
      const file = await openPreferences(path, { tokenizer, heldOut: 0.2, seed: 3 })
      expect(file.examples).toHaveLength(8)
      expect(file.heldOut).toHaveLength(2)
      expect(file.examplesHash).toBe((await pairs(rows)).examplesHash)
      expect((await pairs([{ ...rows[0]!, ref_chosen_logps: 1, ref_rejected_logps: 2 }])).examplesHash).not.toBe(
        (await pairs([rows[0]!])).examplesHash,
      )
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})

describe("ratings", () => {
  test("prompt, completion and label; messages and label; pairs", async () => {
    const { examples, statement } = await ratings([
      { prompt: "p", completion: "good", label: true },
      { prompt: [user("q")], completion: [assistant("bad")], label: 0 },
      { messages: [user("a"), assistant("b"), user("c"), assistant("d")], label: true },
      { prompt: "p", chosen: "yes", rejected: "no", ref_chosen_logps: -1, ref_rejected_logps: -2 },
      { completion: "alone", label: false },
    ])
    expect(examples.map((e) => [shown(e.text), e.desirable, e.row, e.reference])).toEqual([
      ["<s>p[good</s>]", true, 0, undefined],
      [chat("q", "bad"), false, 1, undefined],
      [`<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n${chat("c", "d")}`, true, 2, undefined],
      ["<s>p[yes</s>]", true, 3, -1],
      ["<s>p[no</s>]", false, 3, -2],
      ["<s>[alone</s>]", false, 4, undefined],
    ])
    expect(statement).toBe("Recognised 5 rows of rated completions (texts, conversations).")
  })
})

describe("bad rows have coded errors", () => {
  const good = { prompt: "p", chosen: "a", rejected: "b" }
  const cases: readonly (readonly [string, object, string, string])[] = [
    ["no pair", { prompt: "p", completion: "c" }, "SLOTH_RL_ROW_KIND", "row 1"],
    ["a rating where a pair is wanted", { prompt: "p", completion: "c", label: true }, "SLOTH_RL_ROW_KIND", "kto"],
    ["not an object", ["x"], "SLOTH_RL_ROW_KIND", "not an object"],
    ["a column that is no text", { prompt: "p", chosen: 5, rejected: "b" }, "SLOTH_DATA_FIELD", '"chosen"'],
    ["mixed token ids", { prompt: [1, -2], chosen: [1], rejected: [2] }, "SLOTH_DATA_FIELD", '"prompt"'],
    ["different forms", { chosen: "a", rejected: [assistant("b")] }, "SLOTH_RL_ROW_FORMS", "written as"],
    ["ids with text", { prompt: [1], chosen: "a", rejected: "b" }, "SLOTH_RL_ROW_FORMS", "written as"],
    ["nothing beyond the prompt", { chosen: "same", rejected: "same" }, "SLOTH_RL_NO_COMPLETION", "chosen"],
    ["an empty completion", { prompt: "p", chosen: "", rejected: "b" }, "SLOTH_RL_NO_COMPLETION", "chosen"],
    [
      "a reference that is no number",
      { ...good, ref_chosen_logps: "x", ref_rejected_logps: 1 },
      "SLOTH_DATA_FIELD",
      "ref_chosen_logps",
    ],
    ["half a reference", { ...good, ref_chosen_logps: 1 }, "SLOTH_DATA_FIELD", "ref_rejected_logps"],
    [
      "an unknown role",
      { prompt: [{ role: "x", content: "y" }], chosen: [assistant("a")], rejected: [assistant("b")] },
      "SLOTH_DATA_UNKNOWN_ROLE",
      "row 1",
    ],
    [
      "a completion without an answer",
      { prompt: [user("q")], chosen: [user("a")], rejected: [assistant("b")] },
      "SLOTH_DATA_NO_ASSISTANT",
      "row 1",
    ],
    [
      "an id outside the vocabulary",
      { prompt: [1], chosen: [99999], rejected: [2] },
      "SLOTH_DATA_TOKEN_RANGE",
      "row 1",
    ],
  ]
  for (const [name, row, code, text] of cases)
    test(name, async () => {
      const error = await thrown(() => pairs([good, row]))
      expect(error.code).toBe(code)
      expect(error.message).toContain(text)
      const { examples, report } = await pairs([good, row], { onBadRow: "skip" })
      expect(examples.map((e) => e.row)).toEqual([0])
      expect(report.skipped).toBe(1)
      expect(report.reasons[0]!.origin.index).toBe(1)
    })
  test("a label that is none", async () => {
    expect((await thrown(() => ratings([{ prompt: "p", completion: "c", label: "maybe" }]))).code).toBe(
      "SLOTH_DATA_FIELD",
    )
    expect((await thrown(() => ratings([{ prompt: "p", completion: "c" }]))).code).toBe("SLOTH_RL_ROW_KIND")
    expect((await thrown(() => ratings([{ prompt: "p", label: true }]))).code).toBe("SLOTH_RL_ROW_KIND")
  })
  test("no rows, no row left, a limit that is none, no template", async () => {
    expect((await thrown(() => pairs([]))).code).toBe("SLOTH_DATA_EMPTY")
    const left = await thrown(() => pairs([good, {}], { maxLength: 2, onBadRow: "skip" }))
    expect(left.code).toBe("SLOTH_RL_NOTHING_LEFT")
    expect(left.message).toContain("1 are faulty")
    expect((await thrown(() => pairs([good], { maxLength: 1 }))).code).toBe("SLOTH_DATA_MAX_LENGTH")
    const talk = { chosen: [user("q"), assistant("a")], rejected: [user("q"), assistant("b")] }
    expect((await thrown(() => pairs([talk], { tokenizer: byteTokenizer(), onBadRow: "skip" }))).code).toBe(
      "SLOTH_TEMPLATE_MISSING",
    )
  })
})
