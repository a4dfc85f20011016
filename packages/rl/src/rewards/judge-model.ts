import { SlothError, type RolloutEngine } from "@sloth/core"
import { chatPrompt } from "@sloth/infer"
import type { Tokenizer } from "@sloth/model"

/** A message to a judge. */
export interface JudgeMessage {
  readonly role: "system" | "user"
  readonly content: string
}

/** A model that judges: an endpoint, a local model, or anything else that answers. */
export interface JudgeModel {
  /** Part of the key under which its answers are kept: a name that changes when its answers may. */
  readonly name: string
  answer(messages: readonly JudgeMessage[], signal: AbortSignal): Promise<string>
}

/** Options of {@link endpointJudge}. */
export interface EndpointJudgeOptions {
  /** Address up to what stands before `/chat/completions`, such as "http://localhost:8000/v1". */
  readonly baseUrl: string
  readonly model: string
  /** The environment variable that holds the key; "OPENAI_API_KEY" when absent. Without a value no key is sent. */
  readonly apiKeyVariable?: string
  /** 0 when absent. */
  readonly temperature?: number
  /** 512 when absent. */
  readonly maxTokens?: number
  /** Longest time of one request, seconds; 60 when absent. */
  readonly timeoutSeconds?: number
  /** Further tries after a failure that may pass: no connection, too slow, 408, 429, 5xx; 3 when absent. */
  readonly retries?: number
  /** Wait before the first further try, milliseconds, doubled with each; 500 when absent. A server's Retry-After comes first. */
  readonly retryDelayMs?: number
}

/**
 * A judge behind an endpoint that speaks OpenAI's chat completions. Errors: SLOTH_JUDGE_OPTION; when it answers: SLOTH_JUDGE_UNREACHABLE, SLOTH_JUDGE_TIMEOUT,
 * SLOTH_JUDGE_HTTP, SLOTH_JUDGE_REPLY. Source: OpenAI API reference, POST /v1/chat/completions.
 */
export const endpointJudge = (options: EndpointJudgeOptions): JudgeModel => {
  const { model, temperature = 0, maxTokens = 512, timeoutSeconds = 60, retries = 3, retryDelayMs = 500 } = options
  const variable = options.apiKeyVariable ?? "OPENAI_API_KEY"
  const url = addressOf(options.baseUrl, variable)
  const ask = async (messages: readonly JudgeMessage[], signal: AbortSignal): Promise<string> => {
    const key = process.env[variable]
    const limit = AbortSignal.timeout(timeoutSeconds * 1000)
    let response: Response
    let body: string
    try {
      response = await fetch(url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...(key === undefined || key === "" ? {} : { authorization: `Bearer ${key}` }),
        },
        body: JSON.stringify({ model, messages, temperature, max_tokens: maxTokens }),
        signal: AbortSignal.any([signal, limit]),
      })
      body = await response.text()
    } catch (cause) {
      signal.throwIfAborted()
      throw limit.aborted
        ? new SlothError("SLOTH_JUDGE_TIMEOUT", {
            what: `The judge at ${url} has not answered in ${timeoutSeconds} s.`,
            next: "Raise timeoutSeconds, or ask fewer at once with `concurrency`.",
            fields: { url, timeoutSeconds },
          })
        : new SlothError("SLOTH_JUDGE_UNREACHABLE", {
            what: `The judge at ${url} cannot be reached: ${cause instanceof Error ? cause.message : String(cause)}.`,
            next: "Check that it runs and that the address is right.",
            fields: { url },
            cause,
          })
    }
    if (!response.ok)
      throw new SlothError("SLOTH_JUDGE_HTTP", {
        what: `The judge at ${url} answered with status ${response.status}.`,
        why: body.slice(0, 500),
        next:
          response.status === 401 || response.status === 403
            ? `Put the key into the environment variable ${variable}.`
            : "Check the model's name and what the server logs.",
        fields: { url, status: response.status, retryAfter: response.headers.get("retry-after") ?? undefined },
      })
    const text = contentOf(body)
    if (text !== undefined) return text
    throw new SlothError("SLOTH_JUDGE_REPLY", {
      what: `The judge at ${url} gave an answer without a text.`,
      why: body.slice(0, 500),
      next: "Check that the server speaks OpenAI's chat completions.",
      fields: { url },
    })
  }
  return {
    name: `${url} ${model} ${temperature} ${maxTokens}`,
    answer: async (messages, signal) => {
      for (let attempt = 0; ; attempt++) {
        try {
          return await ask(messages, signal)
        } catch (error) {
          signal.throwIfAborted()
          if (attempt >= retries || !mayPass(error)) throw error
          const given = Number((error as SlothError).fields["retryAfter"])
          // A server that asks for an hour would stop the run; then it is better to say so.
          const wait = Number.isFinite(given) && given >= 0 ? given * 1000 : retryDelayMs * 2 ** attempt
          if (wait > timeoutSeconds * 1000) throw error
          await pause(wait, signal)
        }
      }
    },
  }
}

const addressOf = (baseUrl: string, variable: string): string => {
  const text = `${baseUrl.replace(/\/+$/, "")}/chat/completions`
  const url = URL.canParse(text) ? new URL(text) : undefined
  const web = url !== undefined && (url.protocol === "http:" || url.protocol === "https:")
  // Addresses are written into records and messages, and such parts may be a secret: they are not said again.
  const more = web ? url.username + url.password + url.search + url.hash !== "" : /[@?#]/.test(baseUrl)
  if (more)
    throw new SlothError("SLOTH_JUDGE_OPTION", {
      what: "The address of a judge has a name, a password, a query or a fragment in it.",
      next: `Give one like "http://localhost:8000/v1"; a key comes from the environment variable ${variable}, not from the address.`,
    })
  if (web) return url.href
  throw new SlothError("SLOTH_JUDGE_OPTION", {
    what: `"${baseUrl}" is no address of a judge.`,
    next: 'Give one like "http://localhost:8000/v1".',
    fields: { baseUrl },
  })
}

const mayPass = (error: unknown): boolean => {
  if (!(error instanceof SlothError)) return false
  if (error.code === "SLOTH_JUDGE_UNREACHABLE" || error.code === "SLOTH_JUDGE_TIMEOUT") return true
  const status = Number(error.fields["status"])
  return error.code === "SLOTH_JUDGE_HTTP" && (status === 408 || status === 429 || status >= 500)
}

const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer)
      reject(signal.reason)
    }
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", stop)
      resolve()
    }, ms)
    signal.addEventListener("abort", stop, { once: true })
  })

const contentOf = (body: string): string | undefined => {
  try {
    const parsed = JSON.parse(body) as { choices?: { message?: { content?: unknown } }[] }
    const content = parsed.choices?.[0]?.message?.content
    return typeof content === "string" ? content : undefined
  } catch {
    return undefined
  }
}

/** A judge that is a model here, through the engine that generates for it. `name` says which model it is. Errors: SLOTH_CHAT_TEMPLATE, SLOTH_JUDGE_REPLY. */
export const engineJudge = (
  engine: RolloutEngine,
  tokenizer: Tokenizer,
  options: { readonly name: string; readonly maxTokens?: number },
): JudgeModel => {
  const { name, maxTokens = 512 } = options
  // An engine serves one call at a time.
  let last: Promise<unknown> = Promise.resolve()
  const ask = async (messages: readonly JudgeMessage[], signal: AbortSignal): Promise<string> => {
    signal.throwIfAborted()
    for await (const { tokens } of engine.generate(
      [
        {
          tokens: chatPrompt(
            tokenizer,
            messages.map((message) => ({ ...message })),
          ),
        },
      ],
      {
        maxTokens,
        temperature: 0,
      },
    ))
      return tokenizer.decode([...tokens], { skipSpecialTokens: true })
    throw new SlothError("SLOTH_JUDGE_REPLY", {
      what: `The judge "${name}" gave no answer.`,
      next: "Look at the engine's own messages.",
    })
  }
  return {
    name: `${name} ${maxTokens}`,
    answer: (messages, signal) => {
      const answer = last.then(() => ask(messages, signal))
      last = answer.catch(() => undefined)
      return answer
    },
  }
}
