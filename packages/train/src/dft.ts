import type { Example } from "@sloth/data"
import type { LogprobLoss, Objective } from "./objective.ts"
import { sft } from "./sft.ts"

/**
 * The loss of dynamic fine-tuning: −p log p of every scored token, where the factor p counts as a constant. A token's gradient is that of its cross-entropy times its
 * probability, so rare and noisy tokens no longer dominate. Source: Wu et al. 2025 (DFT); TRL 1.13 `loss_type="dft"`.
 */
export const dynamicLoss: LogprobLoss = {
  kind: "logprobs",
  compute: ({ logprobs, normaliser }) => {
    let [loss, nats] = [0, 0]
    const dlogp = Float64Array.from(logprobs, (logp) => {
      const p = Math.exp(logp)
      loss -= (p * logp) / normaliser
      nats -= logp / normaliser
      return -p / normaliser // d loss / d logp with p held
    })
    return { loss, dlogp, metrics: { nats } }
  },
}

/** Dynamic fine-tuning: supervised fine-tuning in which a token counts by the probability that the model gives it. */
export const dft: Objective<Example> = { ...sft, name: "dft", loss: () => dynamicLoss }
