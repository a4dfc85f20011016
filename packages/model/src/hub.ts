import { join } from "node:path"
import { formatBytes, requireDisk, slothPaths } from "@sloth/core"
import { formatHubRef, parseHubRef, type HubRef } from "./hub-ref.ts"
import { HubCache, type HubFile } from "./internal/hub-cache.ts"
import { downloadBlob } from "./internal/hub-download.ts"
import { hubEndpoint, hubError, hubFetch, hubToken, type HubConnection } from "./internal/hub-http.ts"
import { selectModelFiles } from "./internal/hub-select.ts"

export type { HubFile } from "./internal/hub-cache.ts"

/** How far a download is. */
export interface HubProgress {
  /** The file in work. */
  readonly file: string
  /** Bytes of that file on disk, and its size. */
  readonly fileBytes: number
  readonly fileSize: number
  /** Bytes of all files on disk, and their size. */
  readonly bytes: number
  readonly size: number
}

/** Settings of every hub call. */
export interface HubOptions {
  /**
   * Where downloads are kept. Default: `hub` in Sloth's cache folder (`SLOTH_CACHE`, else `$XDG_CACHE_HOME/sloth`, else `~/.cache/sloth`).
   *
   * Layout, that of the hub's Python client, so its cache folder may be given here: `models--org--name/` (or `datasets--...`) with `blobs/<hash>` (contents;
   * `<hash>.incomplete` while they arrive), `refs/<revision>` (the commit a branch meant), `snapshots/<commit>/...` (links under the files' own names), and
   * `trees/<commit>.json` (the list of files, for offline use).
   */
  readonly cacheDir?: string
  /** Address of the hub. Default: `HF_ENDPOINT`, else https://huggingface.co. */
  readonly endpoint?: string
  /** Access token; `null` sends none. Default: `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN`, or the file where `hf auth login` puts it. */
  readonly token?: string | null
  /** Makes no connection; only what was downloaded before is used. Default: `HF_HUB_OFFLINE`. */
  readonly offline?: boolean
  readonly onProgress?: (progress: HubProgress) => void
  readonly signal?: AbortSignal
  /** Further attempts of a connection that brings nothing. Default 5. */
  readonly retries?: number
  /** Milliseconds before the second attempt, doubled each time. Default 500. */
  readonly retryDelay?: number
  /** Milliseconds without data after which a connection is given up. Default 60 000. */
  readonly stall?: number
}

/** What a download would do; nothing has been downloaded yet. */
export interface HubPlan {
  readonly ref: HubRef
  /** The commit that the revision names. */
  readonly commit: string
  /** The folder that has the files under their own names once they are downloaded. */
  readonly folder: string
  /** `gguf` and `safetensors` for models; `files` where paths were asked for. */
  readonly kind: "safetensors" | "gguf" | "files"
  readonly files: readonly HubFile[]
  /** The file to open: the weights file, the index of shards, the GGUF file, or the first file asked for. */
  readonly mainPath: string
  /** Bytes of all files. */
  readonly totalBytes: number
  /** Bytes that are not on disk yet. */
  readonly missingBytes: number
}

interface Place {
  readonly ref: HubRef
  readonly cache: HubCache
  readonly connection: HubConnection
  readonly offline: boolean
}

const place = (spec: string | HubRef, options: HubOptions): Place => {
  const ref = typeof spec === "string" ? parseHubRef(spec) : spec
  const offlineFlag = process.env["HF_HUB_OFFLINE"]
  return {
    ref,
    cache: new HubCache(options.cacheDir ?? join(slothPaths().cache, "hub"), ref),
    connection: { endpoint: hubEndpoint(options.endpoint), token: hubToken(options.token), signal: options.signal },
    offline: options.offline ?? (offlineFlag !== undefined && /^(1|true|yes|on)$/i.test(offlineFlag)),
  }
}

/** A path from the hub is joined to a folder here, so it must stay inside. */
const isSafePath = (path: string): boolean =>
  path !== "" && !/[\\\0:]/.test(path) && path.split("/").every((part) => part !== "" && part !== "." && part !== "..")

const isCommit = (text: unknown): text is string => typeof text === "string" && /^[0-9a-f]{40}$/.test(text)

/** Asks the hub which commit a revision names, and for the list of its files. */
const askHub = async (p: Place): Promise<{ commit: string; files: HubFile[] }> => {
  const { ref, cache, connection } = p
  const { datasetInfo, listFiles, modelInfo } = await import("@huggingface/hub")
  const common = { hubUrl: connection.endpoint, fetch: hubFetch(ref, connection) }
  let commit = ref.revision
  if (!isCommit(commit)) {
    const info = { name: ref.name, revision: ref.revision, ...common }
    const answer =
      ref.type === "dataset"
        ? await datasetInfo({ ...info, additionalFields: ["sha"] })
        : await modelInfo({ ...info, additionalFields: ["sha"] })
    if (!isCommit(answer.sha)) {
      throw hubError("SLOTH_HUB_SERVER", ref, "The hub's answer names no commit.", "Check that HF_ENDPOINT is a hub.", {
        endpoint: connection.endpoint,
      })
    }
    commit = answer.sha
  }
  const known = cache.readTree(commit)
  if (known !== undefined) {
    await cache.writeCommit(commit)
    return { commit, files: known }
  }
  const files: HubFile[] = []
  const repo = { type: ref.type, name: ref.name } as const
  for await (const entry of listFiles({ repo, recursive: true, revision: commit, ...common })) {
    if (entry.type !== "file" || !isSafePath(entry.path)) continue
    const hash = entry.lfs === undefined ? entry.oid : entry.lfs.oid
    const kind = entry.lfs === undefined ? "git" : "sha256"
    if (hash === undefined || !/^[0-9a-f]{40,64}$/.test(hash) || !Number.isSafeInteger(entry.size)) continue
    files.push({ path: entry.path, size: entry.size, hash: { kind, value: hash } })
  }
  await cache.writeTree(commit, files)
  await cache.writeCommit(commit)
  return { commit, files }
}

const offlineTree = (p: Place): { commit: string; files: HubFile[] } => {
  const commit = p.cache.readCommit()
  const files = commit === undefined ? undefined : p.cache.readTree(commit)
  if (commit === undefined || files === undefined) {
    throw hubError(
      "SLOTH_HUB_OFFLINE",
      p.ref,
      `${formatHubRef(p.ref)} has not been downloaded, and no connection may be made.`,
      "Run the same command once without --offline.",
      { cache: p.cache.root },
    )
  }
  return { commit, files }
}

const makePlan = (
  p: Place,
  commit: string,
  kind: HubPlan["kind"],
  files: readonly HubFile[],
  main: HubFile,
): HubPlan => {
  const folder = p.cache.snapshot(commit)
  const missing = (f: HubFile): number => (p.cache.has(commit, f) ? 0 : f.size - p.cache.downloaded(f))
  return {
    ref: p.ref,
    commit,
    folder,
    kind,
    files,
    mainPath: join(folder, main.path),
    totalBytes: files.reduce((n, f) => n + f.size, 0),
    missingBytes: files.reduce((n, f) => n + missing(f), 0),
  }
}

/** All files of a repository at a revision, with their sizes. Errors: those of {@link planHubModel}. */
export const listHubFiles = async (
  spec: string | HubRef,
  options: HubOptions = {},
): Promise<{ readonly commit: string; readonly files: readonly HubFile[] }> => {
  const p = place(spec, options)
  return p.offline ? offlineTree(p) : askHub(p)
}

/**
 * Says what downloading a model would bring: only configuration, tokenizer, and safetensors weights or one GGUF model.
 *
 * **Errors**: `SLOTH_HUB_*`: REF, NO_NETWORK, OFFLINE, REPO_NOT_FOUND, REVISION_NOT_FOUND, FILE_NOT_FOUND, GATED, UNAUTHORIZED, RATE_LIMITED, SERVER,
 * CHOOSE (several GGUF models), NO_WEIGHTS.
 */
export const planHubModel = async (spec: string | HubRef, options: HubOptions = {}): Promise<HubPlan> => {
  const p = place(spec, options)
  const { commit, files } = p.offline ? offlineTree(p) : await askHub(p)
  const { kind, files: chosen, main } = selectModelFiles(p.ref, files)
  return makePlan(p, commit, kind, chosen, main)
}

/**
 * Says what downloading the named files of a model or dataset repository would bring; the default of `paths` is the `file` of the reference.
 *
 * **Errors**: those of {@link planHubModel}; `SLOTH_HUB_FILE_NOT_FOUND` lists what there is.
 */
export const planHubFiles = async (
  spec: string | HubRef,
  paths?: readonly string[],
  options: HubOptions = {},
): Promise<HubPlan> => {
  const p = place(spec, options)
  const { commit, files } = p.offline ? offlineTree(p) : await askHub(p)
  const wanted = paths ?? (p.ref.file === undefined ? [] : [p.ref.file])
  const chosen = wanted.map((path) => {
    const file = files.find((f) => f.path === path)
    if (file !== undefined) return file
    throw hubError(
      "SLOTH_HUB_FILE_NOT_FOUND",
      p.ref,
      `${p.ref.name} has no file ${path}.`,
      `It has: ${files
        .map((f) => f.path)
        .slice(0, 20)
        .join(", ")}${files.length > 20 ? ", ..." : ""}.`,
      { wanted: path, files: files.map((f) => f.path) },
    )
  })
  if (chosen.length === 0) {
    throw hubError(
      "SLOTH_HUB_FILE_NOT_FOUND",
      p.ref,
      "No file was named.",
      `Write ${formatHubRef(p.ref)}:path/of/file.`,
    )
  }
  return makePlan(p, commit, "files", chosen, chosen[0]!)
}

/**
 * Downloads what a plan lists. A broken download goes on where it stopped, also in a later run; every file is checked against the hash that the hub lists
 * before it takes its place.
 *
 * **Errors**: those of {@link planHubModel}, and `SLOTH_HUB_INTERRUPTED`, `SLOTH_HUB_HASH_MISMATCH`, `SLOTH_HUB_BUSY`, `SLOTH_DISK_SPACE`,
 * `SLOTH_DISK_FULL`, `SLOTH_FILE_*`.
 */
export const downloadHub = async (plan: HubPlan, options: HubOptions = {}): Promise<HubPlan> => {
  const p = place(plan.ref, options)
  const { cache, connection, ref } = p
  const absent = plan.files.filter((f) => !cache.has(plan.commit, f))
  if (absent.length > 0 && p.offline) {
    throw hubError(
      "SLOTH_HUB_OFFLINE",
      ref,
      `${absent.length} files of ${formatHubRef(ref)} are not downloaded (${absent.map((f) => f.path).join(", ")}), and no connection may be made.`,
      `Run the same command once without --offline; it downloads ${formatBytes(plan.missingBytes)}.`,
      { missing: absent.map((f) => f.path), bytes: plan.missingBytes },
    )
  }
  let done = plan.totalBytes - absent.reduce((n, f) => n + f.size, 0)
  if (absent.length > 0) {
    await cache.makeFolder(cache.root)
    const bytes = absent.reduce((n, f) => n + f.size - cache.downloaded(f), 0)
    await requireDisk(cache.root, bytes, `the download of ${formatHubRef(ref)}`)
  }
  const retry = {
    retries: options.retries ?? 5,
    retryDelay: options.retryDelay ?? 500,
    stall: options.stall ?? 60_000,
  }
  const prefix = ref.type === "dataset" ? "datasets/" : ""
  for (const file of absent) {
    const url = `${connection.endpoint}/${prefix}${ref.name}/resolve/${plan.commit}/${file.path.split("/").map(encodeURIComponent).join("/")}`
    const before = done
    await cache.locked(file, async () => {
      if (!cache.hasBlob(file)) {
        await downloadBlob(cache, file, url, ref, connection, retry, (length) =>
          options.onProgress?.({
            file: file.path,
            fileBytes: length,
            fileSize: file.size,
            bytes: before + length,
            size: plan.totalBytes,
          }),
        )
      }
      await cache.place(plan.commit, file)
    })
    done += file.size
  }
  return { ...plan, missingBytes: 0 }
}

/** Plans and downloads a model in one call. Errors: those of {@link planHubModel} and {@link downloadHub}. */
export const fetchHubModel = async (spec: string | HubRef, options: HubOptions = {}): Promise<HubPlan> =>
  downloadHub(await planHubModel(spec, options), options)
