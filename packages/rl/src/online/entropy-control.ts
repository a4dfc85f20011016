import type { LossState } from "@sloth/train"
import { adaptEntropy, bonusWeight, type AdaptiveEntropy } from "./policy-loss.ts"

/** How an entropy bonus steers towards a target entropy. */
export interface AdaptiveEntropySettings {
  /** Entropy below which the bonus acts, nats a token. */
  readonly target: number
  /** What the weight changes by after a step. */
  readonly delta: number
  readonly min: number
  readonly max: number
}

interface Saved {
  readonly coef: number
  /** Null before the first step: JSON has no infinity. */
  readonly lastEntropy: number | null
  readonly step: number
  readonly sum: number
  readonly tokens: number
}

/**
 * The weight of an entropy bonus from step to step. Within a step it stands still, whatever its micro-batches are; the entropy of the whole step moves it for the next.
 * Source: He et al. 2025 (Skywork-OR1); as TRL 1.13.
 */
export class EntropyControl implements LossState {
  readonly #settings: AdaptiveEntropySettings
  #state: AdaptiveEntropy
  #step = 0
  #sum = 0
  #tokens = 0

  constructor(coef: number, settings: AdaptiveEntropySettings) {
    this.#settings = settings
    this.#state = { coef, lastEntropy: Number.POSITIVE_INFINITY }
  }

  /** The weight in this step. */
  weight(step: number): number {
    this.#enter(step)
    return bonusWeight(this.#state, this.#settings.target)
  }

  /** The weight that acts once the entropy is below its target. */
  get coef(): number {
    return this.#state.coef
  }

  /** Adds the entropies of a part of the step. */
  add(step: number, sum: number, tokens: number): void {
    this.#enter(step)
    this.#sum += sum
    this.#tokens += tokens
  }

  save(): Saved {
    const { coef, lastEntropy } = this.#state
    return {
      coef,
      lastEntropy: Number.isFinite(lastEntropy) ? lastEntropy : null,
      step: this.#step,
      sum: this.#sum,
      tokens: this.#tokens,
    }
  }

  restore(saved: unknown): void {
    const { coef, lastEntropy, step, sum, tokens } = saved as Saved
    this.#state = { coef, lastEntropy: lastEntropy ?? Number.POSITIVE_INFINITY }
    this.#step = step
    this.#sum = sum
    this.#tokens = tokens
  }

  /** A new step: the one before is complete, and what it has shown counts from now on. */
  #enter(step: number): void {
    if (step === this.#step) return
    if (this.#tokens > 0) this.#state = adaptEntropy(this.#state, this.#sum / this.#tokens, this.#settings)
    this.#step = step
    this.#sum = 0
    this.#tokens = 0
  }
}
