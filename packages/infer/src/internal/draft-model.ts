import type { CausalLM } from "@sloth/model"
import { gatherRows } from "@sloth/tensor"
import { cachedContext } from "../cached-context.ts"
import { PagedCache, type CachedSequence } from "../paged-cache.ts"
import type { SpeculatedText, Speculator } from "../speculation.ts"
import { headLogits, PassPrograms } from "./pass-programs.ts"
import { sampleRows } from "./sample-rows.ts"

const PREFILL_CHUNK = 1024

/** Guesses with a smaller model: it reads what the texts have grown by, then draws token after token for all of them at once. */
export class DraftModel implements Speculator {
  readonly most: number
  readonly #model: CausalLM
  readonly #vocab: number
  readonly #cache: PagedCache
  readonly #programs: PassPrograms
  /** What the draft has read of each text, and which tokens those were. */
  readonly #read = new Map<SpeculatedText, { sequence: CachedSequence; tokens: number[] }>()

  /** Guesses only ids below `vocab`, those of the model that checks them. */
  constructor(model: CausalLM, most: number, vocab: number, maxBatch: number) {
    this.#model = model
    this.most = most
    this.#vocab = vocab
    this.#cache = new PagedCache(model, { maxTokens: (Math.min(model.config.maxPositions, 1 << 20) + 16) * maxBatch })
    this.#programs = new PassPrograms(model, this.#cache, true)
  }

  async propose(texts: readonly SpeculatedText[], counts: readonly number[]): Promise<number[][]> {
    const guesses = texts.map((): number[] => [])
    const room = this.#model.config.maxPositions
    for (let round = 0; round < this.most; round++) {
      const wanted = texts.flatMap((text, i) => {
        const known = text.prompt.length + text.tokens.length + guesses[i]!.length
        return guesses[i]!.length === round && round < counts[i]! && known < room ? [{ text, i }] : []
      })
      if (wanted.length === 0) break
      const drawn = await this.#draw(wanted.map(({ text, i }) => ({ text, tail: guesses[i]! })))
      for (const [j, { i }] of wanted.entries()) if (drawn[j]! < this.#vocab) guesses[i]!.push(drawn[j]!)
    }
    return guesses
  }

  /** One token for each text behind its tail, drawn with the random number that the model will use for it. */
  async #draw(wanted: readonly { text: SpeculatedText; tail: readonly number[] }[]): Promise<number[]> {
    const work = wanted.map(({ text, tail }) => {
      const all = [...text.prompt, ...text.tokens, ...tail]
      let state = this.#read.get(text)
      if (state === undefined) this.#read.set(text, (state = { sequence: this.#cache.create(), tokens: [] }))
      // Guesses that were not taken are forgotten; the last token is always read again, because its logits are wanted.
      let same = 0
      const most = Math.min(state.tokens.length, all.length - 1)
      while (same < most && state.tokens[same] === all[same]) same++
      this.#cache.truncate(state.sequence, same)
      state.tokens = all
      return { state, all }
    })
    // Prompts are read in chunks first, so that the last pass has one row of logits for every text.
    for (const { state, all } of work)
      while (all.length - state.sequence.length > PREFILL_CHUNK) {
        await this.#forward([{ state, all, rows: PREFILL_CHUNK }], undefined)
      }
    const rows = work.map((w) => ({ ...w, rows: w.all.length - w.state.sequence.length }))
    return this.#forward(
      rows,
      wanted.map(({ text, tail }) => ({
        options: text.options,
        step: text.tokens.length + tail.length,
        history: () => [...text.prompt, ...text.tokens, ...tail],
      })),
    )
  }

  async #forward(
    work: readonly { state: { sequence: CachedSequence }; all: readonly number[]; rows: number }[],
    samples: Parameters<typeof sampleRows>[2] | undefined,
  ): Promise<number[]> {
    const { engine } = this.#model
    const parts = work.map(({ state, rows }) => ({ sequence: state.sequence, rows }))
    const ids: number[] = []
    const last: number[] = []
    for (const { state, all, rows } of work) {
      this.#cache.reserve(state.sequence, rows)
      for (let i = 0; i < rows; i++) ids.push(all[state.sequence.length + i]!)
      last.push(ids.length - 1)
    }
    const picked = engine.noGrad(() =>
      engine.scope(() => {
        const recorded = last.length === ids.length ? this.#programs.logits(parts, ids) : undefined
        if (recorded !== undefined && samples !== undefined) return sampleRows(engine, recorded, samples)
        const context = cachedContext(engine, this.#cache, parts, true)
        const hidden = this.#model.hidden(context, engine.from(Int32Array.from(ids))) // [rows, hidden]
        if (samples === undefined) return undefined
        const ends = gatherRows(hidden, engine.from(Int32Array.from(last))) // [texts, hidden]
        return sampleRows(engine, headLogits(this.#model, ends), samples)
      }),
    )
    for (const part of parts) part.sequence.length += part.rows
    if (picked === undefined) {
      await engine.backend.synchronize()
      return []
    }
    const reading = picked.ids.read()
    picked.ids.dispose()
    picked.logp.dispose()
    return [...((await reading) as Int32Array)]
  }

  forget(text: SpeculatedText): void {
    const state = this.#read.get(text)
    if (state === undefined) return
    this.#cache.release(state.sequence)
    this.#read.delete(text)
  }

  release(): void {
    this.#read.clear()
    this.#programs[Symbol.dispose]()
    this.#cache[Symbol.dispose]()
  }
}
