import { SlothError, type Completion, type RolloutEngine, type SamplingOptions } from "@sloth/core"
import { requestSeed } from "@sloth/infer"
import type { Tokenizer } from "@sloth/model"
import type { SampledCompletion } from "../online/sampled-unit.ts"
import { callWithin, environmentError, guarded } from "../internal/environment-guard.ts"
import { Dialogue } from "./dialogue.ts"
import {
  callTools,
  toolDefinitions,
  type AssistantTurn,
  type Environment,
  type EnvironmentContext,
  type EnvironmentStep,
  type EpisodeMessage,
} from "./environment.ts"
import { parseTurn } from "./tool-calls.ts"

/** How to run episodes. */
export interface EpisodeOptions {
  /** Episodes of each row, which all begin the same; 1 when absent. */
  readonly count?: number
  /** `maxTokens` counts for a turn. */
  readonly sampling: Omit<SamplingOptions, "seed">
  /** Most tokens of an episode after its prompt, those of the environment included. An episode without room for another turn ends. */
  readonly maxTokens: number
  /** Everything random follows from it: environments and draws. */
  readonly seed: number
  /** Longest time of the environment for a turn, its tools included, seconds; 30 when absent. */
  readonly turnSeconds?: number
  /** What a failure of the environment does: end the run of episodes (the default), or end that episode without a reward. */
  readonly onError?: "throw" | "null"
  /** Instead of the tokenizer's chat template. */
  readonly template?: string
  readonly signal?: AbortSignal
}

/** One turn of the model within an episode. */
export interface EpisodeTurn {
  /** Where its tokens stand in the episode's `tokens`: from `start` up to `end`. */
  readonly start: number
  readonly end: number
  readonly text: string
  readonly calls: AssistantTurn["calls"]
  readonly reward: number
  /** What was said to the model then: results of tools and messages of the environment. */
  readonly answer: readonly EpisodeMessage[]
}

/** A finished episode. Arrays have an entry a token. */
export interface Episode {
  /** Position of its row in the list given. */
  readonly row: number
  /** Which of the row's episodes, from 0. */
  readonly index: number
  /** Ids before the model spoke first. */
  readonly prompt: readonly number[]
  /** Everything after: what the model sampled, and what the environment said between. */
  readonly tokens: Int32Array
  /** 1 for tokens that the model sampled. */
  readonly mask: Uint8Array
  /** Log-probs with which they were sampled, nats; 0 for the environment's. */
  readonly logprobs: Float64Array
  readonly turns: readonly EpisodeTurn[]
  readonly messages: readonly EpisodeMessage[]
  /** Sum of the turns' rewards; null where the environment failed. */
  readonly reward: number | null
  /** Why it ended: the environment said so, `maxTurns`, no room or a turn cut off at its limit, the environment was too slow, or it failed. */
  readonly ended: "done" | "turns" | "length" | "timeout" | "failed"
  readonly error?: SlothError
}

/** Episodes, in order of row and index, and figures. */
export interface EpisodeRun {
  readonly episodes: readonly Episode[]
  /** `episodes/turns`, `episodes/tokens`, `episodes/ended/<why>` (shares), `tools/calls` and `tools/failed` (an episode), and what environments noted. */
  readonly metrics: Readonly<Record<string, number>>
}

interface Live<State> {
  readonly row: number
  readonly index: number
  state: State
  readonly prompt: number[]
  readonly tokens: number[]
  readonly mask: number[]
  readonly logprobs: number[]
  readonly turns: EpisodeTurn[]
  readonly messages: EpisodeMessage[]
  ended?: Episode["ended"]
  error?: SlothError
}

/**
 * Plays episodes of an environment with a model. All episodes take their turns together, so that the engine generates for all of them at once; environments
 * answer at the same time. Errors: SLOTH_ENVIRONMENT_FAILED and SLOTH_ENVIRONMENT_TIMEOUT unless `onError` is "null", SLOTH_ENVIRONMENT_REWARD for a
 * reward that is no finite number, SLOTH_ENVIRONMENT_ROLLOUT for an engine that leaves a turn out, SLOTH_CHAT_TEMPLATE.
 */
export const runEpisodes = async <Row, State>(
  engine: RolloutEngine,
  tokenizer: Tokenizer,
  environment: Environment<Row, State>,
  rows: readonly Row[],
  options: EpisodeOptions,
): Promise<EpisodeRun> => {
  const { count = 1, sampling, maxTokens, seed, turnSeconds = 30, onError = "throw", signal } = options
  const { tools = [], maxTurns = 8 } = environment
  const dialogue = new Dialogue(tokenizer, toolDefinitions(tools), options.template)
  const noted = new Map<string, number[]>()
  let [toolCalls, toolFailures] = [0, 0]
  const live: Live<State>[] = []
  const opened: State[] = []

  const metric = (name: string, value: number): void => void noted.set(name, [...(noted.get(name) ?? []), value])
  const limited = <A>(work: (context: EnvironmentContext) => A | Promise<A>): Promise<A> =>
    guarded({ environment: environment.name, turnSeconds, signal, metric }, work)
  const failed = (cause: unknown): SlothError => {
    signal?.throwIfAborted()
    const error = environmentError(environment.name, cause)
    if (onError === "throw") throw error
    return error
  }

  try {
    for (const [row, columns] of rows.entries())
      for (let index = 0; index < count; index++) {
        signal?.throwIfAborted()
        const base = { row, index, tokens: [], mask: [], logprobs: [], turns: [] }
        try {
          // Episodes of a row begin the same, so that their rewards can be compared and their prompt is computed once.
          const { messages, state } = await limited((context) =>
            callWithin(context, () => environment.reset(columns, requestSeed(seed, row, 0), context)),
          )
          opened.push(state)
          live.push({ ...base, state, messages: [...messages], prompt: dialogue.start(messages) })
        } catch (cause) {
          const error = failed(cause)
          live.push({ ...base, state: undefined as State, messages: [], prompt: [], ended: endOf(error), error })
        }
      }

    for (let turn = 0; turn < maxTurns; turn++) {
      for (const episode of live)
        if (episode.ended === undefined && episode.tokens.length + sampling.maxTokens > maxTokens)
          episode.ended = "length"
      const active = live.filter((episode) => episode.ended === undefined)
      if (active.length === 0) break
      const completions = await generate(
        engine,
        active,
        { ...sampling, seed: requestSeed(seed, 1 + turn, 1) },
        environment.name,
        signal,
      )
      await Promise.all(
        active.map(async (episode, i) => {
          const completion = completions[i]!
          const start = episode.tokens.length
          episode.tokens.push(...completion.tokens)
          episode.mask.push(...completion.tokens.map(() => 1))
          episode.logprobs.push(
            ...(completion.logprobs.length === completion.tokens.length
              ? completion.logprobs
              : completion.tokens.map(() => Number.NaN)),
          )
          const said = turnText(tokenizer, completion.tokens)
          const { content, calls, malformed } = parseTurn(said, dialogue.format)
          const text = "text" in completion && calls.length === 0 ? String(completion.text) : said
          const before = [...episode.messages]
          episode.messages.push({ role: "assistant", content: text })
          const turnDone = (reward: number, answer: readonly EpisodeMessage[]): void => {
            episode.turns.push({ start, end: start + completion.tokens.length, text, calls, reward, answer })
          }
          const usable = tools.length > 0 ? calls : []
          try {
            const { results, step } = await limited(async (context) => {
              const answers = await callTools(tools, usable, episode.state, context)
              const spoken: AssistantTurn = {
                turn,
                text,
                content,
                calls,
                results: answers,
                malformed,
                finishReason: completion.finishReason,
              }
              const answer: EnvironmentStep =
                (await callWithin(context, () => environment.step?.(episode.state, spoken, context))) ?? {}
              return { results: answers, step: answer }
            })
            toolCalls += results.length
            toolFailures += results.filter((result) => result.failed).length
            const reward = step.reward ?? 0
            if (!Number.isFinite(reward))
              throw new SlothError("SLOTH_ENVIRONMENT_REWARD", {
                what: `The environment "${environment.name}" gave ${String(reward)} as the reward of a turn.`,
                next: "Give a finite number.",
                fields: { environment: environment.name, turn },
              })
            const mistakes =
              environment.step === undefined && tools.length > 0
                ? malformed.map((why) => ({ role: "user", content: why }))
                : []
            const added = [...dialogue.results(results, before), ...mistakes, ...(step.messages ?? [])]
            turnDone(reward, added)
            if (step.done ?? added.length === 0) episode.ended = "done"
            // A turn that was cut off has no end that the next could follow.
            else if (completion.finishReason === "length") episode.ended = "length"
            else if (turn === maxTurns - 1) episode.ended = "turns"
            if (episode.ended !== undefined) {
              episode.messages.push(...added)
              return
            }
            const ids = dialogue.between(before, added, completion.tokens.at(-1))
            episode.messages.push(...added)
            // Without room for another turn, what the environment said last is not written: no episode is longer than the plan holds.
            if (episode.tokens.length + ids.length + sampling.maxTokens > maxTokens) {
              episode.ended = "length"
              return
            }
            episode.tokens.push(...ids)
            episode.mask.push(...ids.map(() => 0))
            episode.logprobs.push(...ids.map(() => 0))
          } catch (cause) {
            const error = failed(cause)
            if (episode.turns.length <= turn) turnDone(0, [])
            episode.ended = endOf(error)
            episode.error = error
          }
        }),
      )
    }
  } finally {
    await Promise.allSettled(
      opened.map((state) => limited((context) => callWithin(context, () => environment.close?.(state)))),
    )
  }
  const episodes = live.map(finished)
  const share = (part: number): number => (episodes.length === 0 ? 0 : part / episodes.length)
  const metrics: Record<string, number> = {
    "episodes/turns": share(episodes.reduce((n, { turns }) => n + turns.length, 0)),
    "episodes/tokens": share(episodes.reduce((n, { tokens }) => n + tokens.length, 0)),
  }
  for (const why of new Set(episodes.map(({ ended }) => ended)))
    metrics[`episodes/ended/${why}`] = share(episodes.filter(({ ended }) => ended === why).length)
  if (tools.length > 0) Object.assign(metrics, { "tools/calls": share(toolCalls), "tools/failed": share(toolFailures) })
  for (const [name, values] of noted) metrics[`environment/${name}`] = values.reduce((a, b) => a + b, 0) / values.length
  return { episodes, metrics }
}

const endOf = (error: SlothError): "timeout" | "failed" =>
  error.code === "SLOTH_ENVIRONMENT_TIMEOUT" ? "timeout" : "failed"

/** The text of a turn with the tokens that mark calls, without the one that ends it. */
const turnText = (tokenizer: Tokenizer, tokens: readonly number[]): string => {
  const last = tokens.at(-1)
  const ends = last !== undefined && tokenizer.endOfGeneration.has(last)
  return tokenizer.decode(ends ? tokens.slice(0, -1) : [...tokens], { skipSpecialTokens: false })
}

/** One completion for each episode. Those with the same tokens so far share their prompt. */
const generate = async (
  engine: RolloutEngine,
  active: readonly { readonly prompt: readonly number[]; readonly tokens: readonly number[] }[],
  sampling: SamplingOptions,
  name: string,
  signal: AbortSignal | undefined,
): Promise<Completion[]> => {
  const groups = new Map<string, number[]>()
  for (const [i, { prompt, tokens }] of active.entries()) {
    const key = `${prompt.join(" ")} ${tokens.join(" ")}`
    groups.set(key, [...(groups.get(key) ?? []), i])
  }
  const members = [...groups.values()]
  const prompts = members.map(([first, ...rest]) => {
    const { prompt, tokens } = active[first!]!
    return { tokens: [...prompt, ...tokens], count: 1 + rest.length }
  })
  const found: (Completion | undefined)[] = active.map(() => undefined)
  const stream = (
    engine.generate as (...args: [...Parameters<RolloutEngine["generate"]>, unknown]) => AsyncIterable<Completion>
  ).call(engine, prompts, sampling, { signal })
  for await (const completion of stream) found[members[completion.prompt]![completion.index]!] = completion
  signal?.throwIfAborted()
  const missing = found.findIndex((completion) => completion === undefined || completion.tokens.length === 0)
  if (missing < 0) return found as Completion[]
  throw new SlothError("SLOTH_ENVIRONMENT_ROLLOUT", {
    what: `The engine left out, or left empty, a turn of an episode of "${name}".`,
    why: "It must give every completion it was asked for, with at least one token.",
    next: "Look at the engine's own messages.",
    fields: { environment: name, episode: missing },
  })
}

const finished = <State>(episode: Live<State>): Episode => {
  const { row, index, prompt, turns, messages, ended = "turns", error } = episode
  return {
    row,
    index,
    prompt,
    turns,
    messages,
    ended,
    tokens: Int32Array.from(episode.tokens),
    mask: Uint8Array.from(episode.mask),
    logprobs: Float64Array.from(episode.logprobs),
    reward: error === undefined ? turns.reduce((sum, turn) => sum + turn.reward, 0) : null,
    ...(error === undefined ? {} : { error }),
  }
}

/**
 * An episode as a completion of its prompt, for `sampledUnits`: what the environment said is masked. `advantage` is one number, or one a token. Log-probs are
 * given as `sampling` where the engine had them and `temperature` is 1, since they are those before the temperature.
 */
export const episodeSample = (
  episode: Episode,
  advantage: number | Float64Array,
  temperature = 1,
): SampledCompletion => ({
  tokens: episode.tokens,
  mask: episode.mask,
  advantage,
  ...(temperature === 1 && !episode.logprobs.some(Number.isNaN) ? { sampling: episode.logprobs } : {}),
})

/**
 * Spreads an advantage for each turn over its tokens; those of the environment have 0.
 * Errors: SLOTH_RL_SAMPLE where their number is not that of the turns.
 */
export const turnAdvantages = (episode: Episode, advantages: readonly number[]): Float64Array => {
  if (advantages.length !== episode.turns.length)
    throw new SlothError("SLOTH_RL_SAMPLE", {
      what: `An episode of ${episode.turns.length} turns was given ${advantages.length} advantages.`,
      next: "Give one a turn.",
    })
  const spread = new Float64Array(episode.tokens.length)
  for (const [i, { start, end }] of episode.turns.entries()) spread.fill(advantages[i]!, start, end)
  return spread
}

/** What each turn and all later ones earned together, discounted by `gamma` a turn: the return that a turn is to be judged by. */
export const turnReturns = (episode: Episode, gamma = 1): number[] => {
  const returns: number[] = []
  let sum = 0
  for (const { reward } of episode.turns.toReversed()) returns.unshift((sum = reward + gamma * sum))
  return returns
}
