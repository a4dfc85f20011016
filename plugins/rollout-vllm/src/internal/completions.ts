import { SlothError, type Completion, type SamplingOptions, type TokenPrompt } from "@sloth/core"

/**
 * The body of a request for all completions of a prompt. Everything that a model's generation_config could change is said, because vLLM takes its defaults from there.
 * Source: `CompletionRequest` of vLLM 0.15.
 */
export const completionRequest = (
  model: string,
  prompt: TokenPrompt,
  sampling: SamplingOptions,
  seed: number,
  ends: Iterable<number>,
): Readonly<Record<string, unknown>> => ({
  model,
  prompt: prompt.tokens,
  n: prompt.count ?? 1,
  max_tokens: sampling.maxTokens,
  temperature: sampling.temperature ?? 1,
  top_p: sampling.topP ?? 1,
  // -1 takes all tokens in every version; 0 does only in later ones.
  top_k: (sampling.topK ?? 0) === 0 ? -1 : sampling.topK,
  min_p: sampling.minP ?? 0,
  repetition_penalty: sampling.repetitionPenalty ?? 1,
  seed,
  ...(sampling.stop === undefined || sampling.stop.length === 0 ? {} : { stop: sampling.stop }),
  stop_token_ids: [...new Set([...ends, ...(sampling.stopTokens ?? [])])],
  skip_special_tokens: false,
  logprobs: 1,
  return_tokens_as_token_ids: true,
  return_token_ids: true,
})

interface Choice {
  readonly index?: unknown
  readonly finish_reason?: unknown
  readonly token_ids?: unknown
  readonly logprobs?: { readonly tokens?: unknown; readonly token_logprobs?: unknown } | null
}

const integers = (value: unknown): readonly number[] | undefined =>
  Array.isArray(value) && value.every((x) => Number.isInteger(x) && (x as number) >= 0)
    ? (value as readonly number[])
    : undefined

/** Ids of a choice: `token_ids`, or the keys "token_id:123" of the log-probs, which is all that servers older than `return_token_ids` (vLLM pull request 22587) have. */
const idsOf = (choice: Choice): readonly number[] | undefined => {
  const given = integers(choice.token_ids)
  if (given !== undefined) return given
  const tokens = choice.logprobs?.tokens
  if (!Array.isArray(tokens)) return undefined
  return integers(
    tokens.map((token) => (typeof token === "string" && /^token_id:\d+$/.test(token) ? Number(token.slice(9)) : -1)),
  )
}

const lacking = (what: string, next: string, fields: Readonly<Record<string, unknown>>): SlothError =>
  new SlothError("SLOTH_VLLM_REPLY", { what, next, fields })

/**
 * The completions in an answer to {@link completionRequest}. Errors: SLOTH_VLLM_NO_LOGPROBS, SLOTH_VLLM_NO_TOKEN_IDS where the server gives none; SLOTH_VLLM_REPLY where
 * completions are missing, empty or ended otherwise.
 */
export const readCompletions = (json: unknown, prompt: number, count: number): Completion[] => {
  const choices = (json as { readonly choices?: unknown } | undefined)?.choices
  if (!Array.isArray(choices) || choices.length !== count)
    throw lacking(
      `The server gave ${Array.isArray(choices) ? choices.length : "no"} completions where ${count} were asked for.`,
      "Check that it speaks OpenAI's completions, with n.",
      { prompt, count },
    )
  const seen = new Set<number>()
  return (choices as readonly Choice[]).map((choice) => {
    const index = choice.index
    if (typeof index !== "number" || !Number.isInteger(index) || index < 0 || index >= count || seen.has(index))
      throw lacking(
        `The server numbered a completion ${String(index)} of ${count}, or twice.`,
        "Check that it speaks OpenAI's completions.",
        {
          prompt,
          index,
        },
      )
    seen.add(index)
    const logprobs = choice.logprobs?.token_logprobs
    if (!Array.isArray(logprobs) || !logprobs.every((x) => typeof x === "number" && Number.isFinite(x)))
      throw new SlothError("SLOTH_VLLM_NO_LOGPROBS", {
        what: "The server gives no log-prob for each token.",
        why: "Without them the difference between its policy and the one that is trained cannot be corrected.",
        next: "Use a server whose completions have logprobs.token_logprobs, such as vLLM.",
        fields: { prompt, index },
      })
    const tokens = idsOf(choice)
    if (tokens === undefined)
      throw new SlothError("SLOTH_VLLM_NO_TOKEN_IDS", {
        what: "The server gives no token ids.",
        why: "Ids made from the text again can differ from those that were sampled.",
        next: "Use a newer vLLM, or another server that knows return_token_ids or return_tokens_as_token_ids.",
        fields: { prompt, index },
      })
    const finishReason = choice.finish_reason
    if (
      tokens.length === 0 ||
      tokens.length !== logprobs.length ||
      (finishReason !== "stop" && finishReason !== "length")
    )
      throw lacking(
        `The server gave a completion with ${tokens.length} tokens, ${logprobs.length} log-probs and finish_reason ${JSON.stringify(finishReason)}.`,
        "Look at what the server logs.",
        { prompt, index, tokens: tokens.length, logprobs: logprobs.length, finishReason },
      )
    return { prompt, index, tokens, logprobs: logprobs as readonly number[], finishReason }
  })
}
