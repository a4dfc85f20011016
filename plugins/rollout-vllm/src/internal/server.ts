import { setTimeout as pause } from "node:timers/promises"
import { isSlothError, SlothError } from "@sloth/core"
import type { VllmSettings } from "../settings.ts"

/** An answer of the server, whatever its status. */
export interface ServerAnswer {
  readonly status: number
  readonly text: string
  /** The body as JSON; undefined where it is none. */
  readonly json: unknown
  /** Attempts that were made before this one. */
  readonly retried: number
}

/** Answers that another attempt may change. */
const mayPass = (status: number): boolean => status === 408 || status === 429 || status >= 500

/** What an error of the server says: vLLM has `{ error: { message } }`, older ones `{ message }`, and FastAPI `{ detail }`. */
export const messageOf = ({ json, text }: Pick<ServerAnswer, "json" | "text">): string => {
  const body = (json ?? {}) as Readonly<Record<string, unknown>>
  const error = body["error"]
  const message =
    typeof error === "object" && error !== null
      ? (error as Readonly<Record<string, unknown>>)["message"]
      : (body["message"] ?? body["detail"] ?? error)
  return (typeof message === "string" ? message : text).slice(0, 500)
}

/** The HTTP side: key, time-outs, further attempts. */
export class Server {
  readonly #settings: VllmSettings

  constructor(settings: VllmSettings) {
    this.#settings = settings
  }

  /**
   * Asks, and asks again where a failure may pass. Returns answers of any status below 500 that is not about load. An abort throws the signal's reason.
   * Errors: SLOTH_VLLM_UNREACHABLE, SLOTH_VLLM_TIMEOUT, SLOTH_VLLM_HTTP, SLOTH_VLLM_KEY.
   */
  async ask(path: string, body: unknown, signal?: AbortSignal): Promise<ServerAnswer> {
    const { retries, retryDelaySeconds } = this.#settings
    for (let attempt = 0; ; attempt++) {
      signal?.throwIfAborted()
      let failure: SlothError
      try {
        const answer = await this.#once(path, body, signal)
        if (answer.status === 401 || answer.status === 403) throw this.#key(path, answer.status)
        if (!mayPass(answer.status)) return { ...answer, retried: attempt }
        failure = this.#http(path, answer, attempt)
      } catch (error) {
        signal?.throwIfAborted()
        const code = isSlothError(error) ? error.code : undefined
        if (code !== "SLOTH_VLLM_UNREACHABLE" && code !== "SLOTH_VLLM_TIMEOUT") throw error
        failure = error as SlothError
      }
      if (attempt >= retries) throw failure
      try {
        await pause(retryDelaySeconds * 1000 * 2 ** attempt, undefined, signal === undefined ? {} : { signal })
      } catch {
        signal?.throwIfAborted()
      }
    }
  }

  async #once(path: string, body: unknown, signal: AbortSignal | undefined): Promise<Omit<ServerAnswer, "retried">> {
    const { baseUrl, apiKeyVariable, timeoutSeconds } = this.#settings
    const key = process.env[apiKeyVariable]
    const limit = AbortSignal.timeout(timeoutSeconds * 1000)
    const url = `${baseUrl}${path}`
    try {
      const response = await fetch(url, {
        method: body === undefined ? "GET" : "POST",
        headers: {
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(key === undefined || key === "" ? {} : { authorization: `Bearer ${key}` }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        signal: signal === undefined ? limit : AbortSignal.any([signal, limit]),
      })
      const text = await response.text()
      return { status: response.status, text, json: parsed(text) }
    } catch (cause) {
      throw limit.aborted
        ? new SlothError("SLOTH_VLLM_TIMEOUT", {
            what: `The server has not answered ${url} in ${timeoutSeconds} s.`,
            next: "Raise timeoutSeconds, or ask fewer at once with `concurrency`.",
            fields: { url, timeoutSeconds },
            cause,
          })
        : new SlothError("SLOTH_VLLM_UNREACHABLE", {
            what: `No server answers at ${url}.`,
            why: cause instanceof Error ? cause.message : String(cause),
            next: "Start it (vllm serve MODEL --enable-lora), or correct baseUrl.",
            fields: { url },
            cause,
          })
    }
  }

  #key(path: string, status: number): SlothError {
    const { baseUrl, apiKeyVariable } = this.#settings
    return new SlothError("SLOTH_VLLM_KEY", {
      what: `The server at ${baseUrl} wants a key, or another one (status ${status}).`,
      next: `Put the key into the environment variable ${apiKeyVariable}.`,
      fields: { url: `${baseUrl}${path}`, status, apiKeyVariable },
    })
  }

  #http(path: string, answer: Pick<ServerAnswer, "status" | "text" | "json">, attempt: number): SlothError {
    const url = `${this.#settings.baseUrl}${path}`
    return new SlothError("SLOTH_VLLM_HTTP", {
      what: `The server answered ${url} with status ${answer.status}, ${attempt + 1} times in a row.`,
      why: messageOf(answer),
      next: "Look at what the server logs.",
      fields: { url, status: answer.status, attempts: attempt + 1 },
    })
  }
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined
  }
}
