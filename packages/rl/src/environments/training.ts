import { SlothError, type Completion, type RolloutEngine, type RolloutFactory, type SamplingOptions } from "@sloth/core"
import { localRollout } from "@sloth/infer"
import type { Tokenizer } from "@sloth/model"
import { defineReward, type DefinedReward } from "../rewards/define-reward.ts"
import { Dialogue } from "./dialogue.ts"
import { callWithin, environmentError, guarded } from "../internal/environment-guard.ts"
import { toolDefinitions, type Environment, type EpisodeMessage } from "./environment.ts"
import { runEpisodes, type Episode } from "./run-episodes.ts"

/** Options of {@link environmentTraining}. */
export interface EnvironmentTrainingOptions {
  readonly tokenizer: Tokenizer
  /** Most tokens of one turn; an equal share of the method's `maxCompletionLength`, which bounds the whole episode after its prompt, for each of `maxTurns` when absent. */
  readonly turnTokens?: number
  /** Longest time of the environment for a turn, seconds; 30 when absent. */
  readonly turnSeconds?: number
  /** What a failure of the environment does: end the run (the default), or leave that episode without a score. */
  readonly onError?: "throw" | "null"
  /** The engine that generates the turns; the local one when absent. */
  readonly rollout?: RolloutFactory
  /** Instead of the tokenizer's chat template; give the data the same. */
  readonly template?: string
  readonly signal?: AbortSignal
}

/** What training on an environment takes: rows for the method's `open`, and `rollout` and `rewards` for `train`. */
export interface EnvironmentTraining {
  readonly rows: readonly Readonly<Record<string, unknown>>[]
  readonly rollout: RolloutFactory
  readonly reward: DefinedReward
}

/** A rollout engine's completion that knows which of its tokens the model sampled. */
interface EpisodeCompletion extends Completion {
  readonly mask: Uint8Array
  readonly text: string
  readonly details: Readonly<Record<string, unknown>>
}

/** An episode for `samples.jsonl`: what was said and earned in each turn, and why it ended. */
const detailsOf = ({ turns, ended, error }: Episode): Readonly<Record<string, unknown>> => ({
  turns: turns.map(({ start, end, text, reward, answer }) => ({
    text,
    tokens: end - start,
    reward,
    answer: answer.map(({ role, content }) => ({ role, content: content ?? "" })),
  })),
  ended,
  ...(error === undefined ? {} : { error: error.what }),
})

/**
 * Makes an environment into what the online methods train on. Each completion is then a whole episode: what the environment said is masked, and the reward is what the
 * episode earned. What an environment says first must depend on the row alone, not on the seed: it is the prompt that the episodes of a group share.
 * Every row is begun once, here, so that an environment that fails or hangs is told before a run starts. Errors: SLOTH_ENVIRONMENT_PROMPT where the beginning depends on
 * more, or where rows cannot be told apart by it; SLOTH_ENVIRONMENT_FAILED, SLOTH_ENVIRONMENT_TIMEOUT; SLOTH_CHAT_TEMPLATE; those of {@link runEpisodes} as it runs.
 */
export const environmentTraining = async <Row extends object, State>(
  environment: Environment<Row, State>,
  rows: readonly Row[],
  options: EnvironmentTrainingOptions,
): Promise<EnvironmentTraining> => {
  const { tokenizer, template, turnTokens, turnSeconds = 30, onError = "throw" } = options
  const tools = toolDefinitions(environment.tools ?? [])
  const dialogue = new Dialogue(tokenizer, tools, template)
  const byPrompt = new Map<string, Row>()
  const made: Readonly<Record<string, unknown>>[] = []
  const limits = { environment: environment.name, turnSeconds, signal: options.signal }
  const attempt = async <A>(work: () => Promise<A>): Promise<A> => {
    try {
      return await work()
    } catch (cause) {
      options.signal?.throwIfAborted()
      throw environmentError(environment.name, cause)
    }
  }
  await attempt(async () => environment.ready?.())
  const firstOf = async (row: Row, seed: number) => {
    const begun: unknown = await attempt(() =>
      guarded(limits, (context) => callWithin(context, () => environment.reset(row, seed, context))),
    )
    const { messages, state } = checkedBeginning<State>(environment.name, begun)
    await attempt(() => guarded(limits, (context) => callWithin(context, () => environment.close?.(state))))
    return { messages, key: dialogue.start(messages).join(" ") }
  }
  for (const [index, row] of rows.entries()) {
    const { messages, key } = await firstOf(row, 0)
    const other = byPrompt.get(key)
    const changed = index === 0 && (await firstOf(row, 1)).key !== key
    if (changed || (other !== undefined && JSON.stringify(other) !== JSON.stringify(row)))
      throw new SlothError("SLOTH_ENVIRONMENT_PROMPT", {
        what: changed
          ? `What the environment "${environment.name}" says first depends on the seed.`
          : `The environment "${environment.name}" says the same first for two different rows (row ${index} and one before).`,
        why: "The episodes of a group share their prompt, and a prompt must tell which row it is of.",
        next: "Let the first message follow from the row; what is random may come after it or stay hidden.",
        fields: { environment: environment.name, row: index },
      })
    byPrompt.set(key, row)
    made.push({ ...row, prompt: messages, ...(tools.length === 0 ? {} : { tools }) })
  }

  const episodes = new WeakMap<readonly number[], Episode>()
  let figures: Readonly<Record<string, number>> = {}
  const rollout: RolloutFactory = {
    name: `environment_${environment.name}`,
    ...(options.rollout?.elsewhere === true ? { elsewhere: true } : {}),
    create: async (model: never, settings: never) => {
      const inner = await ((options.rollout ?? localRollout) as RolloutFactory).create(model, settings)
      return new EpisodeEngine(inner, async (prompts, sampling, signal) => {
        const played = prompts.map(({ tokens }) => {
          const row = byPrompt.get(tokens.join(" "))
          if (row !== undefined) return row
          throw new SlothError("SLOTH_ENVIRONMENT_PROMPT", {
            what: `A prompt is not of the environment "${environment.name}".`,
            why: "The data, its template or its date are others than those that the environment was made ready with.",
            next: "Open the rows that environmentTraining gives, with the same tokenizer and template.",
            fields: { environment: environment.name },
          })
        })
        const { seed = 0, ...rest } = sampling
        const share = Math.max(1, Math.floor(sampling.maxTokens / (environment.maxTurns ?? 8)))
        const run = await runEpisodes(inner, tokenizer, environment, played, {
          count: prompts[0]?.count ?? 1,
          sampling: { ...rest, maxTokens: Math.min(turnTokens ?? share, sampling.maxTokens) },
          maxTokens: sampling.maxTokens,
          seed,
          onError,
          turnSeconds,
          ...(template === undefined ? {} : { template }),
          ...(signal === undefined ? {} : { signal }),
        })
        figures = run.metrics
        return run.episodes.map((episode): EpisodeCompletion => {
          const tokens = Array.from(episode.tokens)
          episodes.set(tokens, episode)
          return {
            prompt: episode.row,
            index: episode.index,
            tokens,
            mask: episode.mask,
            logprobs: episode.logprobs.some(Number.isNaN) ? [] : Array.from(episode.logprobs),
            finishReason: episode.ended === "length" ? "length" : "stop",
            text: tokenizer.decode(tokens, { skipSpecialTokens: true }),
            details: detailsOf(episode),
          }
        })
      })
    },
  }
  const reward = defineReward({
    name: environment.name,
    score: (samples, { metric }) => {
      for (const [name, value] of Object.entries(figures)) metric(name, value)
      return samples.map(({ completionTokens }) => {
        const episode = episodes.get(completionTokens)
        if (episode !== undefined) return episode.reward
        throw new SlothError("SLOTH_ENVIRONMENT_PROMPT", {
          what: `A completion is no episode of the environment "${environment.name}".`,
          next: "Train with the rollout that environmentTraining gives beside the reward.",
          fields: { environment: environment.name },
        })
      })
    },
  })
  return { rows: made, rollout, reward }
}

/** What `reset` gave, checked as far as a plain program can get it wrong. Errors: SLOTH_ENVIRONMENT_RESET. */
const checkedBeginning = <State>(
  name: string,
  begun: unknown,
): { readonly messages: readonly EpisodeMessage[]; readonly state: State } => {
  const { messages, state } = (begun ?? {}) as { readonly messages?: unknown; readonly state?: unknown }
  const isMessage = (value: unknown): boolean =>
    typeof value === "object" && value !== null && typeof (value as { readonly role?: unknown }).role === "string"
  if (Array.isArray(messages) && messages.length > 0 && messages.every(isMessage))
    return { messages: messages as readonly EpisodeMessage[], state: state as State }
  throw new SlothError("SLOTH_ENVIRONMENT_RESET", {
    what: `reset of the environment "${name}" gave no messages.`,
    why: "An episode begins with what the model is told.",
    next: 'Return { messages: [{ role: "user", content: "..." }], state: ... }.',
    fields: { environment: name },
  })
}

type Play = (
  prompts: readonly Parameters<RolloutEngine["generate"]>[0][number][],
  sampling: SamplingOptions,
  signal: AbortSignal | undefined,
) => Promise<readonly EpisodeCompletion[]>

/** An engine whose completions are episodes. */
class EpisodeEngine implements RolloutEngine {
  readonly #inner: RolloutEngine & { release?(): void }
  readonly #play: Play

  constructor(inner: RolloutEngine, play: Play) {
    this.#inner = inner
    this.#play = play
  }

  async *generate(
    prompts: Parameters<RolloutEngine["generate"]>[0],
    sampling: SamplingOptions,
    control: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<EpisodeCompletion, void, undefined> {
    // Methods ask for as many completions of each prompt; anything else takes its turns one after the other.
    const counts = new Set(prompts.map(({ count }) => count ?? 1))
    for (const count of counts) {
      const places = prompts.flatMap((prompt, i) => ((prompt.count ?? 1) === count ? [i] : []))
      const played = await this.#play(
        places.map((i) => prompts[i]!),
        sampling,
        control.signal,
      )
      for (const completion of played) yield { ...completion, prompt: places[completion.prompt]! }
    }
  }

  release(): void {
    this.#inner.release?.()
  }

  weightsChanged(): void {
    this.#inner.weightsChanged?.()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#inner[Symbol.asyncDispose]()
  }
}
