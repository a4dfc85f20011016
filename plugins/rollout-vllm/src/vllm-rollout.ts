import {
  SlothError,
  type Completion,
  type RolloutEngine,
  type RolloutWeights,
  type SamplingOptions,
  type TokenPrompt,
} from "@sloth/core"
import { requestSeed } from "@sloth/infer"
import { Adapters } from "./internal/adapters.ts"
import { completionRequest, readCompletions } from "./internal/completions.ts"
import { messageOf, Server } from "./internal/server.ts"
import type { VllmSettings } from "./settings.ts"

/** What the method hands over besides the model. */
export interface VllmRolloutContext extends RolloutWeights {
  /** Whose ends of generation end completions. */
  readonly tokenizer: { readonly endOfGeneration: Iterable<number> }
}

/**
 * Rollouts on a vLLM server, or another with its wire format (as vLLM 0.12 and 0.15 have it in `entrypoints/openai`): prompts go there as ids, ids and log-probs come back. Before the
 * first prompts after an update the adapter is written to a folder that the server reads, loaded under a new name, and the one before unloaded.
 * Log-probs are those of the server before temperature and filters, which is vLLM's default (`--logprobs-mode raw_logprobs`).
 */
export class VllmRollout implements RolloutEngine {
  readonly #settings: VllmSettings
  readonly #server: Server
  readonly #adapters: Adapters
  readonly #ends: readonly number[]
  /** Name of the adapter with the present weights, once it is there. */
  #ready: Promise<string> | undefined

  private constructor(settings: VllmSettings, server: Server, adapters: Adapters, ends: readonly number[]) {
    this.#settings = settings
    this.#server = server
    this.#adapters = adapters
    this.#ends = ends
  }

  /** Finds the server and its model. Errors: SLOTH_VLLM_FULL_WEIGHTS, SLOTH_VLLM_MODEL, SLOTH_VLLM_REPLY, those of reaching the server. */
  static async open(settings: VllmSettings, context: VllmRolloutContext): Promise<VllmRollout> {
    if (context.saveAdapter === undefined)
      throw new SlothError("SLOTH_VLLM_FULL_WEIGHTS", {
        what: "All weights are trained, and a server is only handed adapters.",
        next: "Train an adapter (leave `full` off), or use the local engine (no --rollout).",
      })
    const server = new Server(settings)
    await requireModel(settings, server)
    const adapters = new Adapters(settings, server, context.saveAdapter)
    return new VllmRollout(settings, server, adapters, [...context.tokenizer.endOfGeneration])
  }

  /**
   * Completions as they arrive, those of a prompt together. Leaving the loop, and an abort, end the requests; an abort throws the signal's reason.
   * Errors: SLOTH_VLLM_LORA_DISABLED, SLOTH_VLLM_LORA, SLOTH_VLLM_REQUEST, SLOTH_VLLM_MODEL, SLOTH_VLLM_NO_LOGPROBS, SLOTH_VLLM_NO_TOKEN_IDS, SLOTH_VLLM_REPLY,
   * SLOTH_VLLM_UNREACHABLE, SLOTH_VLLM_TIMEOUT, SLOTH_VLLM_HTTP, SLOTH_VLLM_KEY.
   */
  async *generate(
    prompts: readonly TokenPrompt[],
    options: SamplingOptions,
    control: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Completion, void, undefined> {
    const left = new AbortController()
    const signal = control.signal === undefined ? left.signal : AbortSignal.any([control.signal, left.signal])
    const running = new Map<number, Promise<readonly [number, Completion[]]>>()
    try {
      const adapter = await this.#current(signal)
      let next = 0
      while (next < prompts.length || running.size > 0) {
        while (next < prompts.length && running.size < this.#settings.concurrency) {
          const at = next++
          const request = this.#complete(adapter, prompts[at]!, at, options, signal)
          running.set(
            at,
            request.then((completions) => [at, completions] as const),
          )
        }
        const [at, completions] = await Promise.race(running.values())
        running.delete(at)
        yield* completions
      }
    } finally {
      left.abort()
      await Promise.allSettled(running.values())
    }
  }

  /** The next prompts wait until the server has the new adapter. */
  weightsChanged(): void {
    this.#ready = undefined
  }

  /** Hands the adapter over as it is now. Errors: those of {@link generate}. */
  async syncWeights(signal: AbortSignal): Promise<void> {
    await this.#current(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ready?.catch(() => undefined)
    await this.#adapters.close()
  }

  #current(signal: AbortSignal): Promise<string> {
    this.#ready ??= this.#adapters.replace(signal).catch((error: unknown) => {
      this.#ready = undefined
      throw error
    })
    return this.#ready
  }

  async #complete(
    adapter: string,
    prompt: TokenPrompt,
    at: number,
    sampling: SamplingOptions,
    signal: AbortSignal,
  ): Promise<Completion[]> {
    const seed = requestSeed(sampling.seed ?? 0, at, 0)
    const body = completionRequest(adapter, prompt, sampling, seed, this.#ends)
    const answer = await this.#server.ask("/completions", body, signal)
    if (answer.status >= 300)
      throw answer.status === 404
        ? new SlothError("SLOTH_VLLM_MODEL", {
            what: `The server does not know the adapter ${adapter} that it has loaded, or has no completions.`,
            why: messageOf(answer),
            next: "Check that it was not started again during the run, and that it serves a model that generates.",
            fields: { adapter, status: answer.status },
          })
        : new SlothError("SLOTH_VLLM_REQUEST", {
            what: `The server refuses prompt ${at} (${prompt.tokens.length} tokens, status ${answer.status}).`,
            why: messageOf(answer),
            next: "Prompts and completions must fit into the server's --max-model-len.",
            fields: { prompt: at, tokens: prompt.tokens.length, status: answer.status },
          })
    return readCompletions(answer.json, at, prompt.count ?? 1)
  }
}

/** Sees that the server has the base model. */
const requireModel = async ({ baseUrl, model }: VllmSettings, server: Server): Promise<void> => {
  const answer = await server.ask("/models", undefined)
  const list = (answer.json as { readonly data?: unknown } | undefined)?.data
  if (answer.status >= 300 || !Array.isArray(list))
    throw new SlothError("SLOTH_VLLM_REPLY", {
      what: `What answers at ${baseUrl}/models is no OpenAI interface (status ${answer.status}).`,
      next: 'Give the address with its path, like "http://localhost:8000/v1".',
      fields: { baseUrl, status: answer.status },
    })
  // Adapters name the model that they belong to.
  const models = (list as readonly { readonly id?: unknown; readonly parent?: unknown }[])
    .filter(({ parent }) => parent === undefined || parent === null)
    .map(({ id }) => String(id))
  if (model === undefined ? models.length > 0 : models.includes(model)) return
  throw new SlothError("SLOTH_VLLM_MODEL", {
    what:
      model === undefined
        ? `The server at ${baseUrl} has no model.`
        : `The server at ${baseUrl} has no model "${model}".`,
    why: models.length === 0 ? "Its list is empty." : `It has ${models.join(", ")}.`,
    next: "Start it with the model that is trained, or correct the setting `model`.",
    fields: { baseUrl, model, models },
  })
}
