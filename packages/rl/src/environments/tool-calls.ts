/** A call that the model asks for. */
export interface ToolCall {
  readonly name: string
  readonly arguments: Readonly<Record<string, unknown>>
}

/** What an assistant says, taken apart. */
export interface ParsedTurn {
  /** The text around the calls. */
  readonly content: string
  readonly calls: readonly ToolCall[]
  /** Why each text that looks like a call is none, to be told to the model. */
  readonly malformed: readonly string[]
}

/**
 * How a model writes tool calls. "hermes": JSON between `<tool_call>` tags, as Qwen and Hermes do; "llama3": the whole turn is JSON with `name` and
 * `parameters`, several divided by semicolons, `<|python_tag|>` before it allowed; "mistral": `[TOOL_CALLS]` and a JSON list.
 */
export type ToolCallFormat = "hermes" | "llama3" | "mistral"

/** The format that a chat template prints; "hermes" where it shows none. */
export const toolCallFormat = (template: string): ToolCallFormat => {
  if (template.includes("<tool_call>")) return "hermes"
  if (template.includes("[TOOL_CALLS]")) return "mistral"
  if (
    template.includes("<|python_tag|>") ||
    (template.includes("<|start_header_id|>") && template.includes('"parameters"'))
  )
    return "llama3"
  return "hermes"
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** A call from its JSON, or why it is none. */
const callOf = (value: unknown): ToolCall | string => {
  if (!isRecord(value)) return "A tool call is a JSON object."
  const inner = isRecord(value["function"]) ? value["function"] : value
  const { name } = inner
  if (typeof name !== "string" || name === "") return 'A tool call needs a "name".'
  let given: unknown = inner["arguments"] ?? inner["parameters"] ?? {}
  if (typeof given === "string") {
    try {
      given = JSON.parse(given) as unknown
    } catch {
      return `The arguments of "${name}" are no JSON.`
    }
  }
  return isRecord(given) ? { name, arguments: given } : `The arguments of "${name}" are no JSON object.`
}

const collect = (texts: readonly string[]): Pick<ParsedTurn, "calls" | "malformed"> => {
  const calls: ToolCall[] = []
  const malformed: string[] = []
  for (const text of texts) {
    let parsed: unknown
    try {
      parsed = JSON.parse(text)
    } catch {
      malformed.push("A tool call holds JSON that cannot be read.")
      continue
    }
    for (const value of Array.isArray(parsed) ? (parsed as unknown[]) : [parsed]) {
      const call = callOf(value)
      if (typeof call === "string") malformed.push(call)
      else calls.push(call)
    }
  }
  return { calls, malformed }
}

/** JSON objects that follow each other, divided by semicolons or white space. */
const objects = (text: string): string[] => {
  const found: string[] = []
  let [depth, start, quoted] = [0, 0, false]
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!
    if (quoted) {
      if (c === "\\") i++
      else if (c === '"') quoted = false
    } else if (c === '"') quoted = true
    else if (c === "{" && depth++ === 0) start = i
    else if (c === "}" && --depth === 0) found.push(text.slice(start, i + 1))
  }
  if (depth > 0) found.push(text.slice(start))
  return found
}

/** Takes what an assistant says apart. Thoughts (`<think>...</think>`) hold no calls. */
export const parseTurn = (text: string, format: ToolCallFormat): ParsedTurn => {
  const end = text.lastIndexOf("</think>")
  const thoughts = end < 0 ? "" : text.slice(0, end + "</think>".length)
  const said = text.slice(thoughts.length)
  if (format === "hermes") {
    const pattern = /<tool_call>([\s\S]*?)(?:<\/tool_call>|(?=<tool_call>)|$)/g
    const found = [...said.matchAll(pattern)].map((match) => match[1]!.trim())
    return { content: (thoughts + said.replace(pattern, "")).trim(), ...collect(found) }
  }
  if (format === "mistral") {
    const at = said.indexOf("[TOOL_CALLS]")
    const list = at >= 0 ? said.slice(at + "[TOOL_CALLS]".length) : /^\s*\[\s*\{/.test(said) ? said : undefined
    if (list === undefined) return { content: text.trim(), calls: [], malformed: [] }
    return { content: (thoughts + (at >= 0 ? said.slice(0, at) : "")).trim(), ...collect([list.trim()]) }
  }
  const body = said.replace(/^\s*<\|python_tag\|>/, "").trim()
  // Anything else is an answer, also one that ends in JSON.
  if (!/^\{\s*"(?:name|type|function)"/.test(body)) return { content: text.trim(), calls: [], malformed: [] }
  return { content: thoughts.trim(), ...collect(objects(body)) }
}
