import type { RolloutEngine, TokenPrompt } from "@sloth/core"
import type { Tokenizer } from "@sloth/model"

/** A policy in words: what it says to all that was said so far. */
export type Policy = (said: string, call: number) => string

/** An engine that says what a policy says, ended by `end`, with log-probs that can be told apart. */
export const scriptedEngine = (tokenizer: Tokenizer, policy: Policy, end = "<|im_end|>") => {
  const calls: (readonly TokenPrompt[])[] = []
  const engine: RolloutEngine = {
    async *generate(prompts, { maxTokens }) {
      calls.push(prompts)
      for (const [prompt, { tokens, count = 1 }] of prompts.entries())
        for (let index = 0; index < count; index++) {
          const said = tokenizer.encode(policy(tokenizer.decode([...tokens]), calls.length - 1) + end)
          const cut = said.slice(0, maxTokens)
          const finishReason = cut.length < said.length ? "length" : "stop"
          yield { prompt, index, tokens: cut, logprobs: cut.map((_, i) => -(i + 1) / 8), finishReason }
        }
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }
  return { engine, calls }
}
