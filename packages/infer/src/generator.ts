import { SlothError } from "@sloth/core"
import type { CausalLM, StreamDecoder, Tokenizer } from "@sloth/model"
import { FEW_ROWS, gatherRows, KEPT_ROWS, recordRows, type KnownRows, type RowMemo, type Tensor } from "@sloth/tensor"
import { cachedContext, type CachedRows } from "./cached-context.ts"
import { headLogits, PassPrograms } from "./internal/pass-programs.ts"
import { sampleRows, type SampleRow } from "./internal/sample-rows.ts"
import { PagedCache, type CachedSequence, type CacheMemory, type KvCacheFormat } from "./paged-cache.ts"
import { samplingOptions, StopFinder, type SamplingOptions } from "./sampling.ts"
import { createSpeculator, type Speculation, type SpeculationCounts, type Speculator } from "./speculation.ts"

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
  /** Bytes of keys and values in the cache's format for all tokens of this text, shared ones included. */
  readonly cacheBytes: number
  /** How good the guesses were, where the generator speculates. */
  readonly speculation?: SpeculationCounts
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
  /**
   * Gets what the prompt's pass has computed, which training on the prompt can take; it disposes it. Not called for a prompt that cannot be read in one pass by the kernels of
   * training: one longer than a pass or of 32 tokens at most, with a rounded cache, of a mixture, after a kept chat, or where the cache has no room for it at once.
   */
  readonly keep?: (prefix: KnownPrefix) => void
}

/** What the linear layers have made of a prompt: some rows of a pass. */
export interface KnownPrefix {
  readonly known: KnownRows
  /** The first row of the prompt in that pass, and how many it has. */
  readonly from: number
  readonly rows: number
}

/** Settings of a {@link Generator}. */
export interface GeneratorOptions {
  /** Most texts that grow at the same time; others wait. */
  readonly maxBatch?: number
  /** Most prompt tokens in one pass. */
  readonly prefillChunk?: number
  /**
   * Most tokens held in the cache; default what `maxBatch` texts of the model's context need. When it is full, texts wait, and the youngest gives its place up and is read again
   * later with the tokens it has.
   */
  readonly cacheTokens?: number
  /** How the cache keeps keys and values; f32 is exact. */
  readonly kvCache?: KvCacheFormat
  /** Guesses following tokens and checks several in one pass; completions stay what they are. */
  readonly speculate?: Speculation
  /** False generates with the base model. */
  readonly adapters?: boolean
  /**
   * Draws from the geometric mixture of base model and adapter: softmax(mixture · logits without the adapter + (1 - mixture) · logits with it). Every pass is made with both, and the cache holds the keys
   * and values of both.
   */
  readonly mixture?: number
}

interface Waiting {
  readonly request: number
  readonly prompt: readonly number[]
  readonly options: SamplingOptions
  readonly keep: GenerateRequest["keep"]
  /** The text so far, when it has given its place up. */
  readonly begun?: Active
}

/** A token drawn for a text. */
interface Drawn {
  readonly text: Active
  readonly id: number
  readonly logprob: number
}

interface Active {
  readonly request: number
  readonly prompt: readonly number[]
  readonly options: SamplingOptions
  keep: GenerateRequest["keep"]
  readonly sequence: CachedSequence
  readonly tokens: number[]
  readonly logprobs: number[]
  readonly decoder: StreamDecoder
  readonly stop: StopFinder
  readonly limit: number
  text: string
  firstAt: number
  finish: FinishReason | undefined
  /** How many tokens to guess next, tokens guessed and guesses that were right. */
  guess: number
  /** Passes to make without guesses, and how often in a row none was right. */
  pause: number
  misses: number
  proposed: number
  accepted: number
}

/** The model as it reads texts, beside what it keeps of them. */
interface Reader {
  readonly memory: CacheMemory
  readonly adapters: boolean
  readonly programs: PassPrograms
}

const prefixLength = (a: readonly number[], b: readonly number[]): number => {
  const most = Math.min(a.length, b.length)
  let n = 0
  while (n < most && a[n] === b[n]) n++
  return n
}

/**
 * Generates with one model: prompts are read in chunks beside texts that already grow (continuous batching), equal beginnings of prompts are computed once, a finished text frees its
 * place at once. Greedy and seeded completions do not depend on what else is in the batch, up to the rounding of kernels that choose their tiling by shape.
 */
export class Generator implements Disposable {
  readonly model: CausalLM
  readonly tokenizer: Tokenizer
  readonly cache: PagedCache
  readonly #maxBatch: number
  readonly #chunk: number
  readonly #speculator: Speculator | undefined
  /** False generates with the base model. */
  readonly adapters: boolean
  /** Share of the base model in the logits, where they are a mixture. */
  readonly #mixture: number | undefined
  /** The last text of a chat, kept so that the next turn only reads what is new. */
  #kept: { tokens: number[]; sequence: CachedSequence } | undefined

  constructor(model: CausalLM, tokenizer: Tokenizer, options: GeneratorOptions = {}) {
    this.model = model
    this.tokenizer = tokenizer
    this.#maxBatch = options.maxBatch ?? 16
    this.#chunk = options.prefillChunk ?? 1024
    this.adapters = options.adapters ?? true
    this.#mixture = options.mixture
    this.cache = new PagedCache(model, {
      format: options.kvCache,
      twin: options.mixture !== undefined,
      maxTokens:
        options.cacheTokens ?? Math.min(model.config.maxPositions, 1 << 20) * this.#maxBatch + this.#maxBatch * 16,
    })
    if (options.speculate !== undefined)
      this.#speculator = createSpeculator(options.speculate, model, tokenizer, this.#maxBatch)
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
    const waiting: Waiting[] = requests.map(({ prompt, options, keep }, request) => ({
      request,
      prompt: this.#checked(prompt, context),
      options: samplingOptions(options),
      keep: this.#keeps(prompt.length) ? keep : undefined,
    }))
    let active: Active[] = []
    // A prompt that begins like one that is being read waits for the common part and takes it over.
    const followers = new Map<Active, { readonly text: Waiting; readonly share: number }[]>()
    const readers: readonly Reader[] = [
      this.#reader(this.cache, this.adapters),
      ...(this.#mixture === undefined ? [] : [this.#reader(this.cache.twin, false)]),
    ]
    /** A text gives its blocks up; it and those that waited for its prompt come next when there is room. */
    const preempt = (text: Active): void => {
      this.cache.release(text.sequence)
      this.#speculator?.forget(text)
      active = active.filter((a) => a !== text)
      waiting.unshift({ ...text, begun: text }, ...(followers.get(text) ?? []).map((f) => f.text))
      followers.delete(text)
    }
    try {
      while (waiting.length > 0 || active.length > 0) {
        if (control.signal?.aborted === true) {
          for (const a of active) a.finish = "aborted"
          for (const w of [...waiting.splice(0), ...[...followers.values()].flat().map((f) => f.text)])
            active.push(w.begun ?? this.#admit(w, this.cache.create(), "aborted"))
          for (const a of active) a.finish = "aborted"
          followers.clear()
        } else
          while (
            waiting.length > 0 &&
            active.length + [...followers.values()].reduce((n, f) => n + f.length, 0) < this.#maxBatch
          ) {
            const next = waiting[0]!
            const { leader, share } = this.#leader(next, active)
            const follows = leader !== undefined && leader.sequence.length < share
            // Room for what it reads at once, and a block for every text to grow into.
            const known = follows ? 0 : next.prompt.length + (next.begun?.tokens.length ?? 0) - share
            const blocks = Math.ceil(known / this.cache.blockSize) + active.length + 1
            if (blocks * this.cache.blockSize > this.cache.freeTokens && active.length > 0) break
            waiting.shift()
            if (follows) followers.set(leader, [...(followers.get(leader) ?? []), { text: next, share }])
            else if (next.begun !== undefined) active.push(next.begun)
            else if (leader !== undefined) active.push(this.#admit(next, this.cache.fork(leader.sequence, share)))
            else active.push(this.#admit(next, this.#begin(next.prompt, requests.length === 1)))
          }
        const growing = active.filter((a) => a.finish === undefined)
        if (growing.length > 0) {
          const kept = this.#keptTogether(growing)
          const sampled = await this.#pass(kept.length > 0 ? kept : growing, readers, preempt, kept.length > 0)
          for (const { text: a, id, logprob } of sampled)
            if (a.finish === undefined) yield this.#accept(a, id, logprob, started)
        }
        for (const [leader, rest] of followers) {
          const late = rest.filter(({ share }) => leader.sequence.length < share)
          for (const { text, share } of rest.filter((f) => !late.includes(f)))
            if (this.cache.freeTokens === 0) waiting.unshift(text)
            else active.push(this.#admit(text, this.cache.fork(leader.sequence, share)))
          if (late.length > 0) followers.set(leader, late)
          else followers.delete(leader)
        }
        for (const a of active.filter((x) => x.finish !== undefined))
          yield this.#finish(a, started, control.keep === true && requests.length === 1)
        active = active.filter((a) => a.finish === undefined)
      }
    } finally {
      for (const { programs } of readers) programs[Symbol.dispose]()
      for (const a of active) {
        this.cache.release(a.sequence)
        this.#speculator?.forget(a)
      }
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

  /**
   * The text whose prompt has the most in common with a waiting one, and how many tokens the two can share: whole blocks, or all but the last of equal prompts, whose row of
   * logits everyone needs for himself.
   */
  #leader(next: Waiting, active: readonly Active[]): { readonly leader: Active | undefined; readonly share: number } {
    let [leader, share]: [Active | undefined, number] = [undefined, 0]
    // A prompt that is kept is read as a whole.
    if (next.begun !== undefined || next.keep !== undefined) return { leader, share }
    for (const a of active) {
      const common = prefixLength(a.prompt, next.prompt)
      const own = common === next.prompt.length ? common - 1 : common - (common % this.cache.blockSize)
      if (own > share) [leader, share] = [a, own]
    }
    return { leader, share }
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

  /** Whether a prompt of so many tokens can be kept. */
  #keeps(tokens: number): boolean {
    return tokens > FEW_ROWS && tokens <= this.#chunk && this.cache.format.code === 0 && this.#mixture === undefined
  }

  /** The texts whose prompts are read and kept by the next pass, alone. */
  #keptTogether(growing: readonly Active[]): Active[] {
    const texts: Active[] = []
    let [rows, blocks] = [0, 0]
    for (const a of growing) {
      // One that has given its place up is read again with its tokens, which are no rows of its prompt.
      if (a.keep === undefined || a.sequence.length > 0 || a.tokens.length > 0) continue
      blocks += Math.ceil(a.prompt.length / this.cache.blockSize)
      const fits = blocks * this.cache.blockSize <= this.cache.freeTokens
      if (texts.length > 0 && (!fits || rows >= KEPT_ROWS || rows + a.prompt.length > this.#chunk)) break
      // Where there is no room for it alone, it is one of those that make room for each other.
      if (!fits) a.keep = undefined
      if (!fits) break
      texts.push(a)
      rows += a.prompt.length
    }
    return texts
  }

  #admit(
    w: { request: number; prompt: readonly number[]; options: SamplingOptions; keep: GenerateRequest["keep"] },
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
      guess: Math.ceil((this.#speculator?.most ?? 0) / 2),
      pause: 0,
      misses: 0,
      proposed: 0,
      accepted: 0,
    }
  }

  /** The model with or without its adapter, beside its half of the cache. */
  #reader(memory: CacheMemory, adapters: boolean): Reader {
    return { memory, adapters, programs: new PassPrograms(this.model, memory, adapters) }
  }

  /** Logits [last, vocab] after the rows `last` of a pass; undefined where nothing is drawn after it. */
  #logits(
    { memory, adapters, programs }: Reader,
    parts: readonly CachedRows[],
    ids: readonly number[],
    last: readonly number[],
    keep: RowMemo | undefined,
  ): Tensor | undefined {
    const { engine } = this.model
    const known = last.length === ids.length ? programs.logits(parts, ids) : undefined
    if (known !== undefined) return known
    const ctx = cachedContext(engine, memory, parts, adapters, keep)
    const hidden = this.model.hidden(ctx, engine.from(Int32Array.from(ids))) // [rows, hidden], of a pass that is kept [last, hidden]
    if (keep !== undefined) return headLogits(this.model, hidden)
    if (last.length === 0) return undefined
    return headLogits(
      this.model,
      last.length === ids.length ? hidden : gatherRows(hidden, engine.from(Int32Array.from(last))),
    )
  }

  /** Guesses for the texts that have read all they know; none for the others. */
  async #guesses(growing: readonly Active[]): Promise<Map<Active, readonly number[]>> {
    if (this.#speculator === undefined) return new Map()
    const ready = growing.filter(
      (a) => a.tokens.length > 0 && a.sequence.length === a.prompt.length + a.tokens.length - 1 && a.pause-- <= 0,
    )
    const guessed = await this.#speculator.propose(
      ready,
      ready.map((a) => Math.min(a.guess, a.limit - a.tokens.length - 1)),
    )
    return new Map(ready.map((a, i) => [a, guessed[i]!]))
  }

  /**
   * Runs the model once over the next rows of the texts and draws a token for each that has read all it knows, and one after every right guess. Where the cache is full the
   * youngest texts are preempted. Errors: SLOTH_GENERATE_CACHE when a text alone outgrows the cache.
   */
  async #pass(
    growing: readonly Active[],
    readers: readonly Reader[],
    preempt: (text: Active) => void,
    keep: boolean,
  ): Promise<Drawn[]> {
    const { engine } = this.model
    const guesses = await this.#guesses(growing)
    const parts: CachedRows[] = []
    const ids: number[] = []
    const last: number[] = []
    const sampling: (SampleRow & { readonly text: Active; readonly guess: number | undefined })[] = []
    let budget = this.#chunk
    // Texts that grow come first: a long prompt must not hold them up.
    const queue = growing.toSorted((x, y) => Number(y.tokens.length > 0) - Number(x.tokens.length > 0))
    for (let a = queue.shift(); a !== undefined; a = queue.shift()) {
      const text = a
      const known = text.prompt.length + text.tokens.length
      const left = known - text.sequence.length
      const rows = left === 1 ? 1 : Math.min(left, budget)
      if (rows <= 0) continue
      let guess = guesses.get(text) ?? []
      // Guesses are a luxury; then the youngest texts make room; then this one waits for the others.
      if (!this.cache.fits(text.sequence, rows + guess.length)) guess = []
      while (!this.cache.fits(text.sequence, rows) && this.#makeRoom(queue, preempt));
      if (!this.cache.fits(text.sequence, rows) && parts.length > 0) {
        preempt(text)
        continue
      }
      if (rows > 1) budget -= rows
      this.cache.reserve(text.sequence, rows + guess.length)
      parts.push({ sequence: text.sequence, rows: rows + guess.length })
      for (let i = 0; i < rows; i++) {
        const position = text.sequence.length + i
        ids.push(position < text.prompt.length ? text.prompt[position]! : text.tokens[position - text.prompt.length]!)
      }
      if (rows < left) continue
      for (let i = 0; i <= guess.length; i++) {
        if (i > 0) ids.push(guess[i - 1]!)
        last.push(ids.length - 1)
        sampling.push({
          text,
          guess: guess[i],
          options: text.options,
          step: text.tokens.length + i,
          history: () => [...text.prompt, ...text.tokens, ...guess.slice(0, i)],
        })
      }
    }
    const kept = keep ? recordRows(ids.length) : undefined
    const run = (): { ids: Tensor; logp: Tensor } | undefined => {
      const logits = readers.map((reader) => this.#logits(reader, parts, ids, last, kept?.memo))
      const own = logits[0]
      if (own === undefined) return undefined
      const [, base] = logits
      if (base !== undefined) {
        // Of a recorded pass this is its own memory, which the next one overwrites.
        const { kernels } = engine.backend
        kernels.scale(own.handle, own.handle, 1 - this.#mixture!, own.size, 0)
        kernels.scale(own.handle, base.handle, this.#mixture!, own.size, 1)
      }
      return sampleRows(engine, own, sampling)
    }
    let picked: ReturnType<typeof run>
    try {
      picked = engine.noGrad(() => engine.scope(run))
      if (kept !== undefined) this.#handOver(growing, kept.known)
    } finally {
      kept?.known[Symbol.dispose]()
    }
    for (const p of parts) p.sequence.length += p.rows
    if (picked === undefined) {
      await engine.backend.synchronize()
      return []
    }
    const reading = Promise.all([picked.ids.read(), picked.logp.readFloats()])
    picked.ids.dispose()
    picked.logp.dispose()
    const [chosen, logprobs] = await reading
    const drawn: Drawn[] = []
    for (let i = 0; i < sampling.length; i++) {
      const { text } = sampling[i]!
      const first = i
      for (; ; i++) {
        drawn.push({ text, id: chosen[i]!, logprob: logprobs[i]! })
        // A draw that is not the guess stands, and what was computed behind the guess does not.
        if (sampling[i]!.guess !== chosen[i]) break
      }
      const accepted = i - first
      while (sampling[i + 1]?.text === text) i++
      this.#judge(text, i - first, accepted)
    }
    return drawn
  }

  /** Gives each text's prompt to who keeps it. */
  #handOver(texts: readonly Active[], known: KnownRows): void {
    let from = 0
    for (const text of texts) {
      text.keep?.({ known: known.share(), from, rows: text.prompt.length })
      text.keep = undefined
      from += text.prompt.length
    }
  }

  /** Books how many of the guesses were right, takes the others out of the cache, and guesses more boldly or less next time. */
  #judge(text: Active, proposed: number, accepted: number): void {
    if (proposed === 0) return
    text.proposed += proposed
    text.accepted += accepted
    text.guess = accepted === proposed ? Math.min(this.#speculator!.most, 2 * text.guess) : accepted + 1
    // A row more in a pass costs a third of a pass of its own (SmolLM2, 2 threads), so wrong guesses must become rare soon.
    text.misses = accepted > 0 ? 0 : Math.min(4, text.misses + 1)
    text.pause = accepted > 0 ? 0 : 2 ** text.misses - 1
    if (accepted < proposed) this.cache.truncate(text.sequence, text.sequence.length - proposed + accepted)
  }

  /** Gives up what can be given up for older texts; false when there is nothing. */
  #makeRoom(younger: Active[], preempt: (text: Active) => void): boolean {
    if (this.#kept !== undefined) {
      this.cache.release(this.#kept.sequence)
      this.#kept = undefined
      return true
    }
    // One that holds no block makes no room.
    const victim = younger.findLastIndex((a) => a.sequence.blocks.length > 0)
    if (victim < 0) return false
    preempt(younger[victim]!)
    younger.splice(victim, 1)
    return true
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
    this.#speculator?.forget(a)
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
        cacheBytes: (a.prompt.length + a.tokens.length) * this.cache.bytesPerToken,
        ...(this.#speculator === undefined ? {} : { speculation: { proposed: a.proposed, accepted: a.accepted } }),
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
    this.#speculator?.release()
    this.cache[Symbol.dispose]()
  }

  [Symbol.dispose](): void {
    this.release()
  }
}
