import { describe, expect, test } from "bun:test"
import * as fs from "node:fs"
import { join } from "node:path"
import { codeOf, temporaryFolder } from "../testing/files.ts"
import { startHub, type HubServer, type ServedRepo } from "../testing/hub-server.ts"
import { formatHubRef, looksLikeHubRef, parseHubRef } from "./hub-ref.ts"
import {
  downloadHub,
  fetchHubModel,
  listHubFiles,
  planHubFiles,
  planHubModel,
  type HubOptions,
  type HubProgress,
} from "./hub.ts"
import { hubEndpoint, hubToken } from "./internal/hub-http.ts"

const noise = (bytes: number, seed: number): Buffer => {
  const out = Buffer.alloc(bytes)
  for (let i = 0, x = seed; i < bytes; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0
    out[i] = x >>> 24
  }
  return out
}
const weights = noise(300_000, 1)
const llama: ServedRepo = {
  files: {
    "README.md": Buffer.from("# a model"),
    "config.json": Buffer.from(`{"model_type":"llama"}`),
    "model.safetensors": weights,
    "original/consolidated.00.pth": noise(10, 2),
    "pytorch_model.bin": noise(10, 3),
    "tokenizer.json": Buffer.from("{}"),
    "tokenizer_config.json": Buffer.from("{ }"),
  },
  large: ["model.safetensors", "pytorch_model.bin"],
}
const ggufs: ServedRepo = {
  files: {
    "config.json": Buffer.from("{}"),
    "m-Q4_K_M.gguf": noise(1000, 4),
    "m-Q4_K_S.gguf": noise(900, 5),
    "m-Q8_0-00001-of-00002.gguf": noise(700, 6),
    "m-Q8_0-00002-of-00002.gguf": noise(800, 7),
    "mmproj-m.gguf": noise(50, 8),
  },
  large: ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"],
}
const sharded: ServedRepo = {
  files: {
    "config.json": Buffer.from("{}"),
    "consolidated.safetensors": noise(40, 1),
    "model-00001-of-00002.safetensors": noise(40, 2),
    "model-00002-of-00002.safetensors": noise(40, 3),
    "model.safetensors.index.json": Buffer.from("{}"),
  },
}
const rows: ServedRepo = {
  type: "dataset",
  files: { "data/train file.jsonl": Buffer.from("{}\n"), "README.md": Buffer.from("x") },
}
const repos = {
  "acme/llama": llama,
  "acme/ggufs": ggufs,
  "acme/sharded": sharded,
  "acme/rows": rows,
  "acme/gated": { ...llama, gated: true },
  "acme/secret": { ...llama, private: true },
  "acme/torch": { files: { "pytorch_model.bin": noise(4, 1) } },
  "acme/evil": { files: { "../../escape.json": Buffer.from("{}"), "model.safetensors": noise(4, 1) } },
}

const setUp = async (token?: string) => {
  const hub = await startHub(repos, token)
  const folder = temporaryFolder()
  const options: HubOptions = {
    endpoint: hub.url,
    cacheDir: folder.path,
    token: null,
    retries: 2,
    retryDelay: 5,
    stall: 500,
  }
  return {
    hub,
    folder,
    options,
    async [Symbol.asyncDispose]() {
      await hub[Symbol.asyncDispose]()
      folder[Symbol.dispose]()
    },
  }
}
const downloads = (hub: HubServer) => hub.requests.filter((r) => r.url.includes("!") || r.url.includes("/resolve/"))

describe("references", () => {
  test("are read and written", () => {
    expect(parseHubRef("org/name")).toEqual({ type: "model", name: "org/name", revision: "main", file: undefined })
    expect(parseHubRef("org/na.me-1@v2:Q4_K_M")).toEqual({
      type: "model",
      name: "org/na.me-1",
      revision: "v2",
      file: "Q4_K_M",
    })
    expect(parseHubRef("datasets/org/n@refs/pr/1:a/b.csv")).toEqual({
      type: "dataset",
      name: "org/n",
      revision: "refs/pr/1",
      file: "a/b.csv",
    })
    expect(parseHubRef("https://huggingface.co/org/name").name).toBe("org/name")
    for (const spec of ["org/name", "org/name@v1", "datasets/org/name@x:y/z.csv"])
      expect(formatHubRef(parseHubRef(spec))).toBe(spec)
  })
  test("wrong ones are refused", async () => {
    for (const spec of ["name", "a/b/c", "../x", "org/..", "org/name@../../x", "org/name@", "./a/b"]) {
      expect([spec, await codeOf(() => parseHubRef(spec))]).toEqual([spec, "SLOTH_HUB_REF"])
    }
    expect(looksLikeHubRef("org/name")).toBe(true)
    for (const spec of ["./org/name", "/org/name", "name", "a\\b"]) expect(looksLikeHubRef(spec)).toBe(false)
  })
  test("endpoint and token come from the usual places", () => {
    expect(hubEndpoint(undefined, {})).toBe("https://huggingface.co")
    expect(hubEndpoint(undefined, { HF_ENDPOINT: "https://mirror.example/" })).toBe("https://mirror.example")
    using folder = temporaryFolder()
    fs.mkdirSync(folder.file("huggingface"))
    fs.writeFileSync(folder.file("huggingface/token"), "hf_file\n")
    const env = { XDG_CACHE_HOME: folder.path }
    expect(hubToken(undefined, env)).toBe("hf_file")
    expect(hubToken(undefined, { ...env, HUGGING_FACE_HUB_TOKEN: "hf_old" })).toBe("hf_old")
    expect(hubToken(undefined, { ...env, HUGGING_FACE_HUB_TOKEN: "hf_old", HF_TOKEN: "hf_env" })).toBe("hf_env")
    expect(hubToken("hf_given", { ...env, HF_TOKEN: "hf_env" })).toBe("hf_given")
    expect(hubToken(null, { ...env, HF_TOKEN: "hf_env" })).toBeUndefined()
    expect(hubToken(undefined, { HOME: folder.file("nowhere") })).toBeUndefined()
  })
})

describe("downloading", () => {
  test("says the size first, brings only what loading needs, checks it, and asks nothing twice", async () => {
    await using t = await setUp()
    const plan = await planHubModel("acme/llama", t.options)
    expect(plan.files.map((f) => f.path).sort()).toEqual([
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ])
    expect([plan.totalBytes, plan.missingBytes]).toEqual([300_027, 300_027])
    expect(downloads(t.hub)).toEqual([])
    const progress: HubProgress[] = []
    const done = await downloadHub(plan, { ...t.options, onProgress: (p) => progress.push(p) })
    expect(done.missingBytes).toBe(0)
    expect(fs.readFileSync(join(done.folder, "model.safetensors")).equals(weights)).toBe(true)
    expect(fs.readdirSync(done.folder).sort()).toEqual([
      "config.json",
      "model.safetensors",
      "tokenizer.json",
      "tokenizer_config.json",
    ])
    expect(progress.at(-1)).toMatchObject({ bytes: 300_027, size: 300_027 })
    expect(progress.every((p, i) => i === 0 || p.bytes >= progress[i - 1]!.bytes)).toBe(true)
    expect(
      fs.readdirSync(join(t.folder.path, "models--acme--llama", "blobs")).filter((n) => /lock|incomplete/.test(n)),
    ).toEqual([])

    const before = t.hub.requests.length
    expect((await fetchHubModel("acme/llama@v1", t.options)).mainPath).toBe(done.mainPath)
    expect(downloads(t.hub)).toHaveLength(5)
    // Only the revision was asked for: the list of a commit's files is kept.
    expect(t.hub.requests.length - before).toBe(1)
  })

  test("goes on in the middle when the connection breaks, with ranges", async () => {
    await using t = await setUp()
    t.hub.breakAfter = [100_000, 0, 50_000]
    const done = await fetchHubModel("acme/llama", t.options)
    expect(fs.readFileSync(done.mainPath).equals(weights)).toBe(true)
    const ranges = t.hub.requests
      .filter((r) => r.url.includes("model.safetensors") && r.url.includes("!"))
      .map((r) => r.range)
    expect(ranges).toEqual([undefined, "bytes=100000-", "bytes=100000-", "bytes=150000-"])
  })

  test("goes on in a later run", async () => {
    await using t = await setUp()
    t.hub.breakAfter = [120_000, 0, 0, 0]
    expect(await codeOf(() => fetchHubModel("acme/llama", t.options))).toBe("SLOTH_HUB_INTERRUPTED")
    const plan = await planHubModel("acme/llama", t.options)
    expect(plan.missingBytes).toBe(180_000)
    t.hub.requests.length = 0
    const done = await downloadHub(plan, t.options)
    expect(fs.readFileSync(done.mainPath).equals(weights)).toBe(true)
    expect(downloads(t.hub).find((r) => r.url.includes("!"))?.range).toBe("bytes=120000-")
  })

  test("starts again where the server knows no ranges", async () => {
    await using t = await setUp()
    t.hub.breakAfter = [120_000]
    t.hub.ignoreRange = true
    expect(fs.readFileSync((await fetchHubModel("acme/llama", t.options)).mainPath).equals(weights)).toBe(true)
  })

  test("gives up a connection that stalls", async () => {
    await using t = await setUp()
    t.hub.stallAfter = 0
    expect(await codeOf(() => fetchHubModel("acme/llama", { ...t.options, stall: 40 }))).toBe("SLOTH_HUB_NO_NETWORK")
  })

  test("a wrong hash is refused and not kept", async () => {
    for (const path of ["model.safetensors", "config.json"]) {
      await using t = await setUp()
      t.hub.corrupt = path
      expect(await codeOf(() => fetchHubModel("acme/llama", t.options))).toBe("SLOTH_HUB_HASH_MISMATCH")
      const { folder } = await planHubModel("acme/llama", t.options)
      expect(fs.existsSync(join(folder, path))).toBe(false)
      t.hub.corrupt = undefined
      expect(fs.readFileSync((await fetchHubModel("acme/llama", t.options)).mainPath).equals(weights)).toBe(true)
    }
  })

  test("a partial file that is wrong is found out by the hash and thrown away", async () => {
    await using t = await setUp()
    const plan = await planHubModel("acme/llama", t.options)
    const blobs = join(t.folder.path, "models--acme--llama", "blobs")
    fs.mkdirSync(blobs, { recursive: true })
    const main = plan.files.find((f) => f.path === "model.safetensors")!
    fs.writeFileSync(join(blobs, `${main.hash.value}.incomplete`), noise(1000, 99))
    expect(await codeOf(() => downloadHub(plan, t.options))).toBe("SLOTH_HUB_HASH_MISMATCH")
    expect(await codeOf(() => downloadHub(plan, t.options))).toBe("none")
  })

  test("two processes do not write the same file, and a dead one's lock is taken over", async () => {
    await using t = await setUp()
    const plan = await planHubModel("acme/llama", t.options)
    const blobs = join(t.folder.path, "models--acme--llama", "blobs")
    fs.mkdirSync(blobs, { recursive: true })
    const lock = join(blobs, `${plan.files.find((f) => f.path === "config.json")!.hash.value}.lock`)
    fs.writeFileSync(lock, String(process.pid))
    expect(await codeOf(() => downloadHub(plan, t.options))).toBe("SLOTH_HUB_BUSY")
    fs.writeFileSync(lock, "999999999")
    expect(await codeOf(() => downloadHub(plan, t.options))).toBe("none")
  })

  test("can be aborted", async () => {
    await using t = await setUp()
    t.hub.stallAfter = 5
    const abort = new AbortController()
    const run = fetchHubModel("acme/llama", { ...t.options, stall: 60_000, signal: abort.signal })
    setTimeout(() => abort.abort(new Error("stop")), 60)
    expect(await codeOf(() => run)).toBe("not coded: Error: stop")
  })

  test("shards, GGUF choices, datasets", async () => {
    await using t = await setUp()
    expect((await planHubModel("acme/sharded", t.options)).files.map((f) => f.path).sort()).toEqual([
      "config.json",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
    ])
    expect(await codeOf(() => planHubModel("acme/ggufs", t.options))).toBe("SLOTH_HUB_CHOOSE")
    expect(await codeOf(() => planHubModel("acme/ggufs:Q4_K", t.options))).toBe("SLOTH_HUB_FILE_NOT_FOUND")
    expect(await codeOf(() => planHubModel("acme/ggufs:Q2_K", t.options))).toBe("SLOTH_HUB_FILE_NOT_FOUND")
    const one = await fetchHubModel("acme/ggufs:q4_k_m", t.options)
    expect([one.kind, one.mainPath.endsWith("m-Q4_K_M.gguf"), one.files.length]).toEqual(["gguf", true, 1])
    const split = await planHubModel("acme/ggufs:Q8_0", t.options)
    expect([split.mainPath.endsWith("m-Q8_0-00001-of-00002.gguf"), split.totalBytes]).toEqual([true, 1500])
    const data = await downloadHub(
      await planHubFiles("datasets/acme/rows:data/train file.jsonl", undefined, t.options),
      t.options,
    )
    expect(fs.readFileSync(data.mainPath, "utf8")).toBe("{}\n")
    expect(await codeOf(() => planHubFiles("datasets/acme/rows", ["no.csv"], t.options))).toBe(
      "SLOTH_HUB_FILE_NOT_FOUND",
    )
    expect((await listHubFiles("datasets/acme/rows@refs/pr/1", t.options)).files).toHaveLength(2)
  })

  test("paths that leave the folder are not taken", async () => {
    await using t = await setUp()
    expect((await listHubFiles("acme/evil", t.options)).files.map((f) => f.path)).toEqual(["model.safetensors"])
  })
})

describe("the token", () => {
  test("opens private and gated repositories and never goes to another host", async () => {
    await using t = await setUp("hf_right")
    const options = { ...t.options, token: "hf_right" }
    for (const name of ["acme/secret", "acme/gated"]) {
      expect(fs.readFileSync((await fetchHubModel(name, options)).mainPath).equals(weights)).toBe(true)
    }
    const toStorage = t.hub.requests.filter((r) => t.hub.storageUrl.endsWith(r.host))
    expect(toStorage).toHaveLength(2)
    expect(toStorage.map((r) => r.token)).toEqual([undefined, undefined])
    expect(t.hub.requests.filter((r) => t.hub.url.endsWith(r.host)).every((r) => r.token === "hf_right")).toBe(true)
  })
})

describe("refusals", () => {
  test("each has its code", async () => {
    await using t = await setUp("hf_right")
    const code = (spec: string, options: HubOptions = t.options) => codeOf(() => fetchHubModel(spec, options))
    expect(await code("acme/missing")).toBe("SLOTH_HUB_REPO_NOT_FOUND")
    expect(await code("acme/secret")).toBe("SLOTH_HUB_REPO_NOT_FOUND")
    expect(await code("acme/llama@v9")).toBe("SLOTH_HUB_REVISION_NOT_FOUND")
    expect(await code("acme/gated")).toBe("SLOTH_HUB_GATED")
    expect(await code("acme/gated", { ...t.options, token: "hf_wrong" })).toBe("SLOTH_HUB_GATED")
    expect(await code("acme/torch")).toBe("SLOTH_HUB_NO_WEIGHTS")
    t.hub.status = 403
    expect(await code("acme/llama")).toBe("SLOTH_HUB_UNAUTHORIZED")
    t.hub.status = 429
    expect(await code("acme/llama")).toBe("SLOTH_HUB_RATE_LIMITED")
    t.hub.status = 503
    expect(await code("acme/llama")).toBe("SLOTH_HUB_SERVER")
  })
  test("no network, and offline use of what is there", async () => {
    await using t = await setUp()
    const offline = { ...t.options, offline: true }
    expect(await codeOf(() => fetchHubModel("acme/llama", offline))).toBe("SLOTH_HUB_OFFLINE")
    await fetchHubModel("acme/ggufs:Q4_K_M", t.options)
    const asked = t.hub.requests.length
    expect((await fetchHubModel("acme/ggufs:Q4_K_M", offline)).missingBytes).toBe(0)
    expect(await codeOf(() => fetchHubModel("acme/ggufs:Q4_K_S", offline))).toBe("SLOTH_HUB_OFFLINE")
    expect(t.hub.requests.length).toBe(asked)
    const gone = { ...t.options, endpoint: "http://127.0.0.1:9" }
    expect(await codeOf(() => fetchHubModel("acme/llama", gone))).toBe("SLOTH_HUB_NO_NETWORK")
  })
  test("a full disk is told before the download", async () => {
    await using t = await setUp()
    const plan = await planHubModel("acme/llama", t.options)
    const huge = plan.files.map((f) => (f.path === "model.safetensors" ? { ...f, size: 2 ** 50 } : f))
    expect(await codeOf(() => downloadHub({ ...plan, files: huge }, t.options))).toBe("SLOTH_DISK_SPACE")
    expect(downloads(t.hub)).toEqual([])
  })
})
