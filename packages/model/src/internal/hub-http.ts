import * as fs from "node:fs"
import { homedir } from "node:os"
import { join } from "node:path"
import { SlothError } from "@sloth/core"
import { formatHubRef, type HubRef } from "../hub-ref.ts"

type Env = Readonly<Record<string, string | undefined>>

/** What every request needs. */
export interface HubConnection {
  readonly endpoint: string
  readonly token: string | undefined
  readonly signal: AbortSignal | undefined
}

/** The address of the hub: the mirror in `HF_ENDPOINT`, or huggingface.co. */
export const hubEndpoint = (given: string | undefined, env: Env = process.env): string =>
  (given ?? (env["HF_ENDPOINT"] || "https://huggingface.co")).replace(/\/+$/, "")

/** The user's token from the places other hub clients use; `null` asks for none. */
export const hubToken = (given: string | null | undefined, env: Env = process.env): string | undefined => {
  if (given !== undefined) return given ?? undefined
  const fromEnv = env["HF_TOKEN"] || env["HUGGING_FACE_HUB_TOKEN"]
  if (fromEnv) return fromEnv.trim()
  const home = env["HF_HOME"] || join(env["XDG_CACHE_HOME"] || join(env["HOME"] || homedir(), ".cache"), "huggingface")
  try {
    return fs.readFileSync(env["HF_TOKEN_PATH"] || join(home, "token"), "utf8").trim() || undefined
  } catch {
    return undefined
  }
}

/** Makes a coded error about a repository. */
export const hubError = (
  code: `SLOTH_HUB_${string}`,
  ref: HubRef,
  what: string,
  next: string,
  fields: Record<string, unknown> = {},
  cause?: unknown,
): SlothError =>
  new SlothError(code, {
    what,
    next,
    fields: { repository: ref.name, revision: ref.revision, ...fields },
    ...(cause === undefined ? {} : { cause }),
  })

const systemCodes = (error: unknown): string[] => {
  const codes: string[] = []
  for (let e = error as { code?: unknown; cause?: unknown; errors?: unknown } | undefined; e;) {
    if (typeof e.code === "string") codes.push(e.code)
    if (Array.isArray(e.errors)) for (const inner of e.errors) codes.push(...systemCodes(inner))
    e = e.cause as typeof e
  }
  return codes
}

/** A request that got no answer at all, as a coded error; an abort asked for by the caller passes through. */
export const noAnswer = (error: unknown, ref: HubRef, connection: HubConnection): unknown => {
  if (error instanceof SlothError || connection.signal?.aborted === true) return error
  const codes = systemCodes(error)
  return hubError(
    "SLOTH_HUB_NO_NETWORK",
    ref,
    `The hub at ${connection.endpoint} cannot be reached${codes.length > 0 ? ` (${codes.join(", ")})` : ""}.`,
    `Check the network, set HF_ENDPOINT to a mirror, or use --offline with what was downloaded before.`,
    { endpoint: connection.endpoint, codes },
    error,
  )
}

const gatedText = /gated|awaiting a review|access to (this|model)/i

/** The coded error of a refused request. */
export const refusal = async (
  response: Response,
  ref: HubRef,
  connection: HubConnection,
  path?: string,
): Promise<SlothError> => {
  const header = response.headers.get("X-Error-Code") ?? ""
  const message = response.headers.get("X-Error-Message") ?? ""
  const body = await response.text().catch(() => "")
  const text = `${message} ${body.slice(0, 2000)}`
  const { status } = response
  const fields = { status, path, hubMessage: message || undefined }
  const shown = formatHubRef(ref)
  const page = `${connection.endpoint}/${ref.type === "dataset" ? "datasets/" : ""}${ref.name}`
  const tokenHelp =
    connection.token === undefined
      ? "Set HF_TOKEN to an access token of your account."
      : "The token that was sent has no access; make one that has, and set HF_TOKEN to it."
  if (header === "GatedRepo" || ((status === 401 || status === 403) && gatedText.test(text))) {
    return hubError(
      "SLOTH_HUB_GATED",
      ref,
      `${shown} is gated: its owner asks you to accept terms first.`,
      `Accept them at ${page} and then: ${tokenHelp}`,
      fields,
    )
  }
  if (header === "RevisionNotFound" || (status === 404 && /invalid rev/i.test(text))) {
    return hubError(
      "SLOTH_HUB_REVISION_NOT_FOUND",
      ref,
      `${ref.name} has no revision ${ref.revision}.`,
      `See its branches and tags at ${page}.`,
      fields,
    )
  }
  if (header === "EntryNotFound") {
    return hubError(
      "SLOTH_HUB_FILE_NOT_FOUND",
      ref,
      `${shown} has no file ${path ?? ""}.`,
      `See its files at ${page}.`,
      fields,
    )
  }
  // The hub answers 401 for repositories that do not exist, so that private ones cannot be told from missing ones.
  if (header === "RepoNotFound" || status === 404 || (status === 401 && connection.token === undefined)) {
    return hubError(
      "SLOTH_HUB_REPO_NOT_FOUND",
      ref,
      `${shown} does not exist on ${connection.endpoint}, or it is private.`,
      `Check the name. If it is private: ${tokenHelp}`,
      fields,
    )
  }
  if (status === 401 || status === 403) {
    return hubError("SLOTH_HUB_UNAUTHORIZED", ref, `The hub refuses access to ${shown} (${status}).`, tokenHelp, fields)
  }
  if (status === 429) {
    const wait = response.headers.get("Retry-After")
    return hubError(
      "SLOTH_HUB_RATE_LIMITED",
      ref,
      "The hub says that too many requests were made.",
      `Wait ${wait === null ? "a few minutes" : `${wait} seconds`} and run the same command again; what was downloaded is kept.`,
      fields,
    )
  }
  return hubError(
    "SLOTH_HUB_SERVER",
    ref,
    `The hub answered with status ${status}${message === "" ? "" : ` (${message})`}.`,
    "Try again later; what was downloaded is kept.",
    fields,
  )
}

const maxRedirects = 5

/** A GET that follows redirects itself: the token must not travel to another host. */
export const hubGet = async (
  url: string,
  connection: HubConnection,
  headers: Readonly<Record<string, string>> = {},
  signal: AbortSignal | undefined = connection.signal,
): Promise<Response> => {
  let current = new URL(url)
  const { origin } = new URL(connection.endpoint)
  for (let hop = 0; ; hop++) {
    const own = current.origin === origin && connection.token !== undefined
    const response = await fetch(current, {
      headers: { ...headers, ...(own ? { Authorization: `Bearer ${connection.token}` } : {}) },
      redirect: "manual",
      ...(signal === undefined ? {} : { signal }),
    })
    const location = response.status >= 300 && response.status < 400 ? response.headers.get("Location") : null
    if (location === null || hop >= maxRedirects) return response
    await response.body?.cancel()
    current = new URL(location, current)
  }
}

/** A `fetch` for the hub library that adds the token, follows redirects safely and fails with coded errors. */
export const hubFetch = (ref: HubRef, connection: HubConnection): typeof fetch =>
  // Bun's type has a further member that no caller of this uses.
  (async (input: string | URL | Request) => {
    let response: Response
    try {
      response = await hubGet(String(input instanceof Request ? input.url : input), connection)
    } catch (error) {
      throw noAnswer(error, ref, connection)
    }
    if (!response.ok) throw await refusal(response, ref, connection)
    return response
  }) as unknown as typeof fetch
