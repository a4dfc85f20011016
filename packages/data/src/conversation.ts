import { SlothError } from "@sloth/core"
import { describeOrigin } from "./rows.ts"
import type { ChatMessage, RowOrigin } from "./rows.ts"

/** Role names that other data sets use, with the name that chat templates know. */
const roleNames: Readonly<Record<string, string>> = Object.freeze({
  system: "system",
  developer: "developer",
  user: "user",
  human: "user",
  prompter: "user",
  assistant: "assistant",
  gpt: "assistant",
  bot: "assistant",
  model: "assistant",
  chatgpt: "assistant",
  tool: "tool",
  function: "tool",
  observation: "tool",
  function_response: "tool",
  ipython: "tool",
  function_call: "assistant",
})

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const bad = (origin: RowOrigin, code: `SLOTH_${string}`, what: string, next: string, fields = {}): SlothError =>
  new SlothError(code, {
    what: `${describeOrigin(origin)}: ${what}`,
    next,
    fields: { row: origin.index, file: origin.file, line: origin.line, ...fields },
  })

/**
 * Turns the messages of a row (OpenAI `role`/`content` or ShareGPT `from`/`value`) into {@link ChatMessage}s: role names are
 * made the common ones (`human` becomes `user`), content parts of text are joined, tool arguments become objects.
 * Consecutive messages of one role stay as they are. Errors: `SLOTH_DATA_MESSAGE`, `SLOTH_DATA_UNKNOWN_ROLE`,
 * `SLOTH_DATA_EMPTY_CONTENT`, `SLOTH_DATA_CONTENT_PART`, `SLOTH_DATA_NO_ASSISTANT`.
 */
export const normaliseMessages = (messages: readonly unknown[], origin: RowOrigin): ChatMessage[] => {
  if (messages.length === 0) {
    throw bad(origin, "SLOTH_DATA_MESSAGE", "the conversation has no messages.", "Remove the row.")
  }
  const result = messages.map((message, at) => normaliseMessage(message, at, origin))
  if (!result.some((message) => message.role === "assistant")) {
    throw bad(
      origin,
      "SLOTH_DATA_NO_ASSISTANT",
      "the conversation has no assistant message, so there is nothing to learn.",
      "Add the answer, or remove the row.",
    )
  }
  return result
}

const normaliseMessage = (message: unknown, at: number, origin: RowOrigin): ChatMessage => {
  if (!isObject(message)) {
    const what = `message ${at + 1} is not an object.`
    throw bad(origin, "SLOTH_DATA_MESSAGE", what, "Each message has a role and a content.", { message: at })
  }
  const { role: plainRole, from, content: plainContent, value, ...extra } = message
  const name = plainRole ?? from
  if (typeof name !== "string") {
    const what = `message ${at + 1} has no role (its keys: ${Object.keys(message).join(", ")}).`
    throw bad(origin, "SLOTH_DATA_MESSAGE", what, "Each message has a role and a content.", { message: at })
  }
  const lower = name.toLowerCase()
  const role = Object.hasOwn(roleNames, lower) ? roleNames[lower] : undefined
  if (role === undefined) {
    throw bad(
      origin,
      "SLOTH_DATA_UNKNOWN_ROLE",
      `message ${at + 1} has the unknown role "${name}".`,
      `Use one of ${Object.keys(roleNames).join(", ")}.`,
      { message: at, role: name },
    )
  }
  const content = contentOf(plainContent === undefined ? value : plainContent, at, origin)
  if (lower === "function_call") return functionCall(content ?? "", at, origin)
  const calls = callsOf(extra["tool_calls"])
  if (calls !== undefined) extra["tool_calls"] = calls
  // Data sets stored by column give every message every key; a null one means "not there" and templates test for that.
  for (const key of Object.keys(extra)) if (extra[key] === null || extra[key] === undefined) delete extra[key]
  const mayBeEmpty = role !== "user" && (role !== "assistant" || calls !== undefined)
  if (!mayBeEmpty && (content === null || content.trim() === "")) {
    throw bad(
      origin,
      "SLOTH_DATA_EMPTY_CONTENT",
      `message ${at + 1} (${role}) has no content.`,
      'Mend or remove the row, or skip such rows with onBadRow "skip".',
      { message: at, role },
    )
  }
  return { ...extra, role, content }
}

const contentOf = (content: unknown, at: number, origin: RowOrigin): string | null => {
  if (content === undefined || content === null) return null
  if (typeof content === "string") return content
  const next = 'The content is a string, or a list of { type: "text", text } parts.'
  if (!Array.isArray(content)) {
    throw bad(origin, "SLOTH_DATA_MESSAGE", `message ${at + 1} has a content that is no text.`, next, { message: at })
  }
  return content
    .map((part: unknown) => {
      if (typeof part === "string") return part
      if (isObject(part) && typeof part["text"] === "string" && (part["type"] ?? "text") === "text") return part["text"]
      const type = isObject(part) ? String(part["type"]) : typeof part
      throw bad(origin, "SLOTH_DATA_CONTENT_PART", `message ${at + 1} has a part of type "${type}".`, next, {
        message: at,
        type,
      })
    })
    .join("")
}

/** Tool calls with their arguments as objects: templates print them with `tojson`, and a string would be quoted twice. */
const callsOf = (calls: unknown): unknown[] | undefined => {
  if (!Array.isArray(calls) || calls.length === 0) return undefined
  return calls.map((call: unknown) => {
    if (!isObject(call)) return call
    const inner = call["function"]
    if (isObject(inner)) return { ...call, function: { ...inner, arguments: parsed(inner["arguments"]) } }
    return "arguments" in call ? { ...call, arguments: parsed(call["arguments"]) } : call
  })
}

const parsed = (value: unknown): unknown => {
  if (typeof value !== "string") return value
  try {
    const object: unknown = JSON.parse(value)
    return isObject(object) ? object : value
  } catch {
    return value
  }
}

const functionCall = (text: string, at: number, origin: RowOrigin): ChatMessage => {
  const call = parsed(text)
  if (!isObject(call) || typeof call["name"] !== "string") {
    throw bad(
      origin,
      "SLOTH_DATA_MESSAGE",
      `message ${at + 1} (function_call) holds no call.`,
      'Its value is JSON: {"name": ..., "arguments": {...}}.',
      { message: at },
    )
  }
  const { name, arguments: args } = call
  return {
    role: "assistant",
    content: null,
    tool_calls: [{ type: "function", function: { name, arguments: parsed(args) ?? {} } }],
  }
}
