import { SlothError } from "@sloth/core"
import type {
  Completion as RolloutCompletion,
  RolloutEngine,
  SamplingOptions as RolloutSampling,
  TokenPrompt,
} from "@sloth/core"
import type { CausalLM, Tokenizer } from "@sloth/model"
import { Generator, type GenerateRequest, type GeneratorOptions, type KnownPrefix } from "./generator.ts"
import { requestSeed } from "./sampling.ts"
import { scoreCompletions } from "./score.ts"

/** Settings of a {@link LocalRollout}: those of its generator, and what the log-probs come from. */
export interface LocalRolloutOptions extends GeneratorOptions {
  readonly tokenizer: Tokenizer
  /**
   * True replaces the sampler's log-probs by those of a pass with the training kernels over the finished completions, which are then yielded when all of a call are there.
   * Decoding adds the same products up in another order: the two agree within rounding (a few 1e-6 nats in f32). Not with `mixture`, of which training has no pass.
   */
  readonly rescore?: boolean
}

/** A completion with its decoded text and the cost of making it. */
export interface LocalCompletion extends RolloutCompletion {
  /** Without special tokens and stop texts. */
  readonly text: string
}

/**
 * Rollouts with the weights that are trained, in place: no copy, nothing to synchronise. Completions of one prompt share its cache, each has a seed of its own made from
 * `seed`, the position of its prompt and its index, so that results do not depend on batching or on order of arrival.
 */
export class LocalRollout implements RolloutEngine {
  readonly #generator: Generator
  readonly #rescore: boolean

  /** Errors: SLOTH_GENERATE_OPTION for `rescore` of a mixture. */
  constructor(model: CausalLM, options: LocalRolloutOptions) {
    const { tokenizer, rescore, ...rest } = options
    if (rescore === true && rest.mixture !== undefined)
      throw new SlothError("SLOTH_GENERATE_OPTION", {
        what: "Completions of a mixture of two models cannot be scored again.",
        why: "The kernels of training give the log-probs of one model, not of the mixture.",
        next: "Leave out rescore; the sampler's log-probs are those of the mixture.",
        fields: { mixture: rest.mixture },
      })
    this.#generator = new Generator(model, tokenizer, rest)
    this.#rescore = rescore ?? false
  }

  /**
   * Completions as they finish, not in order. Leaving the loop early ends the others. `keep` gets what has been computed of a prompt, by its number, for the first `keepPrompts` of
   * them where it can be kept. Errors: those of the generator.
   */
  async *generate(
    prompts: readonly TokenPrompt[],
    options: RolloutSampling,
    control: {
      readonly signal?: AbortSignal
      readonly keepPrompts?: number
      readonly keep?: (prompt: number, prefix: KnownPrefix) => void
    } = {},
  ): AsyncGenerator<LocalCompletion, void, undefined> {
    const { seed = 0, ...sampling } = options
    // Training samples from the model's own distribution unless told otherwise.
    const base = { ...sampling, temperature: sampling.temperature ?? 1 }
    const wanted = prompts.flatMap(({ tokens, count }, prompt) =>
      Array.from({ length: count ?? 1 }, (_, index) => ({ tokens, prompt, index })),
    )
    const { keep, keepPrompts = 0 } = control
    const requests = wanted.map(({ tokens, prompt, index }): GenerateRequest => ({
      prompt: tokens,
      options: { ...base, seed: requestSeed(seed, prompt, index) },
      ...(keep !== undefined && prompt < keepPrompts && index === 0 ? { keep: (prefix) => keep(prompt, prefix) } : {}),
    }))
    const finished: LocalCompletion[][] = prompts.map(() => [])
    for await (const event of this.#generator.stream(requests, { signal: control.signal })) {
      if (event.type !== "finish" || event.completion.finish === "aborted") continue
      const { prompt, index } = wanted[event.request]!
      const { tokens, logprobs, text, finish } = event.completion
      const finishReason = finish === "end" || finish === "stop" ? "stop" : "length"
      const completion = { prompt, index, tokens, logprobs, text, finishReason } as const
      if (this.#rescore) finished[prompt]!.push(completion)
      else yield completion
    }
    for (const group of finished) group.sort((a, b) => a.index - b.index)
    const scores = await this.score(
      finished.map((group, i) => ({ prompt: prompts[i]!.tokens, completions: group.map((c) => c.tokens) })),
    )
    for (const [g, group] of finished.entries())
      for (const [i, completion] of group.entries()) yield { ...completion, logprobs: [...scores[g]![i]!] }
  }

  /** Log-probs of completions by the training kernels, nats; see {@link scoreCompletions}. */
  score(
    requests: readonly { readonly prompt: readonly number[]; readonly completions: readonly (readonly number[])[] }[],
  ): Promise<Float64Array[][]> {
    return scoreCompletions(this.#generator.model, requests, { adapters: this.#generator.adapters })
  }

  /** Bytes that the cache takes when `prompts` are generated with `maxTokens` and all grow to it; never more than what the generator may hold. */
  cacheBytes(prompts: readonly TokenPrompt[], maxTokens: number): number {
    return this.#generator.forecastCache(prompts, maxTokens)
  }

  /** Gives the cache's memory back for training; the next call allocates it again. */
  release(): void {
    this.#generator.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#generator[Symbol.dispose]()
  }
}

/** Makes {@link LocalRollout}s; the default rollout engine. */
export const localRollout = {
  name: "local",
  create: (model: CausalLM, options: LocalRolloutOptions): LocalRollout => new LocalRollout(model, options),
} as const
