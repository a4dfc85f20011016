import type { ChatMessage } from "@sloth/data"
import type {
  Completion,
  GenerateEvent,
  GenerateRequest,
  GeneratorOptions,
  KvCacheFormat,
  SamplingOptions,
  Speculation,
} from "@sloth/infer"
import { requireFinite } from "./finite.ts"
import type { OpenedModel } from "./opened-model.ts"
import { promptTokens, type Prompt, type PromptOptions } from "./prompt.ts"

/** How the engine generates; none of it changes what is said, but for the rounding of a smaller cache. */
export interface EngineSettings {
  /** False generates with the base model of an adapter. */
  readonly adapters?: boolean
  /** How keys and values are kept: f32 (exact), f16 or q8_0. */
  readonly kvCache?: KvCacheFormat
  /**
   * Guesses tokens and checks several in one pass: `"lookup"` guesses what stood in the text before; a smaller model with the same tokenizer, opened or as `open` takes it,
   * guesses what it would say itself.
   */
  readonly speculate?: "lookup" | (string & {}) | OpenedModel | Speculation
}

/** What to generate and how; sampling is greedy and at most 256 tokens long unless said otherwise. */
export interface GenerateOptions extends PromptOptions, Partial<SamplingOptions>, EngineSettings {
  /** One prompt or several; see {@link Prompt}. */
  readonly prompt: Prompt
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
  "stopTokens",
  "ignoreEnd",
] as const satisfies readonly (keyof SamplingOptions)[]

/** The sampling options among others. */
export const samplingOf = (options: Partial<SamplingOptions>): Partial<SamplingOptions> =>
  Object.fromEntries(samplingKeys.flatMap((key) => (options[key] === undefined ? [] : [[key, options[key]]])))

/** Settings of a generator, with the draft model open. */
export type ReadyEngine = Pick<GeneratorOptions, "adapters" | "kvCache" | "speculate">

/** Opens the draft model that `speculate` names; `close` frees it again. Errors: those of `open`. */
export const readyEngine = async (
  { adapters, kvCache, speculate }: EngineSettings,
  open: (spec: string) => Promise<OpenedModel>,
): Promise<{ readonly engine: ReadyEngine; readonly close: () => void }> => {
  const engine = { adapters: adapters ?? true, kvCache }
  const draft = ({ model, tokenizer }: OpenedModel): Speculation => ({ kind: "draft", model, tokenizer })
  if (speculate === undefined) return { engine, close: () => undefined }
  if (typeof speculate !== "string")
    return {
      engine: { ...engine, speculate: "kind" in speculate ? speculate : draft(speculate) },
      close: () => undefined,
    }
  if (speculate === "lookup") return { engine: { ...engine, speculate: { kind: "lookup" } }, close: () => undefined }
  const opened = await open(speculate)
  return { engine: { ...engine, speculate: draft(opened) }, close: () => opened.dispose() }
}

/** The texts of one call: tokens as they come, then the finished completion. */
export async function* streamCompletion(
  opened: OpenedModel,
  options: Omit<GenerateOptions, keyof EngineSettings>,
  engine: ReadyEngine = {},
): AsyncGenerator<GenerateEvent, Completion, undefined> {
  const { Generator } = await import("@sloth/infer")
  const prompt = await promptTokens(opened.tokenizer, options.prompt, options)
  using generator = new Generator(opened.model, opened.tokenizer, { ...engine, maxBatch: 1 })
  const request: GenerateRequest = { prompt, options: samplingOf(options) }
  let completion: Completion | undefined
  for await (const event of generator.stream([request], { signal: options.signal })) {
    if (event.type === "finish") {
      completion = event.completion
      await requireFinite(opened, completion.logprobs)
    }
    yield event
  }
  return completion!
}

/** Several prompts at once, in their order, computed as one batch. */
export const completeAll = async (
  opened: OpenedModel,
  prompts: readonly Prompt[],
  options: Omit<GenerateOptions, "prompt" | "speculate"> & { readonly speculate?: Speculation } = {},
): Promise<Completion[]> => {
  const { Generator } = await import("@sloth/infer")
  const requests = await Promise.all(
    prompts.map(async (prompt) => ({
      prompt: await promptTokens(opened.tokenizer, prompt, options),
      options: samplingOf(options),
    })),
  )
  using generator = new Generator(opened.model, opened.tokenizer, {
    adapters: options.adapters ?? true,
    kvCache: options.kvCache,
    speculate: options.speculate,
  })
  const completions = await generator.generate(requests, { signal: options.signal })
  for (const { logprobs } of completions) await requireFinite(opened, logprobs)
  return completions
}

/** Options of a chat. */
export interface ChatOptions extends Partial<SamplingOptions>, EngineSettings {
  /** System message at the start. */
  readonly system?: string
  /** Chat template source; the model's own when absent. */
  readonly template?: string
}

/** A conversation with a model: each turn only computes what is new. Dispose of it when done; the model stays open unless the chat opened it. */
export class Chat implements Disposable {
  readonly opened: OpenedModel
  readonly #options: ChatOptions
  readonly #engine: ReadyEngine
  readonly #release: () => void
  readonly #infer: typeof import("@sloth/infer")
  #generator: import("@sloth/infer").Generator
  #session: import("@sloth/infer").ChatSession

  private constructor(
    opened: OpenedModel,
    options: ChatOptions,
    engine: ReadyEngine,
    release: () => void,
    infer: typeof import("@sloth/infer"),
  ) {
    this.opened = opened
    this.#options = options
    this.#engine = engine
    this.#release = release
    this.#infer = infer
    this.#generator = this.#open()
    this.#session = new infer.ChatSession(this.#generator, options)
  }

  /** Starts a conversation; `release` is called when it is disposed of. */
  static async start(
    opened: OpenedModel,
    options: ChatOptions,
    engine: ReadyEngine,
    release: () => void = () => undefined,
  ): Promise<Chat> {
    return new Chat(opened, options, engine, release, await import("@sloth/infer"))
  }

  #open(): import("@sloth/infer").Generator {
    return new this.#infer.Generator(this.opened.model, this.opened.tokenizer, {
      ...this.#engine,
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
    this.#release()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}
