import { describe, expect, test } from "bun:test"
import { thrown } from "../fixtures/thrown.ts"
import { recognise } from "./recognise.ts"
import type { ConversationRow, SourceRow } from "./rows.ts"

const source = (...rows: unknown[]): SourceRow[] => rows.map((row, i) => ({ row, line: i + 1, file: "d.jsonl" }))
const messagesOf = (row: unknown) => {
  const data = recognise(source(row)).rows[0] as ConversationRow
  return data.messages
}
const user = { role: "user", content: "hi" }
const assistant = { role: "assistant", content: "hello" }

describe("kinds", () => {
  test("messages, with content parts and extra fields", () => {
    const row = {
      messages: [
        {
          role: "user",
          content: [
            { type: "text", text: "a" },
            { type: "text", text: "b" },
          ],
        },
        { role: "assistant", content: "c", reasoning_content: "why", name: null },
      ],
      source: "web",
    }
    const found = recognise(source(row))
    expect(found.kind).toBe("messages")
    expect(found.unused).toEqual(["source"])
    expect(found.statement).toBe('Recognised 1 row of conversations (messages): "messages". Not used: "source".')
    expect(messagesOf(row)).toEqual([
      { role: "user", content: "ab" },
      { role: "assistant", content: "c", reasoning_content: "why" },
    ])
  })

  test("ShareGPT, with other role names and a system column", () => {
    const row = {
      system: "be kind",
      conversations: [
        { from: "human", value: "q" },
        { from: "function_call", value: '{"name":"f","arguments":{"a":1}}' },
        { from: "observation", value: "r" },
        { from: "gpt", value: "a" },
      ],
    }
    expect(recognise(source(row)).kind).toBe("sharegpt")
    expect(messagesOf(row)).toEqual([
      { role: "system", content: "be kind" },
      { role: "user", content: "q" },
      {
        role: "assistant",
        content: null,
        tool_calls: [{ type: "function", function: { name: "f", arguments: { a: 1 } } }],
      },
      { role: "tool", content: "r" },
      { role: "assistant", content: "a" },
    ])
  })

  test("Alpaca, with input, system and history", () => {
    const row = { instruction: "Add.", input: "1 2", output: "3", system: "s", history: [["q", "a"]] }
    expect(recognise(source(row)).kind).toBe("alpaca")
    expect(messagesOf(row)).toEqual([
      { role: "system", content: "s" },
      { role: "user", content: "q" },
      { role: "assistant", content: "a" },
      { role: "user", content: "Add.\n1 2" },
      { role: "assistant", content: "3" },
    ])
    expect(messagesOf({ instruction: "Say hi", input: "", output: "hi" })[0]).toEqual({
      role: "user",
      content: "Say hi",
    })
  })

  test("prompt and completion, as texts and as messages", () => {
    const text = recognise(source({ question: "q", answer: "a" }))
    expect(text.columns).toEqual({ prompt: "question", completion: "answer" })
    expect(text.statement).toContain('prompt from "question", completion from "answer"')
    expect(text.rows[0]).toMatchObject({ kind: "completion", prompt: "q", completion: "a" })
    expect(messagesOf({ prompt: [user, assistant, user], completion: [assistant] })).toEqual([
      { ...user, weight: 0 },
      { ...assistant, weight: 0 },
      { ...user, weight: 0 },
      assistant,
    ])
  })

  test("text and token ids, with a mask or with labels", () => {
    expect(recognise(source({ text: "t" })).rows[0]).toMatchObject({ kind: "text", text: "t" })
    expect(recognise(source({ tokens: [1, 2], mask: [0, 1] })).rows[0]).toMatchObject({ tokens: [1, 2], mask: [0, 1] })
    expect(recognise(source({ input_ids: [1, 2], labels: [-100, 2] })).rows[0]).toMatchObject({
      kind: "tokens",
      tokens: [1, 2],
      mask: [0, 1],
    })
    expect(recognise(source({ tokens: [7] })).rows[0]).not.toHaveProperty("mask")
  })

  test("lists written as text, as tables hold them", () => {
    expect(messagesOf({ messages: JSON.stringify([user, assistant]), tools: "" })).toEqual([user, assistant])
    const row = recognise(source({ messages: JSON.stringify([user, assistant]), tools: '[{"name":"f"}]' })).rows[0]
    expect((row as ConversationRow).tools).toEqual([{ name: "f" }])
  })

  test("tool call arguments written as text become objects", () => {
    const call = { type: "function", function: { name: "f", arguments: '{"x":1}' } }
    const messages = messagesOf({ messages: [user, { role: "assistant", content: null, tool_calls: [call] }] })
    expect(messages[1]).toMatchObject({ content: null, tool_calls: [{ function: { name: "f", arguments: { x: 1 } } }] })
  })

  test("consecutive messages of one role stay", () => {
    expect(messagesOf({ messages: [user, user, assistant, assistant] })).toHaveLength(4)
  })

  test("an optional column missing from some rows does not make them another kind", () => {
    const found = recognise(source({ instruction: "a", output: "b" }, { instruction: "a", input: "i", output: "b" }))
    expect(found.columns).toEqual({ instruction: "instruction", input: "input", output: "output" })
  })
})

describe("columns option", () => {
  test("maps other names", () => {
    const rows = source({ q: "Q", a: "A", text: "no" })
    const found = recognise(rows, { columns: { prompt: "q", completion: "a" } })
    expect(found.rows[0]).toMatchObject({ kind: "completion", prompt: "Q", completion: "A" })
    expect(found.unused).toEqual(["text"])
    expect(recognise(source({ body: "B" }), { columns: { text: "body" } }).rows[0]).toMatchObject({ text: "B" })
    expect(
      recognise(source({ chosen: [user, assistant], rejected: [user] }), { columns: { messages: "chosen" } }).kind,
    ).toBe("messages")
  })

  test("refuses columns that are not there, and mappings that decide nothing", async () => {
    const missing = await thrown(() => recognise(source({ a: 1 }), { columns: { text: "body" } }))
    expect(missing.code).toBe("SLOTH_DATA_COLUMN")
    expect(missing.message).toContain('"a"')
    const half = await thrown(() => recognise(source({ q: "x" }), { columns: { prompt: "q" } }))
    expect(half.message).toContain('no column for "completion"')
    expect((await thrown(() => recognise(source({ q: "x" }), { columns: { system: "q" } }))).code).toBe(
      "SLOTH_DATA_COLUMN",
    )
  })
})

describe("bad rows", () => {
  const codeOf = async (...rows: unknown[]) => (await thrown(() => recognise(source(...rows)))).code

  test("each has its code", async () => {
    expect(await codeOf()).toBe("SLOTH_DATA_EMPTY")
    expect(await codeOf({ foo: 1 })).toBe("SLOTH_DATA_UNRECOGNISED")
    expect(await codeOf("text")).toBe("SLOTH_DATA_UNRECOGNISED")
    expect(await codeOf({ prompt: "p", chosen: "a", rejected: "b" })).toBe("SLOTH_DATA_NOT_FOR_SFT")
    expect(await codeOf({ prompt: "p", completion: "c", label: false })).toBe("SLOTH_DATA_NOT_FOR_SFT")
    expect(await codeOf({ prompt: "p" })).toBe("SLOTH_DATA_NOT_FOR_SFT")
    expect(await codeOf({ messages: [] })).toBe("SLOTH_DATA_MESSAGE")
    expect(await codeOf({ messages: [{ content: "x" }] })).toBe("SLOTH_DATA_MESSAGE")
    expect(await codeOf({ messages: [{ role: "user", content: 7 }, assistant] })).toBe("SLOTH_DATA_MESSAGE")
    expect(await codeOf({ messages: [{ role: "narrator", content: "x" }, assistant] })).toBe("SLOTH_DATA_UNKNOWN_ROLE")
    expect(await codeOf({ messages: [{ role: "constructor", content: "x" }] })).toBe("SLOTH_DATA_UNKNOWN_ROLE")
    expect(await codeOf({ messages: [user, { role: "assistant", content: " " }] })).toBe("SLOTH_DATA_EMPTY_CONTENT")
    expect(await codeOf({ messages: [user] })).toBe("SLOTH_DATA_NO_ASSISTANT")
    const image = { role: "user", content: [{ type: "image", url: "x" }] }
    expect(await codeOf({ messages: [image, assistant] })).toBe("SLOTH_DATA_CONTENT_PART")
    expect(await codeOf({ tokens: [1, 2.5] })).toBe("SLOTH_DATA_FIELD")
    expect(await codeOf({ tokens: [1, -2] })).toBe("SLOTH_DATA_FIELD")
    expect(await codeOf({ tokens: [1, 2], mask: [1] })).toBe("SLOTH_DATA_FIELD")
    expect(await codeOf({ input_ids: [1, 2], labels: [-100, 3] })).toBe("SLOTH_DATA_FIELD")
    expect(await codeOf({ text: 5 })).toBe("SLOTH_DATA_FIELD")
  })

  test("rows of mixed kinds are named with their lines", async () => {
    const error = await thrown(() => recognise(source({ text: "a" }, { prompt: "p", completion: "c" }, { text: "b" })))
    expect(error.code).toBe("SLOTH_DATA_MIXED_KINDS")
    expect(error.message).toContain(
      "raw text at d.jsonl line 1, d.jsonl line 3; prompts with completions at d.jsonl line 2",
    )
  })

  test("messages name file and line", async () => {
    const error = await thrown(() => recognise(source({ messages: [user, assistant] }, { messages: [user] })))
    expect(error.what).toStartWith("d.jsonl line 2: ")
    expect(error.fields).toMatchObject({ row: 1, line: 2, file: "d.jsonl" })
  })

  test("can be left out and counted", () => {
    const found = recognise(source({ messages: [user] }, { messages: [user, assistant] }), { onBadRow: "skip" })
    expect(found.rows).toHaveLength(1)
    expect(found.rows[0]?.origin.index).toBe(1)
    expect(found.skipped[0]?.reason).toContain("line 1")
    expect(found.statement).toContain("Left out as faulty: 1.")
  })

  test("all faulty is an error even then", async () => {
    expect((await thrown(() => recognise(source({ messages: [user] }), { onBadRow: "skip" }))).code).toBe(
      "SLOTH_DATA_EMPTY",
    )
  })
})
