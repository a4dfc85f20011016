import type { ChatMessage } from "@sloth/data"
import type { Tokenizer } from "@sloth/model"

/** What a completion starts from: a question or text, a conversation, or token ids. */
export type Prompt = string | readonly ChatMessage[] | readonly number[]

/** How a prompt is turned into tokens. */
export interface PromptOptions {
  /** Continues a text as it is instead of asking it as a question through the chat template. */
  readonly raw?: boolean
  /** System message in front of a question. */
  readonly system?: string
  /** Chat template source; the model's own when absent. */
  readonly template?: string
}

/**
 * Token ids of a prompt. A text becomes a user message where the model has a chat template, unless `raw`; without a template it is continued as it is.
 * Errors: SLOTH_CHAT_TEMPLATE for a conversation with a model that has no template.
 */
export const promptTokens = async (
  tokenizer: Tokenizer,
  prompt: Prompt,
  options: PromptOptions = {},
): Promise<readonly number[]> => {
  const { chatPrompt, textPrompt } = await import("@sloth/infer")
  if (typeof prompt !== "string") {
    if (prompt.length === 0 || typeof prompt[0] === "number") return prompt as readonly number[]
    return chatPrompt(tokenizer, prompt as readonly ChatMessage[], options.template)
  }
  const template = options.template ?? tokenizer.chatTemplate
  if (options.raw === true || template === undefined) return textPrompt(tokenizer, prompt)
  const system = options.system === undefined ? [] : [{ role: "system", content: options.system }]
  return chatPrompt(tokenizer, [...system, { role: "user", content: prompt }], template)
}
