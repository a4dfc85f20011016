import { isSlothError, SlothError } from "@sloth/core"
import { renderChat } from "@sloth/data"
import { templateTokens } from "@sloth/infer"
import type { Tokenizer } from "@sloth/model"
import type { EpisodeMessage, ToolResult } from "./environment.ts"
import { toolCallFormat, type ToolCallFormat } from "./tool-calls.ts"

/**
 * Token ids of an episode. What the model has sampled stays as it was sampled; only what is new is encoded, by the text that the template prints behind the
 * model's turn. So the ids that are trained on are those whose log-probs were sampled.
 */
export class Dialogue {
  readonly #tokenizer: Tokenizer
  readonly #template: string
  readonly #options: Parameters<typeof renderChat>[2]
  readonly format: ToolCallFormat
  #printsTools: boolean | undefined

  /** Errors: SLOTH_CHAT_TEMPLATE for a model without a chat template. */
  constructor(tokenizer: Tokenizer, tools: readonly unknown[], template: string | undefined = tokenizer.chatTemplate) {
    if (template === undefined)
      throw new SlothError("SLOTH_CHAT_TEMPLATE", {
        what: "This model has no chat template.",
        why: "An episode is a conversation.",
        next: "Take an instruction-tuned model, or give a template.",
      })
    this.#tokenizer = tokenizer
    this.#template = template
    this.format = toolCallFormat(template)
    this.#options = {
      ...templateTokens(tokenizer),
      ...(tools.length === 0 ? {} : { tools }),
      // A run that goes over midnight must not change its prompts.
      ...(template.includes("strftime_now") ? { date: new Date() } : {}),
    }
  }

  /** Ids up to where the model speaks for the first time. */
  start(messages: readonly EpisodeMessage[]): number[] {
    return this.#tokenizer.encode(this.#render(messages))
  }

  /**
   * Ids that stand between what the model said and where it speaks again. `last` is the last id it sampled: the end of its turn is not written twice.
   * Errors: SLOTH_ENVIRONMENT_TEMPLATE where the template does not print a turn of the model.
   */
  between(before: readonly EpisodeMessage[], added: readonly EpisodeMessage[], last: number | undefined): number[] {
    // A text that no template changes and that stands nowhere else.
    const mark = `turn${before.length}of7f3a`
    const text = this.#render([...before, { role: "assistant", content: mark }, ...added])
    const at = text.lastIndexOf(mark)
    if (at < 0)
      throw new SlothError("SLOTH_ENVIRONMENT_TEMPLATE", {
        what: "The chat template does not print what the assistant says.",
        next: "Give another template.",
      })
    const ids = this.#tokenizer.encode(text.slice(at + mark.length))
    return last !== undefined && ids[0] === last && this.#tokenizer.endOfGeneration.has(last) ? ids.slice(1) : ids
  }

  /** Results of tools as messages: of the role "tool" where the template prints it, else in a message of the user. */
  results(results: readonly ToolResult[], before: readonly EpisodeMessage[]): EpisodeMessage[] {
    if (results.length === 0) return []
    this.#printsTools ??= this.#canPrintTools(before)
    if (this.#printsTools) return results.map(({ call, content }) => ({ role: "tool", name: call.name, content }))
    return [
      {
        role: "user",
        content: results.map(({ content }) => `<tool_response>\n${content}\n</tool_response>`).join("\n"),
      },
    ]
  }

  #canPrintTools(before: readonly EpisodeMessage[]): boolean {
    const probe = "result7f3a"
    try {
      const text = this.#render([
        ...before,
        { role: "assistant", content: "-" },
        { role: "tool", name: "tool", content: probe },
      ])
      return text.includes(probe)
    } catch (error) {
      if (isSlothError(error) && error.code.startsWith("SLOTH_TEMPLATE_")) return false
      throw error
    }
  }

  #render(messages: readonly EpisodeMessage[]): string {
    return renderChat(this.#template, messages, { ...this.#options, addGenerationPrompt: true })
  }
}
