import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { byteTokenizer } from "../fixtures/byte-tokenizer.ts"
import { thrown } from "../fixtures/thrown.ts"
import { CHATML_TEMPLATE } from "./chat-template.ts"
import { formatReport } from "./example.ts"
import { prepareExamples } from "./prepare.ts"
import type { PrepareOptions } from "./prepare.ts"
import { previewExample } from "./preview.ts"
import { recognise } from "./recognise.ts"

const tokenizer = byteTokenizer({ chatTemplate: CHATML_TEMPLATE })
const prepare = (rows: unknown[], options: Partial<PrepareOptions> = {}) =>
  prepareExamples(recognise(rows.map((row, i) => ({ row, line: i + 1 }))).rows, { tokenizer, ...options })
/** The example's text with the scored stretches in brackets. */
const shown = async (row: unknown, options: Partial<PrepareOptions> = {}): Promise<string> => {
  const { examples } = await prepare([row], options)
  const pieces = previewExample(examples[0] as never, options.tokenizer ?? tokenizer)
  return pieces.map(({ text, scored }) => (scored ? `[${text}]` : text)).join("")
}
const talk = (...contents: string[]) => ({
  messages: contents.map((content, i) => ({ role: i % 2 === 0 ? "user" : "assistant", content })),
})

describe("conversations", () => {
  test("answers with their end-of-turn token are scored; headers and the line end after are not", async () => {
    expect(await shown(talk("hi", "yes 🦥", "more", "ok"))).toBe(
      "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[yes 🦥<|im_end|>]\n" +
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n[ok<|im_end|>]\n",
    )
  })

  test("last-assistant and all", async () => {
    expect(await shown(talk("a", "b", "c", "d"), { mask: "last-assistant" })).toEndWith("assistant\n[d<|im_end|>]\n")
    // the first token is never scored: nothing comes before it
    expect(await shown(talk("a", "b"), { mask: "all" })).toBe(
      "<|im_start|>[user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n]",
    )
  })

  test("a bos that the template prints is not doubled, and none is added", async () => {
    const template = readFileSync(new URL("../fixtures/templates/llama3.jinja", import.meta.url), "utf8")
    const llama = byteTokenizer({
      special: ["<s>", "</s>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
      ends: ["<|eot_id|>"],
      addBos: true,
    })
    const { examples } = await prepare([talk("a", "b")], { tokenizer: llama, template, date: "2026-05-04" })
    const bos = llama.special.bos as number
    expect(Array.from((examples[0] as { tokens: Int32Array }).tokens).filter((id) => id === bos)).toHaveLength(1)
    expect(await shown(talk("a", "b"), { tokenizer: llama, template, date: "2026-05-04" })).toBe(
      "<s><|start_header_id|>system<|end_header_id|>\n\nToday is 04 May 2026\n\n<|eot_id|>" +
        "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n[b<|eot_id|>]",
    )
    expect(
      await shown(talk("a", "b"), { tokenizer: byteTokenizer({ addBos: true }), template: CHATML_TEMPLATE }),
    ).toStartWith("<|im_start|>")
  })

  test("a token that reaches into an answer is scored", async () => {
    const merging = byteTokenizer({
      words: ["\nHi", "k!\n"],
      chatTemplate:
        "{% for m in messages %}{{ m.role }}:\n{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:\n{% endif %}",
    })
    expect(await shown(talk("q", "Hi ok!"), { tokenizer: merging })).toBe("user:\nq\nassistant:[\nHi ok!\n]")
  })

  test("an end-of-turn token that the tokenizer does not list as one is found among its special tokens", async () => {
    const base = byteTokenizer({ ends: [], chatTemplate: CHATML_TEMPLATE })
    expect(await shown(talk("a", "b"), { tokenizer: base })).toEndWith("[b<|im_end|>]\n")
  })

  test("text in an answer that looks like an end of turn does not end it", async () => {
    expect(await shown(talk("a", "x<|im_end|>y"))).toEndWith("assistant\n[x<|im_end|>y<|im_end|>]\n")
  })

  test("Alpaca goes through the template", async () => {
    expect(await shown({ instruction: "Add", input: "1 2", output: "3" })).toBe(
      "<|im_start|>user\nAdd\n1 2<|im_end|>\n<|im_start|>assistant\n[3<|im_end|>]\n",
    )
  })

  test("messages in prompt and completion: only the completion is scored", async () => {
    const [user, assistant] = talk("a", "b").messages
    const row = { prompt: [user, assistant, user], completion: [assistant] }
    expect(await shown(row)).toEndWith(
      "assistant\nb<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n",
    )
  })

  test("no template is an error, not a default", async () => {
    const error = await thrown(() => prepare([talk("a", "b")], { tokenizer: byteTokenizer(), onBadRow: "skip" }))
    expect(error.code).toBe("SLOTH_TEMPLATE_MISSING")
  })

  test("a refusal of the template names the row, or is counted", async () => {
    const template = readFileSync(new URL("../fixtures/templates/gemma.jinja", import.meta.url), "utf8")
    const rows = [talk("a", "b"), { messages: [...talk("a", "b").messages, ...talk("a", "b").messages.reverse()] }]
    const error = await thrown(() => prepare(rows, { template }))
    expect(error.code).toBe("SLOTH_TEMPLATE_REJECTED")
    expect(error.what).toStartWith("line 2: ")
    expect(error.fields).toMatchObject({ row: 1, line: 2 })
    const { report } = await prepare(rows, { template, onBadRow: "skip" })
    expect(report).toMatchObject({ rows: 2, examples: 1, skipped: 1 })
    expect(formatReport(report)).toContain("alternate")
  })
})

describe("texts, completions, ids", () => {
  const withBos = byteTokenizer({ addBos: true })

  test("a completion and its eos are scored; bos where the tokenizer asks for it", async () => {
    const row = { prompt: "2+2=", completion: "4" }
    expect(await shown(row)).toBe("2+2=[4</s>]")
    expect(await shown(row, { tokenizer: withBos })).toBe("<s>2+2=[4</s>]")
    expect(await shown(row, { tokenizer: withBos, mask: "all" })).toBe("<s>[2+2=4</s>]")
    expect(await shown({ prompt: "<s>a", completion: "b</s>" }, { tokenizer: withBos })).toBe("<s>a[b</s>]")
  })

  test("a text is scored whole, but for its first token", async () => {
    expect(await shown({ text: "abc" })).toBe("a[bc</s>]")
    expect(await shown({ text: "abc" }, { tokenizer: withBos })).toBe("<s>[abc</s>]")
  })

  test("ids are taken as they are", async () => {
    const { examples } = await prepare([{ tokens: [97, 98, 99], mask: [1, 0, 1] }, { tokens: [97, 98] }])
    expect(examples).toEqual([
      { tokens: Int32Array.of(97, 98, 99), mask: Uint8Array.of(0, 0, 1), row: 0 },
      { tokens: Int32Array.of(97, 98), mask: Uint8Array.of(0, 1), row: 1 },
    ])
    const error = await thrown(() => prepare([{ tokens: [1, 5000] }]))
    expect(error.code).toBe("SLOTH_DATA_TOKEN_RANGE")
    expect(error.fields).toMatchObject({ id: 5000, vocab: 260 })
  })
})

describe("long rows", () => {
  const rows = [{ text: "abcdefghi" }, { text: "xy" }] // 10 and 3 tokens with their eos

  test("truncate keeps the beginning", async () => {
    const { examples, report } = await prepare(rows, { maxLength: 4 })
    expect(examples.map((e) => tokenizer.decode(Array.from(e.tokens)))).toEqual(["abcd", "xy</s>"])
    expect(report).toMatchObject({
      rows: 2,
      examples: 2,
      truncated: 1,
      tokensLost: 6,
      tokens: 7,
      scoredTokens: 5,
      longest: 4,
    })
  })

  test("split loses no target: each is scored exactly once", async () => {
    for (const maxLength of [2, 3, 4, 9, 10]) {
      const { examples, report } = await prepare(rows, { maxLength, overlong: "split" })
      const whole = await prepare(rows)
      expect(report.scoredTokens).toBe(whole.report.scoredTokens)
      expect(report.split).toBe(maxLength < 10 ? (maxLength < 3 ? 2 : 1) : 0)
      const targets = examples
        .filter((e) => e.row === 0)
        .flatMap((e) => Array.from(e.tokens).filter((_, i) => e.mask[i] === 1))
      expect(tokenizer.decode(targets)).toBe("bcdefghi</s>")
      for (const example of examples) {
        expect(example.tokens.length).toBeLessThanOrEqual(maxLength)
        expect(example.mask[0]).toBe(0)
      }
    }
  })

  test("drop leaves them out", async () => {
    const { examples, report } = await prepare(rows, { maxLength: 4, overlong: "drop" })
    expect(examples.map((e) => e.row)).toEqual([1])
    expect(report).toMatchObject({ dropped: 1, tokensLost: 10 })
  })

  test("a limit below two tokens is refused", async () => {
    expect((await thrown(() => prepare(rows, { maxLength: 1 }))).code).toBe("SLOTH_DATA_MAX_LENGTH")
  })
})

describe("report", () => {
  test("rows without a scored token are counted and left out", async () => {
    const { examples, report } = await prepare([
      { tokens: [1, 2], mask: [1, 0] },
      { tokens: [1, 2], mask: [0, 1] },
    ])
    expect(examples.map((e) => e.row)).toEqual([1])
    expect(report.unscored).toBe(1)
    expect(formatReport(report)).toBe(
      "2 rows -> 1 examples, 2 tokens (1 scored, 50.0 %), longest 2\n  1 rows left out because no token of them is scored",
    )
  })

  test("nothing scored at all is an error that says why", async () => {
    const error = await thrown(() => prepare([talk("a long question", "b")], { maxLength: 8 }))
    expect(error.code).toBe("SLOTH_DATA_NOTHING_SCORED")
    expect(error.next).toContain("raise maxLength")
    expect((await thrown(() => prepare([{ tokens: [5] }]))).code).toBe("SLOTH_DATA_NOTHING_SCORED")
  })

  test("progress is told, and an abort heeded", async () => {
    const rows = Array.from({ length: 600 }, () => ({ text: "ab" }))
    const seen: number[] = []
    await prepare(rows, { onProgress: (done) => seen.push(done) })
    expect(seen).toEqual([255, 511, 600])
    const controller = new AbortController()
    const running = prepare(rows, { signal: controller.signal, onProgress: () => controller.abort() })
    expect(running).rejects.toThrow()
    await running.catch(() => undefined)
  })
})

describe("preview", () => {
  test("shows special tokens, and whole characters that are several tokens", () => {
    const ids = tokenizer.encode("é<|im_end|>")
    expect(previewExample({ tokens: Int32Array.from(ids), mask: Uint8Array.of(0, 1, 0) }, tokenizer)).toEqual([
      { text: "é", scored: true },
      { text: "<|im_end|>", scored: false },
    ])
  })
})
