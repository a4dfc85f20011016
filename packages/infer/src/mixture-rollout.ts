import type { RolloutEngine, SamplingOptions as RolloutSampling, TokenPrompt } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import { LocalRollout, type LocalCompletion, type LocalRolloutOptions } from "./local-rollout.ts"

/** Settings of a {@link MixtureRollout}. */
export interface MixtureOptions extends Omit<LocalRolloutOptions, "adapters" | "rescore" | "speculate"> {
  /** Share of the model without its adapter in the logits. */
  readonly mixture: number
}

/**
 * Completions of the geometric mixture of a model with and without its adapter: each token is drawn from softmax(mixture · logits without + (1 - mixture) · logits with). Batching, sharing of prompts and
 * seeds are those of {@link LocalRollout}; a token costs two passes, and the cache keeps the keys and values of both models. Log-probs are those of the mixture.
 * Source: Munos et al. 2023 (Nash-MD); TRL 1.10, `GeometricMixtureWrapper`, which keeps no cache.
 */
export class MixtureRollout implements RolloutEngine {
  readonly #local: LocalRollout

  constructor(model: CausalLM, options: MixtureOptions) {
    this.#local = new LocalRollout(model, options)
  }

  /** Completions as they finish, not in order. Leaving the loop early or an abort ends the others without a completion. Errors: those of the generator. */
  generate(
    prompts: readonly TokenPrompt[],
    options: RolloutSampling,
    control: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<LocalCompletion, void, undefined> {
    return this.#local.generate(prompts, options, control)
  }

  /** Bytes that the caches take when `prompts` are generated with `maxTokens` and all grow to it. */
  cacheBytes(prompts: readonly TokenPrompt[], maxTokens: number): number {
    return this.#local.cacheBytes(prompts, maxTokens)
  }

  /** Gives the cache's memory back for training; the next call allocates it again. */
  release(): void {
    this.#local.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#local[Symbol.asyncDispose]()
  }
}
