import { isSlothError, SlothError } from "@sloth/core"
import type { ScoredText } from "../response-spans.ts"
import type { ChatMessage } from "../rows.ts"

type Call = Record<string, unknown>
type Form = (message: ChatMessage) => ChatMessage

const isObject = (value: unknown): value is Call => typeof value === "object" && value !== null

const callsOf = (message: ChatMessage): readonly Call[] => {
  const calls = message["tool_calls"]
  return Array.isArray(calls) ? calls.filter(isObject) : []
}

const functionOf = (call: Call): Call => (isObject(call["function"]) ? call["function"] : call)

/** Nothing said beside the call: null as OpenAI writes it, or the empty text that some templates add to others. */
const otherEmpty: Form = (message) => {
  if (callsOf(message).length === 0) return message
  if (message.content === null) return { ...message, content: "" }
  return message.content === "" ? { ...message, content: null } : message
}

/** Arguments as a JSON text, for templates that paste them; most print an object with tojson. */
const textArguments: Form = (message) => {
  const calls = callsOf(message)
  if (calls.length === 0) return message
  const asText = (call: Call): Call =>
    isObject(call["arguments"]) ? { ...call, arguments: JSON.stringify(call["arguments"]) } : call
  const changed = calls.map((call) =>
    isObject(call["function"]) ? { ...call, function: asText(call["function"]) } : asText(call),
  )
  return { ...message, tool_calls: changed }
}

const forms: readonly Form[] = [
  (message) => message,
  otherEmpty,
  textArguments,
  (message) => otherEmpty(textArguments(message)),
]

/**
 * Renders a conversation with tool calls in the first form that the template prints: as given, then with the other way of writing an empty
 * content, then with the arguments as text. Each conversation is tried for itself, so that its text does not depend on those before it.
 * Errors: that of the first form, or `SLOTH_TEMPLATE_TOOLS` if no form shows the calls in the text.
 */
export const inPrintableForm = (
  messages: readonly ChatMessage[],
  find: (messages: readonly ChatMessage[]) => ScoredText,
): ScoredText => {
  const names = messages.flatMap((message) => callsOf(message).map((call) => functionOf(call)["name"]))
  let failure: SlothError | undefined
  for (const form of forms) {
    try {
      const found = find(messages.map(form))
      const missing = names.find((name) => typeof name === "string" && !found.text.includes(name))
      if (missing === undefined) return found
      failure ??= new SlothError("SLOTH_TEMPLATE_TOOLS", {
        what: `The chat template does not print the tool call of "${String(missing)}".`,
        why: "It knows nothing of tools, or drops the call when the message has a content too.",
        next: "Use a template that prints tool calls, or remove such rows.",
        fields: { name: missing },
      })
    } catch (error) {
      if (!isSlothError(error) || !error.code.startsWith("SLOTH_TEMPLATE_")) throw error
      failure ??= error
    }
  }
  throw failure
}
