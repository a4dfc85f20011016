import { renderChat, type ChatMessage, type RenderOptions } from "@sloth/data"
import type { Tokenizer } from "@sloth/model"
import { SlothError } from "@sloth/core"
import type { Completion, GenerateEvent, Generator } from "./generator.ts"
import type { SamplingOptions } from "./sampling.ts"

/** What a chat template prints for the beginning and the end of a text, where the tokenizer has such tokens: options of `renderChat`. */
export const templateTokens = (tokenizer: Tokenizer): Pick<RenderOptions, "bosToken" | "eosToken"> => {
  const { bos, eos } = tokenizer.special
  return {
    ...(bos === undefined ? {} : { bosToken: tokenizer.idToToken(bos) }),
    ...(eos === undefined ? {} : { eosToken: tokenizer.idToToken(eos) }),
  }
}

/** Token ids of a conversation up to where the assistant speaks. Errors: SLOTH_CHAT_TEMPLATE when the model has no chat template. */
export const chatPrompt = (
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  template: string | undefined = tokenizer.chatTemplate,
): number[] => {
  if (template === undefined)
    throw new SlothError("SLOTH_CHAT_TEMPLATE", {
      what: "This model has no chat template.",
      why: "It is a base model, or its files leave the template out.",
      next: "Use `sloth generate --raw` to continue a text, or give a template.",
    })
  const text = renderChat(template, messages, { addGenerationPrompt: true, ...templateTokens(tokenizer) })
  return tokenizer.encode(text)
}

/** Token ids of a plain text, with the bos token where the model expects one. */
export const textPrompt = (tokenizer: Tokenizer, text: string): number[] => {
  const ids = tokenizer.encode(text)
  const { bos } = tokenizer.special
  return tokenizer.addBos && bos !== undefined && ids[0] !== bos ? [bos, ...ids] : ids
}

/** A conversation that grows; each turn only computes what is new. */
export class ChatSession {
  readonly #generator: Generator
  readonly #template: string | undefined
  /** The conversation so far. */
  readonly messages: ChatMessage[]

  constructor(generator: Generator, options: { readonly system?: string; readonly template?: string } = {}) {
    this.#generator = generator
    this.#template = options.template ?? generator.tokenizer.chatTemplate
    this.messages = options.system === undefined ? [] : [{ role: "system", content: options.system }]
  }

  /** Says something and streams the answer, which joins the conversation when it is complete (an aborted one too, as far as it came). */
  async *send(
    text: string,
    options?: Partial<SamplingOptions>,
    signal?: AbortSignal,
  ): AsyncGenerator<GenerateEvent, Completion, undefined> {
    this.messages.push({ role: "user", content: text })
    let completion: Completion | undefined
    try {
      const prompt = chatPrompt(this.#generator.tokenizer, this.messages, this.#template)
      for await (const event of this.#generator.stream([{ prompt, options }], { keep: true, signal })) {
        if (event.type === "finish") completion = event.completion
        yield event
      }
    } finally {
      // A turn that failed leaves the conversation as it was.
      if (completion === undefined) this.messages.pop()
    }
    this.messages.push({ role: "assistant", content: completion!.text })
    return completion!
  }
}
