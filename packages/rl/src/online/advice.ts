import { mean } from "../internal/math.ts"

/** Something in a run's figures that its user should hear about. */
export interface Advice {
  readonly code: string
  readonly message: string
  readonly fields: Readonly<Record<string, number>>
}

/** Rollouts that are looked at together. */
const WINDOW = 5

type Figures = Readonly<Record<string, number>>

/** Watches the figures of a run step by step and says, once each, what is going wrong and what helps. */
export class Adviser {
  readonly #history: Figures[] = []
  readonly #said = new Set<string>()
  readonly #limit: number
  readonly #prompts: number
  readonly #pairs: "first" | "nothing" | undefined
  /** Rollouts in a row that a judge has said little of. */
  #silent = 0
  #bestReward = Number.NEGATIVE_INFINITY

  /** `limit`: most tokens of a completion; `prompts`: prompts of a rollout; `pairs`: where completions are compared in pairs, what one of equal rewards teaches: that the first is better, or nothing. */
  constructor(limit: number, prompts: number, pairs?: "first" | "nothing") {
    this.#limit = limit
    this.#prompts = prompts
    this.#pairs = pairs
  }

  /** Takes the figures of a step; steps without a rollout are left out. */
  take(figures: Figures): readonly Advice[] {
    return [...this.#silence(figures), ...this.#trouble(figures)]
  }

  /** A judge whose answers say nothing: where it never does there is no reward to look at either. */
  #silence(figures: Figures): readonly Advice[] {
    return Object.entries(figures).flatMap(([name, share]): readonly Advice[] => {
      const [, judge] = /^rewards\/(.+)\/unparsed$/.exec(name) ?? []
      if (judge === undefined) return []
      const code = "SLOTH_RL_JUDGE_SILENT"
      this.#silent = share >= 0.5 ? this.#silent + 1 : 0
      if (this.#silent < WINDOW || this.#said.has(code)) return []
      this.#said.add(code)
      const message =
        `The judge "${judge}" gave no judgement of ${Math.round(100 * share)} % of the last rollout, and of at least half in ${WINDOW} in a row: what it does not judge teaches nothing. ` +
        "Look at its answers: it may be too small a model, be cut before its last line (maxTokens), or want a `parse` of its own."
      return [{ code, message, fields: { share } }]
    })
  }

  #trouble(figures: Figures): readonly Advice[] {
    if (figures["reward"] === undefined) return []
    this.#history.push(figures)
    const window = (name: string, end = this.#history.length): number | undefined => {
      const values = this.#history.slice(Math.max(0, end - WINDOW), end).flatMap((f) => f[name] ?? [])
      return values.length < WINDOW ? undefined : mean(values)
    }
    const found: Advice[] = []
    const say = (code: string, message: string, fields: Figures): void => {
      if (this.#said.has(code)) return
      this.#said.add(code)
      found.push({ code, message, fields })
    }
    const reward = window("reward")
    if (reward === undefined) return []
    const percent = (share: number): string => `${Math.round(100 * share)} %`

    const flat = window("frac_reward_zero_std")!
    if (flat >= 0.8)
      say(
        "SLOTH_RL_FLAT_GROUPS",
        `In ${percent(flat)} of the ${this.#pairs === undefined ? "groups" : "pairs"} of the last ${WINDOW} rollouts all completions had the same reward (mean ${reward.toPrecision(3)}): ${this.#pairs === "first" ? 'the first counts as the better one, so that they teach chance. Set ties to "skip".' : "they teach nothing."} If the reward is at its top, the prompts are too easy; if it is at its bottom, the model never succeeds. Take prompts of another difficulty, give partial credit in the reward, ${this.#pairs === undefined ? "raise numGenerations or temperature, or set dynamicSampling or replayBuffer" : "or raise temperature"}.`,
        { share: flat, reward },
      )

    // The standard error of a mean over the window, as if the completions of a prompt were one draw: easy and hard prompts differ more than their completions do.
    const error = (window("reward_std") ?? 0) / Math.sqrt(WINDOW * this.#prompts)
    const drop = this.#bestReward - reward
    if (drop > 6 * error && drop > 0.3 * Math.abs(this.#bestReward))
      say(
        "SLOTH_RL_REWARD_COLLAPSE",
        `The mean reward has fallen from ${this.#bestReward.toPrecision(3)} to ${reward.toPrecision(3)}. Lower learningRate, set beta (0.01 to 0.1) to stay near the starting model, or go back to the checkpoint before the fall.`,
        { best: this.#bestReward, reward },
      )
    this.#bestReward = Math.max(this.#bestReward, reward)

    const length = window("completions/mean_length")!
    const cut = window("completions/clipped_ratio")!
    const first = window("completions/mean_length", WINDOW)!
    if (cut >= 0.5 && length > 1.5 * first)
      say(
        "SLOTH_RL_LENGTH_EXPLOSION",
        `Completions have grown from ${first.toFixed(0)} to ${length.toFixed(0)} tokens, and ${percent(cut)} are cut at ${this.#limit}. Add a reward for length (softOverlong), set maskTruncated, use the loss dr_grpo, or lower learningRate.`,
        { first, length, truncated: cut },
      )
    else if (cut >= 0.8)
      say(
        "SLOTH_RL_TRUNCATED",
        `${percent(cut)} of the completions are cut at ${this.#limit} tokens, before they end. Raise maxCompletionLength, or reward an end.`,
        { truncated: cut, limit: this.#limit },
      )

    const kl = window("kl")
    const firstKl = window("kl", WINDOW)
    if (kl !== undefined && firstKl !== undefined && kl > 0.5 && kl > 5 * firstKl)
      say(
        "SLOTH_RL_KL",
        `The policy has moved ${kl.toPrecision(3)} nats a token away from the starting model (it began with ${firstKl.toPrecision(3)}). Raise beta, lower learningRate, or stop where the answers still read well.`,
        { kl, first: firstKl },
      )

    const entropy = window("entropy")
    const firstEntropy = window("entropy", WINDOW)
    if (entropy !== undefined && firstEntropy !== undefined && firstEntropy > 0.1 && entropy < 0.1 * firstEntropy)
      say(
        "SLOTH_RL_ENTROPY_COLLAPSE",
        `The entropy has fallen from ${firstEntropy.toPrecision(3)} to ${entropy.toPrecision(3)} nats: completions of a prompt are nearly equal, so that little is left to learn from. Raise temperature or clipHigh (0.28), set adaptiveEntropy or an entropyCoef (0.001 to 0.01), or lower learningRate.`,
        { first: firstEntropy, entropy },
      )
    return found
  }
}
