import { expect, test } from "bun:test"
import { parseTurn, toolCallFormat } from "./tool-calls.ts"

test("hermes: JSON between tags, text around, several, broken", () => {
  const text =
    'I look.\n<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>\n<tool_call>{"name": "b", "arguments": "{\\"x\\": 2}"}</tool_call>'
  expect(parseTurn(text, "hermes")).toEqual({
    content: "I look.",
    calls: [
      { name: "add", arguments: { a: 1 } },
      { name: "b", arguments: { x: 2 } },
    ],
    malformed: [],
  })
  expect(parseTurn('<tool_call>{"name": "a", </tool_call>', "hermes").malformed).toHaveLength(1)
  expect(parseTurn('<tool_call>{"arguments": {}}</tool_call>', "hermes").malformed).toEqual([
    'A tool call needs a "name".',
  ])
  expect(parseTurn('<tool_call>{"name": "a", "arguments": [1]}', "hermes").malformed).toHaveLength(1)
  expect(parseTurn('<think><tool_call>{"name": "a"}</tool_call></think>No.', "hermes").calls).toEqual([])
  expect(parseTurn("plain", "hermes")).toEqual({ content: "plain", calls: [], malformed: [] })
})

test("llama3: the whole turn is JSON", () => {
  const call = '{"name": "f", "parameters": {"text": "a } \\" {"}}'
  expect(parseTurn(call, "llama3").calls).toEqual([{ name: "f", arguments: { text: 'a } " {' } }])
  expect(parseTurn(`<|python_tag|>${call}; ${call}`, "llama3").calls).toHaveLength(2)
  expect(parseTurn(`So: ${call}`, "llama3").calls).toEqual([])
  expect(parseTurn('{"name": "f", "parameters": {', "llama3").malformed).toHaveLength(1)
  expect(parseTurn('{"answer": 1}', "llama3").content).toBe('{"answer": 1}')
})

test("mistral: a list behind its mark", () => {
  expect(parseTurn('[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g"}]', "mistral").calls).toEqual([
    { name: "f", arguments: { a: 1 } },
    { name: "g", arguments: {} },
  ])
  expect(parseTurn("no [brackets]", "mistral")).toEqual({ content: "no [brackets]", calls: [], malformed: [] })
})

test("the format is read from the template", () => {
  expect(toolCallFormat("... <tool_call> ...")).toBe("hermes")
  expect(toolCallFormat("[TOOL_CALLS]")).toBe("mistral")
  expect(toolCallFormat("<|start_header_id|> <|python_tag|>")).toBe("llama3")
  expect(toolCallFormat("{{ messages }}")).toBe("hermes")
})
