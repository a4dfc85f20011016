import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja"
import { SlothError } from "@sloth/core"
import { strftime } from "./internal/strftime.ts"
import type { ChatMessage } from "./rows.ts"

/**
 * A plain ChatML template, for models that bring none. It is never used by itself: pass it as the `template` where you want it.
 * The tokenizer should know `<|im_start|>` and `<|im_end|>` as special tokens, else the model must learn them as ordinary text.
 */
export const CHATML_TEMPLATE =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}" +
  "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

/** What a chat template can see besides the messages. */
export interface RenderOptions {
  /** Print the header of the next assistant turn at the end. */
  readonly addGenerationPrompt?: boolean
  /** Tool definitions, as the template's `tools`. */
  readonly tools?: readonly unknown[]
  /** Text of special tokens, as the template's `bos_token`, `eos_token`, `pad_token` and `unk_token`. */
  readonly bosToken?: string
  readonly eosToken?: string
  readonly padToken?: string
  readonly unkToken?: string
  /** The date that `strftime_now` prints: `YYYY-MM-DD`, or a Date read in UTC. Without it: now. */
  readonly date?: string | Date
  /** Further variables, such as `enable_thinking`. */
  readonly variables?: Readonly<Record<string, unknown>>
}

/** A parsed chat template. */
export interface ChatTemplate {
  readonly source: string
  /** True if the source marks the text of assistant turns by `{% generation %}` blocks. */
  readonly hasGenerationBlocks: boolean
  /** True if the text depends on the day it is rendered, unless `date` pins it. */
  readonly usesDate: boolean
  /** Renders a conversation. Errors: `SLOTH_TEMPLATE_REJECTED` (raise_exception), `SLOTH_TEMPLATE_RENDER`. */
  render(messages: readonly ChatMessage[], options?: RenderOptions): string
  /** As `render`, with the given texts printed where a generation block starts and ends. */
  renderMarked(messages: readonly ChatMessage[], options: RenderOptions, open: string, close: string): string
}

const generationTag = /\{%(-?)\s*(end)?generation\s*(-?)%\}/g

type Program = ReturnType<typeof parse>

const parseTemplate = (source: string): Program => {
  try {
    // Jinja reads every kind of line end as \n.
    return parse(tokenize(source.replace(/\r\n?/g, "\n"), { trim_blocks: true, lstrip_blocks: true }))
  } catch (cause) {
    throw new SlothError("SLOTH_TEMPLATE_SYNTAX", {
      what: "The chat template cannot be parsed.",
      why: `${cause instanceof Error ? cause.message : String(cause)}.`,
      next: "Check the template of the model's tokenizer, or pass another one by the template option.",
      fields: { template: source.slice(0, 2000) },
      cause,
    })
  }
}

/** Thrown inside the engine by `raise_exception`, so that it is told apart from the engine's own errors. */
class Raised extends Error {}

/** Reads the `date` option. Errors: `SLOTH_TEMPLATE_DATE`. */
export const parseDate = (date: string | Date): Date => {
  const parsed = typeof date === "string" ? new Date(date) : date
  if (!Number.isNaN(parsed.getTime())) return parsed
  throw new SlothError("SLOTH_TEMPLATE_DATE", {
    what: `"${String(date)}" is no date.`,
    next: "Write it as YYYY-MM-DD, such as 2026-01-31.",
    fields: { date: String(date) },
  })
}

const pythonRange = (first: number, second?: number | null, step?: number | null): number[] => {
  const [start, stop] = second === undefined || second === null ? [0, first] : [first, second]
  const by = step ?? 1
  if (by === 0) throw new Error("range() step must not be zero")
  const result: number[] = []
  for (let i = start; by > 0 ? i < stop : i > stop; i += by) result.push(i)
  return result
}

const execute = (program: Program, messages: readonly ChatMessage[], options: RenderOptions): string => {
  const variables: Record<string, unknown> = {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    range: pythonRange,
    raise_exception: (message: unknown) => {
      throw new Raised(String(message))
    },
    strftime_now: (format: string) =>
      strftime(options.date === undefined ? new Date() : parseDate(options.date), String(format)),
    ...(options.bosToken === undefined ? {} : { bos_token: options.bosToken }),
    ...(options.eosToken === undefined ? {} : { eos_token: options.eosToken }),
    ...(options.padToken === undefined ? {} : { pad_token: options.padToken }),
    ...(options.unkToken === undefined ? {} : { unk_token: options.unkToken }),
    documents: null,
    ...options.variables,
    messages,
    tools: options.tools ?? null,
    add_generation_prompt: options.addGenerationPrompt ?? false,
  }
  const environment = new Environment()
  if ("namespace" in variables) {
    // The engine declares this name itself and cannot declare it twice; leaving the value out silently would be worse.
    throw new SlothError("SLOTH_TEMPLATE_VARIABLE", {
      what: 'A template variable cannot be named "namespace".',
      why: "It is the name of a function of the template language.",
      next: "Give the variable another name.",
    })
  }
  for (const [name, value] of Object.entries(variables)) environment.set(name, value)
  try {
    const text = (new Interpreter(environment).run(program) as { value: string }).value
    // The engine has no text form for an object, and this one would be learnt.
    if (text.includes("[object Map]") && !JSON.stringify([messages, variables["tools"]]).includes("[object Map]")) {
      throw new Error("it prints an object as if it were text")
    }
    return text
  } catch (cause) {
    if (cause instanceof SlothError) throw cause
    const message = cause instanceof Error ? cause.message : String(cause)
    throw cause instanceof Raised
      ? new SlothError("SLOTH_TEMPLATE_REJECTED", {
          what: `The chat template refuses this conversation: ${message}`,
          next: "Change the conversation to what the model's template allows, or pass another template.",
          fields: { reason: message },
          cause,
        })
      : new SlothError("SLOTH_TEMPLATE_RENDER", {
          what: "The chat template failed on this conversation.",
          why: `${message}.`,
          next: "Check that the messages have what the template reads (tools, tool calls), or pass another template.",
          fields: { reason: message, roles: messages.map((m) => m.role) },
          cause,
        })
  }
}

/**
 * Parses a chat template (jinja). The environment is that of transformers: blocks trimmed (`trim_blocks`, `lstrip_blocks`), `tojson`,
 * `raise_exception`, `strftime_now`, loop controls, `{% generation %}`. Errors: `SLOTH_TEMPLATE_SYNTAX`.
 * Source: Hugging Face transformers 4.x, `utils/chat_template_utils.py`; the engine is `@huggingface/jinja`.
 */
export const compileChatTemplate = (source: string): ChatTemplate => {
  const program = parseTemplate(source)
  const marked = new Map<string, Program>()
  const hasGenerationBlocks = source.search(generationTag) >= 0
  const markedProgram = (open: string, close: string): Program => {
    const key = `${open}\n${close}`
    let found = marked.get(key)
    if (found === undefined) {
      // A statement in the tag's place keeps every rule on white space around it, which an expression would not.
      const text = source.replace(
        generationTag,
        (_tag, before: string, end: string | undefined, after: string) =>
          `{%${before} if true %}${end === undefined ? open : close}{% endif ${after}%}`,
      )
      found = parseTemplate(text)
      marked.set(key, found)
    }
    return found
  }
  return Object.freeze({
    source,
    hasGenerationBlocks,
    usesDate: source.includes("strftime_now"),
    render: (messages: readonly ChatMessage[], options: RenderOptions = {}) => execute(program, messages, options),
    renderMarked: (messages: readonly ChatMessage[], options: RenderOptions, open: string, close: string) =>
      execute(markedProgram(open, close), messages, options),
  })
}

const compiled = new Map<string, ChatTemplate>()

/** As {@link compileChatTemplate}, but remembers the last few templates. */
export const chatTemplateOf = (template: string | ChatTemplate): ChatTemplate => {
  if (typeof template !== "string") return template
  let found = compiled.get(template)
  if (found === undefined) {
    found = compileChatTemplate(template)
    if (compiled.size >= 16) compiled.delete(compiled.keys().next().value as string)
    compiled.set(template, found)
  }
  return found
}

/**
 * Renders a conversation by a chat template (its source, or a compiled one).
 * Errors: `SLOTH_TEMPLATE_SYNTAX`, `SLOTH_TEMPLATE_REJECTED`, `SLOTH_TEMPLATE_RENDER`, `SLOTH_TEMPLATE_DATE`.
 */
export const renderChat = (
  template: string | ChatTemplate,
  messages: readonly ChatMessage[],
  options: RenderOptions = {},
): string => chatTemplateOf(template).render(messages, options)
