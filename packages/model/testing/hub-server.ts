import { createHash } from "node:crypto"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"

/** A repository the test hub serves. */
export interface ServedRepo {
  readonly files: Readonly<Record<string, Buffer>>
  /** Paths kept in large-file storage: served by another host and hashed with sha256. */
  readonly large?: readonly string[]
  readonly gated?: boolean
  readonly private?: boolean
  readonly type?: "model" | "dataset"
}

/** What the test hub does wrong, and what it saw. */
export interface HubServer extends AsyncDisposable {
  readonly url: string
  readonly storageUrl: string
  readonly requests: {
    readonly url: string
    readonly range: string | undefined
    readonly token: string | undefined
    readonly host: string
  }[]
  /** Ends the next answers for model.safetensors after so many bytes each. */
  breakAfter: number[]
  /** Never sends more than these bytes, without closing the connection. */
  stallAfter: number | undefined
  /** Answers ranges with the whole file. */
  ignoreRange: boolean
  /** Changes the bytes of this file. */
  corrupt: string | undefined
  status: number | undefined
  readonly commit: string
}

const commit = "c0ffee0123456789c0ffee0123456789c0ffee01"
const gitHash = (bytes: Buffer): string =>
  createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex")
const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex")

const listen = (server: Server): Promise<string> =>
  new Promise((resolve) => {
    server.listen(0, "127.0.0.1", () => resolve(`http://127.0.0.1:${(server.address() as AddressInfo).port}`))
  })

/** Starts a server that answers as the hub does: repository info, paged file lists, `resolve` with a redirect to storage, ranges, coded refusals. */
export const startHub = async (repos: Readonly<Record<string, ServedRepo>>, token?: string): Promise<HubServer> => {
  const seen: HubServer["requests"] = []
  const note = (request: IncomingMessage): void => {
    const { authorization, range, host } = request.headers
    seen.push({ url: request.url ?? "", range, token: authorization?.replace("Bearer ", ""), host: host ?? "" })
  }
  const json = (response: ServerResponse, value: unknown, headers: Record<string, string> = {}): void => {
    response.writeHead(200, { "Content-Type": "application/json", ...headers })
    response.end(JSON.stringify(value))
  }
  const refuse = (response: ServerResponse, status: number, code: string): void => {
    response.writeHead(status, code === "" ? {} : { "X-Error-Code": code, "X-Error-Message": code })
    response.end(code)
  }
  const send = (request: IncomingMessage, response: ServerResponse, path: string, content: Buffer): void => {
    const bytes = Buffer.from(content)
    if (state.corrupt === path) bytes[bytes.length >> 1]! ^= 1
    const match = /^bytes=(\d+)-/.exec(request.headers.range ?? "")
    const from = match === null || state.ignoreRange ? 0 : Number(match[1])
    if (from >= bytes.length && bytes.length > 0) {
      response.writeHead(416)
      response.end()
      return
    }
    const part = bytes.subarray(from)
    response.writeHead(from > 0 ? 206 : 200, {
      "Content-Length": String(part.length),
      ...(from > 0 ? { "Content-Range": `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
    })
    const limit = path === "model.safetensors" ? state.breakAfter.shift() : undefined
    if (limit !== undefined && limit < part.length) {
      response.write(part.subarray(0, limit), () => setTimeout(() => response.destroy(), 20))
      return
    }
    if (state.stallAfter !== undefined) {
      response.write(part.subarray(0, state.stallAfter))
      return
    }
    response.end(part)
  }
  const storage = createServer((request, response) => {
    note(request)
    const [, repo, ...rest] = decodeURIComponent(request.url ?? "").split("!")
    const content = repos[repo!]?.files[rest.join("!")]
    if (content === undefined) refuse(response, 404, "")
    else send(request, response, rest.join("!"), content)
  })
  const storageUrl = await listen(storage)
  const hub = createServer((request, response) => {
    note(request)
    if (state.status !== undefined) {
      response.writeHead(state.status, { "Retry-After": "7" })
      response.end()
      return
    }
    const url = new URL(request.url ?? "", state.url)
    const api = /^\/api\/(model|dataset)s\/([^/]+\/[^/]+)\/(revision|tree)\/([^?]+)$/.exec(url.pathname)
    const file = /^\/(datasets\/)?([^/]+\/[^/]+)\/resolve\/([^/]+)\/(.+)$/.exec(url.pathname)
    const name = api?.[2] ?? file?.[2] ?? ""
    const repo = repos[name]
    const type = api?.[1] ?? (file?.[1] === undefined ? "model" : "dataset")
    const allowed = request.headers.authorization === `Bearer ${token}`
    if (repo === undefined || (repo.type ?? "model") !== type || (repo.private === true && !allowed)) {
      refuse(response, 401, "RepoNotFound")
      return
    }
    const revision = decodeURIComponent(api?.[4] ?? file?.[3] ?? "")
    if (!["main", "v1", "refs/pr/1", commit].includes(revision)) {
      refuse(response, 404, "RevisionNotFound")
      return
    }
    if (api?.[3] === "revision") {
      json(response, {
        _id: "1",
        id: name,
        sha: commit,
        private: false,
        gated: repo.gated ?? false,
        downloads: 0,
        likes: 0,
        lastModified: "2026-01-01T00:00:00.000Z",
      })
      return
    }
    const paths = Object.keys(repo.files)
    if (api !== null) {
      // Two entries a page, so that paging is always used.
      const at = Number(url.searchParams.get("cursor") ?? 0)
      const entries = paths.slice(at, at + 2).map((path) => {
        const bytes = repo.files[path]!
        return repo.large?.includes(path) === true
          ? {
              type: "file",
              oid: "0".repeat(40),
              size: bytes.length,
              path,
              lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 130 },
            }
          : { type: "file", oid: gitHash(bytes), size: bytes.length, path }
      })
      const next = `${state.url}${url.pathname}?recursive=true&cursor=${at + 2}`
      json(response, entries, at + 2 < paths.length ? { Link: `<${next}>; rel="next"` } : {})
      return
    }
    const path = decodeURIComponent(file?.[4] ?? "")
    const content = repo.files[path]
    if (repo.gated === true && !allowed)
      refuse(response, request.headers.authorization === undefined ? 401 : 403, "GatedRepo")
    else if (content === undefined) refuse(response, 404, "EntryNotFound")
    else if (repo.large?.includes(path) === true) {
      response.writeHead(302, { Location: `${storageUrl}/${encodeURIComponent(`!${name}!${path}`)}` })
      response.end()
    } else send(request, response, path, content)
  })
  const url = await listen(hub)
  const state: HubServer = {
    url,
    storageUrl,
    requests: seen,
    breakAfter: [],
    stallAfter: undefined,
    ignoreRange: false,
    corrupt: undefined,
    status: undefined,
    commit,
    async [Symbol.asyncDispose]() {
      for (const server of [hub, storage]) {
        server.closeAllConnections()
        await new Promise((resolve) => server.close(resolve))
      }
    },
  }
  return state
}
