import { SlothError } from "@sloth/core"
import type { CausalLM, StreamDecoder, Tokenizer } from "@sloth/model"
import { gatherRows, type Tensor } from "@sloth/tensor"
import { cachedContext, type CachedRows } from "./cached-context.ts"
import { headLogits, PassPrograms } from "./internal/pass-programs.ts"
import { PagedCache, type CachedSequence, type KvCacheFormat } from "./paged-cache.ts"
import { samplingOptions, samplingRow, StopFinder, type SamplingOptions } from "./sampling.ts"

/** Why a completion ended. */
export type FinishReason = "end" | "stop" | "length" | "context" | "aborted"

/** A finished completion. */
export interface Completion {
  readonly tokens: readonly number[]
  /** Decoded text, special tokens and stop texts left out. */
  readonly text: string
  /** log softmax of the untouched logits at each token, in nats. */
  readonly logprobs: readonly number[]
  readonly finish: FinishReason
  readonly promptTokens: number
  /** Seconds from the request to its first token. */
  readonly firstTokenSeconds: number
  /** Tokens after the first, divided by the seconds they took. */
  readonly tokensPerSecond: number
}

/** What happens while completions grow. */
export type GenerateEvent =
  | {
      readonly type: "token"
      readonly request: number
      readonly id: number
      readonly logprob: number
      readonly text: string
    }
  | { readonly type: "finish"; readonly request: number; readonly text: string; readonly completion: Completion }

/** A text to continue. */
export interface GenerateRequest {
  readonly prompt: readonly number[]
  readonly options?: Partial<SamplingOptions>
}

/** Settings of a {@link Generator}. */
export interface GeneratorOptions {
  /** Most texts that grow at the same time; others wait. */
  readonly maxBatch?: number
  /** Most prompt tokens in one pass. */
  readonly prefillChunk?: number
  /** Most tokens held in the cache; default what `maxBatch` texts of the model's context need. */
  readonly cacheTokens?: number
  /** How the cache keeps keys and values; f32 is exact. */
  readonly kvCache?: KvCacheFormat
  /** False generates with the base model. */
  readonly adapters?: boolean
}

interface Active {
  readonly request: number
  readonly prompt: readonly number[]
  readonly options: SamplingOptions
  readonly sequence: CachedSequence
  readonly tokens: number[]
  readonly logprobs: number[]
  readonly decoder: StreamDecoder
  readonly stop: StopFinder
  readonly limit: number
  text: string
  firstAt: number
  finish: FinishReason | undefined
}

const prefixLength = (a: readonly number[], b: readonly number[]): number => {
  const most = Math.min(a.length, b.length)
  let n = 0
  while (n < most && a[n] === b[n]) n++
  return n
}

/**
 * Generates with one model: prompts are read in chunks beside texts that already grow (continuous batching), equal beginnings are computed once, a finished text frees its
 * place at once. Greedy and seeded completions do not depend on what else is in the batch, up to the rounding of kernels that choose their tiling by shape.
 */
export class Generator implements Disposable {
  readonly model: CausalLM
  readonly tokenizer: Tokenizer
  readonly cache: PagedCache
  readonly #maxBatch: number
  readonly #chunk: number
  /** False generates with the base model. */
  readonly adapters: boolean
  /** The last text of a chat, kept so that the next turn only reads what is new. */
  #kept: { tokens: number[]; sequence: CachedSequence } | undefined

  constructor(model: CausalLM, tokenizer: Tokenizer, options: GeneratorOptions = {}) {
    this.model = model
    this.tokenizer = tokenizer
    this.#maxBatch = options.maxBatch ?? 16
    this.#chunk = options.prefillChunk ?? 1024
    this.adapters = options.adapters ?? true
    this.cache = new PagedCache(model, {
      format: options.kvCache,
      maxTokens:
        options.cacheTokens ?? Math.min(model.config.maxPositions, 1 << 20) * this.#maxBatch + this.#maxBatch * 16,
    })
  }

  /** One completion per request, in their order. */
  async generate(
    requests: readonly GenerateRequest[],
    control: { readonly signal?: AbortSignal } = {},
  ): Promise<Completion[]> {
    const out: Completion[] = []
    for await (const event of this.stream(requests, control))
      if (event.type === "finish") out[event.request] = event.completion
    return out
  }

  /**
   * Tokens as they come, of all requests interleaved. With `keep` the keys and values of a single request stay for a following one that begins the same (a chat).
   * Errors: SLOTH_GENERATE_OPTION, SLOTH_GENERATE_PROMPT, SLOTH_GENERATE_CACHE.
   */
  async *stream(
    requests: readonly GenerateRequest[],
    control: { readonly signal?: AbortSignal; readonly keep?: boolean } = {},
  ): AsyncGenerator<GenerateEvent, void, undefined> {
    const started = performance.now()
    const context = this.model.config.maxPositions
    const waiting = requests.map(({ prompt, options }, request) => ({
      request,
      prompt: this.#checked(prompt, context),
      options: samplingOptions(options),
    }))
    let active: Active[] = []
    // Texts with an equal prompt: the first one reads it, the others fork its blocks.
    const leaders = new Map<string, Active>()
    const followers = new Map<Active, typeof waiting>()
    const programs = new PassPrograms(this.model, this.cache, this.adapters)
    try {
      while (waiting.length > 0 || active.length > 0) {
        if (control.signal?.aborted === true) {
          for (const a of active) a.finish = "aborted"
          for (const w of waiting.splice(0)) active.push(this.#admit(w, this.cache.create(), "aborted"))
        } else
          while (
            waiting.length > 0 &&
            active.length + [...followers.values()].reduce((n, f) => n + f.length, 0) < this.#maxBatch
          ) {
            const next = waiting[0]!
            const key = next.prompt.join()
            const leader = leaders.get(key)
            const need =
              (leader === undefined ? next.prompt.length : 0) +
              Math.min(next.options.maxTokens, context - next.prompt.length) +
              2 * this.cache.blockSize
            const reserved = active.reduce((n, a) => n + Math.max(0, a.limit + a.prompt.length - a.sequence.length), 0)
            if (need + reserved > this.cache.freeTokens && active.length > 0) break
            waiting.shift()
            if (leader !== undefined && leader.sequence.length < leader.prompt.length) {
              followers.set(leader, [...(followers.get(leader) ?? []), next])
              continue
            }
            const a = this.#admit(next, this.#begin(next.prompt, requests.length === 1))
            leaders.set(key, a)
            active.push(a)
          }
        const growing = active.filter((a) => a.finish === undefined)
        if (growing.length > 0) {
          const sampled = await this.#pass(growing, programs)
          for (const { text: a, id, logprob } of sampled) yield this.#accept(a, id, logprob, started)
        }
        for (const [leader, rest] of followers)
          if (leader.sequence.length >= leader.prompt.length) {
            // The leader's last prompt row has just been sampled from; forks repeat that one row to get their own logits.
            for (const w of rest) {
              const fork = this.cache.fork(leader.sequence)
              this.cache.truncate(fork, leader.prompt.length - 1)
              active.push(this.#admit(w, fork))
            }
            followers.delete(leader)
          }
        for (const a of active.filter((x) => x.finish !== undefined))
          yield this.#finish(a, started, control.keep === true && requests.length === 1)
        for (const [key, leader] of leaders) if (leader.finish !== undefined) leaders.delete(key)
        active = active.filter((a) => a.finish === undefined)
      }
    } finally {
      programs[Symbol.dispose]()
      for (const a of active) this.cache.release(a.sequence)
    }
  }

  #checked(prompt: readonly number[], context: number): readonly number[] {
    const bad = prompt.find((id) => !Number.isInteger(id) || id < 0 || id >= this.model.config.vocab)
    if (prompt.length === 0 || bad !== undefined)
      throw new SlothError("SLOTH_GENERATE_PROMPT", {
        what:
          prompt.length === 0
            ? "The prompt has no tokens."
            : `The prompt holds the token ${bad}, but the model has ids 0 to ${this.model.config.vocab - 1}.`,
        next: prompt.length === 0 ? "Give some text." : "Use the model's own tokenizer.",
        fields: { tokens: prompt.length },
      })
    if (prompt.length >= context)
      throw new SlothError("SLOTH_GENERATE_PROMPT", {
        what: `The prompt has ${prompt.length} tokens, but the model's context is ${context}.`,
        next: "Shorten the prompt.",
        fields: { tokens: prompt.length, context },
      })
    return prompt
  }

  /** A cached text for a prompt, with what the kept chat already holds of it. */
  #begin(prompt: readonly number[], alone: boolean): CachedSequence {
    const kept = this.#kept
    if (kept === undefined || !alone) return this.cache.create()
    this.#kept = undefined
    // The last prompt row must be computed again: its logits are what the first token is drawn from.
    const common = Math.min(prefixLength(kept.tokens, prompt), prompt.length - 1, kept.sequence.length)
    this.cache.truncate(kept.sequence, common)
    return kept.sequence
  }

  #admit(
    w: { request: number; prompt: readonly number[]; options: SamplingOptions },
    sequence: CachedSequence,
    finish?: FinishReason,
  ): Active {
    return {
      ...w,
      sequence,
      tokens: [],
      logprobs: [],
      decoder: this.tokenizer.streamDecoder({ skipSpecialTokens: true }),
      stop: new StopFinder(w.options.stop),
      limit: Math.min(w.options.maxTokens, this.model.config.maxPositions - w.prompt.length),
      text: "",
      firstAt: 0,
      finish,
    }
  }

  /** Runs the model once over the next rows of the texts and samples one token for each that has read its prompt. */
  async #pass(
    growing: readonly Active[],
    programs: PassPrograms,
  ): Promise<{ text: Active; id: number; logprob: number }[]> {
    const { engine } = this.model
    const parts: CachedRows[] = []
    const ids: number[] = []
    const last: number[] = []
    const sampling: Active[] = []
    let budget = this.#chunk
    // Texts that grow come first: a long prompt must not hold them up.
    for (const a of [...growing].sort((x, y) => Number(y.tokens.length > 0) - Number(x.tokens.length > 0))) {
      const known = a.prompt.length + a.tokens.length
      const rows = Math.min(known - a.sequence.length, a.tokens.length > 0 ? 1 : budget)
      if (rows <= 0) continue
      if (a.tokens.length === 0) budget -= rows
      this.cache.reserve(a.sequence, rows)
      parts.push({ sequence: a.sequence, rows })
      for (let i = 0; i < rows; i++) {
        const position = a.sequence.length + i
        ids.push(position < a.prompt.length ? a.prompt[position]! : a.tokens[position - a.prompt.length]!)
      }
      if (a.sequence.length + rows === known) {
        last.push(ids.length - 1)
        sampling.push(a)
      }
    }
    const picked = engine.noGrad(() =>
      engine.scope(() => {
        const known = last.length === ids.length ? programs.logits(parts, ids) : undefined
        if (known !== undefined) return this.#sample(known, sampling)
        const ctx = cachedContext(engine, this.cache, parts, this.adapters)
        const hidden = this.model.hidden(ctx, engine.from(Int32Array.from(ids))) // [rows, hidden]
        if (sampling.length === 0) return undefined
        const rows = last.length === ids.length ? hidden : gatherRows(hidden, engine.from(Int32Array.from(last)))
        return this.#sample(headLogits(this.model, rows), sampling)
      }),
    )
    for (const p of parts) p.sequence.length += p.rows
    if (picked === undefined) {
      await engine.backend.synchronize()
      return []
    }
    const reading = Promise.all([picked.ids.read(), picked.logp.readFloats()])
    picked.ids.dispose()
    picked.logp.dispose()
    const [chosen, logprobs] = await reading
    return sampling.map((text, i) => ({ text, id: chosen[i]!, logprob: logprobs[i]! }))
  }

  #sample(logits: Tensor, texts: readonly Active[]): { ids: Tensor; logp: Tensor } {
    const { engine } = this.model
    const { kernels } = engine.backend
    const [rows, vocab] = logits.shape as [number, number]
    const params = engine.from(Float32Array.from(texts.flatMap((a) => samplingRow(a.options))), [rows, 8])
    const rng = engine.from(
      Int32Array.from(
        texts.flatMap((a) => [
          (a.options.seed % 2 ** 32) | 0,
          Math.floor(a.options.seed / 2 ** 32),
          0,
          a.tokens.length,
        ]),
      ),
      [rows, 4],
    )
    const histories = texts.map((a) =>
      a.options.repetitionPenalty === 1 ? [] : [...new Set([...a.prompt, ...a.tokens])],
    )
    const maxHistory = Math.max(...histories.map((h) => h.length))
    const history =
      maxHistory === 0
        ? undefined
        : engine.from(
            Int32Array.from(histories.flatMap((h) => [...h, ...Array<number>(maxHistory - h.length).fill(-1)])),
            [rows, maxHistory],
          )
    const ids = engine.empty([rows], "i32")
    const logp = engine.empty([rows])
    kernels.sample(
      ids.handle,
      logp.handle,
      logits.handle,
      rows,
      vocab,
      params.handle,
      rng.handle,
      history?.handle ?? 0,
      maxHistory,
    )
    return { ids, logp }
  }

  #accept(a: Active, id: number, logprob: number, started: number): GenerateEvent {
    if (a.tokens.length === 0) a.firstAt = performance.now() - started
    a.tokens.push(id)
    a.logprobs.push(logprob)
    const ends = (!a.options.ignoreEnd && this.tokenizer.endOfGeneration.has(id)) || a.options.stopTokens.includes(id)
    const text = ends ? "" : a.stop.push(a.decoder.push(id))
    a.text += text
    if (ends) a.finish = "end"
    else if (a.stop.found) a.finish = "stop"
    else if (a.tokens.length >= a.limit) a.finish = a.limit < a.options.maxTokens ? "context" : "length"
    return { type: "token", request: a.request, id, logprob, text }
  }

  #finish(a: Active, started: number, keep: boolean): GenerateEvent {
    const rest = a.stop.push(a.decoder.end()) + a.stop.end()
    a.text += rest
    if (keep) {
      if (this.#kept !== undefined) this.cache.release(this.#kept.sequence)
      this.#kept = { tokens: [...a.prompt, ...a.tokens], sequence: a.sequence }
    } else this.cache.release(a.sequence)
    const seconds = (performance.now() - started - a.firstAt) / 1000
    return {
      type: "finish",
      request: a.request,
      text: rest,
      completion: {
        tokens: a.tokens,
        text: a.text,
        logprobs: a.logprobs,
        finish: a.finish!,
        promptTokens: a.prompt.length,
        firstTokenSeconds: a.firstAt / 1000,
        tokensPerSecond: a.tokens.length > 1 ? (a.tokens.length - 1) / seconds : 0,
      },
    }
  }

  /** Bytes of the cache after generating `count` (1) completions of `maxTokens` for each prompt, all grown to their limit: an upper bound, reached when they stop nowhere earlier. */
  forecastCache(
    prompts: readonly { readonly tokens: readonly number[]; readonly count?: number }[],
    maxTokens: number,
  ): number {
    const { blockSize } = this.cache
    // Completions share the whole blocks of their prompt but the last row, which each of them computes for itself.
    const shared = prompts.map(({ tokens }) => Math.floor((tokens.length - 1) / blockSize))
    const own = prompts.flatMap(({ tokens, count }, i) =>
      Array<number>(count ?? 1).fill(
        Math.ceil(Math.min(tokens.length + maxTokens, this.model.config.maxPositions) / blockSize) - shared[i]!,
      ),
    )
    const largest = (values: readonly number[]): number =>
      values
        .toSorted((a, b) => b - a)
        .slice(0, this.#maxBatch)
        .reduce((a, b) => a + b, 0)
    return this.cache.bytesFor((largest(shared) + largest(own)) * blockSize)
  }

  /** Gives the cache's memory back, a kept chat with it; the next request allocates it again. Not while completions grow. */
  release(): void {
    this.#kept = undefined
    this.cache[Symbol.dispose]()
  }

  [Symbol.dispose](): void {
    this.#kept = undefined
    this.cache[Symbol.dispose]()
  }
}
