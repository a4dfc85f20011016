import type { Completion, RolloutEngine, SamplingOptions as RolloutSampling, TokenPrompt } from "@sloth/core"
import { packedContext, type CausalLM, type Tokenizer } from "@sloth/model"
import { SequenceLayout, weightFormat, type Tensor } from "@sloth/tensor"
import { sampleRows } from "./internal/sample-rows.ts"
import { requestSeed, samplingOptions, type SamplingOptions } from "./sampling.ts"

/** Settings of a {@link MixtureRollout}. */
export interface MixtureOptions {
  readonly tokenizer: Tokenizer
  /** Share of the model without its adapter in the logits. */
  readonly mixture: number
  /** Most packed tokens in a pass; a longer text gets a pass of its own. 2048 when absent. */
  readonly tokenBudget?: number
}

interface Growing {
  readonly prompt: number
  readonly index: number
  readonly tokens: number[]
  readonly start: number
  readonly options: SamplingOptions
  readonly logprobs: number[]
}

/**
 * Completions of the geometric mixture of a model with and without its adapter: each token is drawn from softmax(mixture · logits without + (1 - mixture) · logits with). There is no cache of
 * keys and values: a token costs two passes over the whole text, so that it is meant for short completions. Seeds are those of the local engine.
 * Source: Munos et al. 2023 (Nash-MD); TRL 1.10, `GeometricMixtureWrapper`, which keeps no cache either.
 */
export class MixtureRollout implements RolloutEngine {
  readonly #model: CausalLM
  readonly #options: MixtureOptions

  constructor(model: CausalLM, options: MixtureOptions) {
    this.#model = model
    this.#options = options
  }

  /** Completions as they finish. An abort ends them all without a completion. */
  async *generate(
    prompts: readonly TokenPrompt[],
    options: RolloutSampling,
    control: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Completion & { readonly text: string }, void, undefined> {
    const { seed = 0, ...sampling } = options
    const { tokenizer } = this.#options
    let active = prompts.flatMap(({ tokens, count }, prompt) =>
      Array.from({ length: count ?? 1 }, (_, index): Growing => ({
        prompt,
        index,
        tokens: [...tokens],
        start: tokens.length,
        logprobs: [],
        options: samplingOptions({
          ...sampling,
          temperature: sampling.temperature ?? 1,
          seed: requestSeed(seed, prompt, index),
        }),
      })),
    )
    while (active.length > 0) {
      for (const part of this.#parts(active)) {
        if (control.signal?.aborted === true) return
        await this.#grow(part)
      }
      const left: Growing[] = []
      for (const text of active) {
        const own = text.tokens.slice(text.start)
        const last = own.at(-1)!
        const said = tokenizer.decode(own, { skipSpecialTokens: true })
        const cut = text.options.stop.map((end) => said.indexOf(end)).filter((at) => at >= 0)
        const ended =
          (!text.options.ignoreEnd && tokenizer.endOfGeneration.has(last)) ||
          text.options.stopTokens.includes(last) ||
          cut.length > 0
        if (!ended && own.length < text.options.maxTokens && text.tokens.length < this.#model.config.maxPositions) {
          left.push(text)
          continue
        }
        yield {
          prompt: text.prompt,
          index: text.index,
          tokens: own,
          logprobs: text.logprobs,
          text: cut.length > 0 ? said.slice(0, Math.min(...cut)) : said,
          finishReason: ended ? "stop" : "length",
        }
      }
      active = left
    }
  }

  /** Nothing is held between calls. */
  async [Symbol.asyncDispose](): Promise<void> {}

  /** Texts of one pass each, in order. */
  #parts(active: readonly Growing[]): Growing[][] {
    const { tokenBudget = 2048 } = this.#options
    const parts: Growing[][] = []
    let used = Number.POSITIVE_INFINITY
    for (const text of active) {
      if (used + text.tokens.length > tokenBudget) {
        parts.push([])
        used = 0
      }
      parts.at(-1)!.push(text)
      used += text.tokens.length
    }
    return parts
  }

  /** One more token for each text. */
  async #grow(texts: readonly Growing[]): Promise<void> {
    const { engine, head } = this.#model
    const { kernels } = engine.backend
    const { mixture } = this.#options
    const [vocab, hidden] = head.weight.shape as [number, number]
    let row = 0
    const segments = texts.map(({ tokens }) => {
      const segment = { start: row, length: tokens.length, parent: null }
      row += tokens.length
      return segment
    })
    const tokens = Int32Array.from(texts.flatMap((text) => text.tokens))
    const read = Int32Array.from(segments, ({ start, length }) => start + length - 1)
    const rows = texts.length
    const drawn = engine.noGrad(() =>
      engine.scope(() => {
        const layout = new SequenceLayout(segments)
        const logits = (adapters: boolean): Tensor => {
          const h = this.#model.hidden(packedContext(engine, layout, { read, adapters }), engine.from(tokens)) // [rows, hidden]
          const out = engine.empty([rows, vocab])
          const format = weightFormat(head.weight.tensor.dtype).code
          kernels.logits(
            out.handle,
            h.handle,
            head.weight.tensor.handle,
            format,
            rows,
            vocab,
            hidden,
            head.softcap,
            head.logitScale,
          )
          return out
        }
        const [own, other] = [logits(true), logits(false)]
        kernels.scale(own.handle, own.handle, 1 - mixture, own.size, 0)
        kernels.scale(own.handle, other.handle, mixture, own.size, 1)
        const { ids, logp } = sampleRows(
          engine,
          own,
          texts.map(({ options, tokens: all, start }) => ({
            options,
            step: all.length - start,
            history: () => all,
          })),
        )
        return { ids: engine.keep(ids), logp: engine.keep(logp) }
      }),
    )
    try {
      const [ids, logp] = await Promise.all([drawn.ids.read(), drawn.logp.readFloats()])
      for (const [i, text] of texts.entries()) {
        text.tokens.push((ids as Int32Array)[i]!)
        text.logprobs.push(logp[i]!)
      }
    } finally {
      drawn.ids.dispose()
      drawn.logp.dispose()
    }
  }
}
