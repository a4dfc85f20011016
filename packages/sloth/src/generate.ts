import type { ChatMessage } from "@sloth/data"
import type { Completion, GenerateEvent, GenerateRequest, SamplingOptions } from "@sloth/infer"
import type { OpenedModel } from "./opened-model.ts"
import { promptTokens, type Prompt, type PromptOptions } from "./prompt.ts"

/** What to generate and how; sampling is greedy and at most 256 tokens long unless said otherwise. */
export interface GenerateOptions extends PromptOptions, Partial<SamplingOptions> {
  /** One prompt or several; see {@link Prompt}. */
  readonly prompt: Prompt
  /** False generates with the base model of an adapter. */
  readonly adapters?: boolean
  readonly signal?: AbortSignal
}

const samplingKeys = [
  "maxTokens",
  "temperature",
  "topK",
  "topP",
  "minP",
  "repetitionPenalty",
  "seed",
  "stop",
  "ignoreEnd",
] as const satisfies readonly (keyof SamplingOptions)[]

/** The sampling options among others. */
export const samplingOf = (options: Partial<SamplingOptions>): Partial<SamplingOptions> =>
  Object.fromEntries(samplingKeys.flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])))

/** The texts of one call: tokens as they come, then the finished completion. */
export async function* streamCompletion(
  opened: OpenedModel,
  options: GenerateOptions,
): AsyncGenerator<GenerateEvent, Completion, undefined> {
  const { Generator } = await import("@sloth/infer")
  const prompt = await promptTokens(opened.tokenizer, options.prompt, options)
  using generator = new Generator(opened.model, opened.tokenizer, { adapters: options.adapters ?? true, maxBatch: 1 })
  const request: GenerateRequest = { prompt, options: samplingOf(options) }
  let completion: Completion | undefined
  for await (const event of generator.stream([request], { signal: options.signal })) {
    if (event.type === "finish") completion = event.completion
    yield event
  }
  return completion!
}

/** A finished completion. */
export const complete = async (opened: OpenedModel, options: GenerateOptions): Promise<Completion> => {
  const stream = streamCompletion(opened, options)
  for (;;) {
    const next = await stream.next()
    if (next.done === true) return next.value
  }
}

/** Several prompts at once, in their order, computed as one batch. */
export const completeAll = async (
  opened: OpenedModel,
  prompts: readonly Prompt[],
  options: Omit<GenerateOptions, "prompt"> = {},
): Promise<Completion[]> => {
  const { Generator } = await import("@sloth/infer")
  const requests = await Promise.all(
    prompts.map(async (prompt) => ({
      prompt: await promptTokens(opened.tokenizer, prompt, options),
      options: samplingOf(options),
    })),
  )
  using generator = new Generator(opened.model, opened.tokenizer, { adapters: options.adapters ?? true })
  return await generator.generate(requests, { signal: options.signal })
}

/** Options of a chat. */
export interface ChatOptions extends Partial<SamplingOptions> {
  /** System message at the start. */
  readonly system?: string
  /** Chat template source; the model's own when absent. */
  readonly template?: string
  /** False talks with the base model of an adapter. */
  readonly adapters?: boolean
}

/** A conversation with a model: each turn only computes what is new. Dispose of it when done; the model stays open unless the chat opened it. */
export class Chat implements Disposable {
  readonly opened: OpenedModel
  readonly #options: ChatOptions
  readonly #owns: boolean
  readonly #infer: typeof import("@sloth/infer")
  #generator: import("@sloth/infer").Generator
  #session: import("@sloth/infer").ChatSession

  private constructor(opened: OpenedModel, options: ChatOptions, owns: boolean, infer: typeof import("@sloth/infer")) {
    this.opened = opened
    this.#options = options
    this.#owns = owns
    this.#infer = infer
    this.#generator = this.#open()
    this.#session = new infer.ChatSession(this.#generator, options)
  }

  /** Starts a conversation; `owns` disposes of the model with it. */
  static async start(opened: OpenedModel, options: ChatOptions = {}, owns = false): Promise<Chat> {
    return new Chat(opened, options, owns, await import("@sloth/infer"))
  }

  #open(): import("@sloth/infer").Generator {
    return new this.#infer.Generator(this.opened.model, this.opened.tokenizer, {
      adapters: this.#options.adapters ?? true,
      maxBatch: 1,
    })
  }

  /** The conversation so far. */
  get messages(): readonly ChatMessage[] {
    return this.#session.messages
  }

  /** Says something and streams the answer. Errors: SLOTH_CHAT_TEMPLATE, SLOTH_GENERATE_*. */
  send(
    text: string,
    options: Partial<SamplingOptions> & { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<GenerateEvent, Completion, undefined> {
    return this.#session.send(text, { ...samplingOf(this.#options), ...samplingOf(options) }, options.signal)
  }

  /** Says something and waits for the whole answer. */
  async ask(
    text: string,
    options: Partial<SamplingOptions> & { readonly signal?: AbortSignal } = {},
  ): Promise<Completion> {
    const stream = this.send(text, options)
    for (;;) {
      const next = await stream.next()
      if (next.done === true) return next.value
    }
  }

  /** Forgets the conversation. */
  reset(): void {
    this.#generator[Symbol.dispose]()
    this.#generator = this.#open()
    this.#session = new this.#infer.ChatSession(this.#generator, this.#options)
  }

  dispose(): void {
    this.#generator[Symbol.dispose]()
    if (this.#owns) this.opened.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
