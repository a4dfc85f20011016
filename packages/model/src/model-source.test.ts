import { describe, expect, test } from "bun:test"
import * as fs from "node:fs"
import { dirname, join } from "node:path"
import { isSlothError } from "@sloth/core"
import { codeOf, temporaryFolder } from "../testing/files.ts"
import { startHub } from "../testing/hub-server.ts"
import type { HubPlan } from "./hub.ts"
import { resolveModelSource } from "./model-source.ts"

const setUp = () => {
  const folder = temporaryFolder()
  const put = (name: string, text = ""): void => {
    fs.mkdirSync(dirname(folder.file(name)), { recursive: true })
    fs.writeFileSync(folder.file(name), text)
  }
  put("smol/config.json", "{}")
  put("smol/model.safetensors")
  put("sharded/config.json", "{}")
  put("sharded/model.safetensors.index.json", "{}")
  put("bare/model.safetensors")
  put("torch/config.json", "{}")
  put("torch/pytorch_model.bin")
  put("adapter/adapter_config.json", "{}")
  put("adapter/adapter_model.safetensors")
  put("one/m-00001-of-00002.gguf")
  put("one/m-00002-of-00002.gguf")
  put("one/mmproj-m.gguf")
  put("many/a.gguf")
  put("many/b.gguf")
  put("runs/first/events.jsonl")
  put("runs/second/config.json", `{"sloth":{"format":1}}`)
  put("tiny.gguf", "GGUF")
  put("download-without-name", "GGUF....")
  put("notes.txt", "hello")
  put("folder.gguf/x", "")
  return {
    folder,
    at: (spec: string) => resolveModelSource(spec, { cwd: folder.path, offline: true, cacheDir: folder.file("cache") }),
    [Symbol.dispose]: () => folder[Symbol.dispose](),
  }
}

describe("on disk", () => {
  test("folders, files and runs are recognised", async () => {
    using t = setUp()
    const { file } = t.folder
    const shown = async (spec: string): Promise<unknown[]> => {
      const source = await t.at(spec)
      return [source.kind, source.kind === "gguf" ? source.path : source.folder]
    }
    expect(await shown("smol")).toEqual(["safetensors", file("smol")])
    expect(await shown("./smol/")).toEqual(["safetensors", file("smol")])
    expect(await shown(file("sharded"))).toEqual(["safetensors", file("sharded")])
    expect(await shown("smol/model.safetensors")).toEqual(["safetensors", file("smol")])
    expect(await shown("tiny.gguf")).toEqual(["gguf", file("tiny.gguf")])
    expect(await shown("download-without-name")).toEqual(["gguf", file("download-without-name")])
    expect(await shown("one")).toEqual(["gguf", file("one/m-00001-of-00002.gguf")])
    expect(await shown("runs/first")).toEqual(["run", file("runs/first")])
    expect(await shown("runs/second")).toEqual(["run", file("runs/second")])
  })
  test("each mistake has its code", async () => {
    using t = setUp()
    const code = (spec: string) => codeOf(() => t.at(spec))
    expect(await code("bare")).toBe("SLOTH_MODEL_NO_CONFIG")
    expect(await code("torch")).toBe("SLOTH_MODEL_NO_WEIGHTS")
    expect(await code("runs")).toBe("SLOTH_MODEL_NO_WEIGHTS")
    expect(await code("adapter")).toBe("SLOTH_MODEL_IS_ADAPTER")
    expect(await code("many")).toBe("SLOTH_MODEL_CHOOSE")
    expect(await code("notes.txt")).toBe("SLOTH_MODEL_KIND")
    expect(await code("folder.gguf")).toBe("SLOTH_FILE_IS_DIRECTORY")
    expect(await code("")).toBe("SLOTH_MODEL_NOT_FOUND")
    expect(await code("nothing-like-it")).toBe("SLOTH_MODEL_NOT_FOUND")
    expect(await code("./no/such/place")).toBe("SLOTH_MODEL_NOT_FOUND")
    expect(await code("smol/deeper.gguf")).toBe("SLOTH_MODEL_NOT_FOUND")
    expect(await code("tiny.gguf/x.gguf")).toBe("SLOTH_MODEL_NOT_FOUND")
    expect(await code("acme/unknown")).toBe("SLOTH_HUB_OFFLINE")
  })
  test("a slip is answered with what was meant", async () => {
    using t = setUp()
    const suggestion = async (spec: string, aliases: Record<string, string> = {}): Promise<unknown> => {
      try {
        await resolveModelSource(spec, { cwd: t.folder.path, offline: true, aliases })
        return "found"
      } catch (error) {
        return isSlothError(error) ? [error.code, error.fields["suggestion"]] : error
      }
    }
    expect(await suggestion("smoll")).toEqual(["SLOTH_MODEL_NOT_FOUND", "smol"])
    expect(await suggestion("tiny.guf")).toEqual(["SLOTH_MODEL_NOT_FOUND", "tiny.gguf"])
    expect(await suggestion("runs/frist")).toEqual(["SLOTH_MODEL_NOT_FOUND", "runs/first"])
    expect(await suggestion("nan", { nano: "x" })).toEqual(["SLOTH_MODEL_NOT_FOUND", "nano"])
    expect(await suggestion("quite-different")).toEqual(["SLOTH_MODEL_NOT_FOUND", undefined])
  })
  test("aliases stand for paths", async () => {
    using t = setUp()
    const source = await resolveModelSource("nano", { aliases: { nano: t.folder.file("smol") } })
    expect(source).toEqual({ kind: "safetensors", spec: "nano", folder: t.folder.file("smol") })
  })
})

describe("on the hub", () => {
  test("is downloaded after its size was told, and found offline afterwards", async () => {
    await using hub = await startHub({
      "acme/llama": {
        files: {
          "config.json": Buffer.from("{}"),
          "model.safetensors": Buffer.alloc(99),
          "README.md": Buffer.alloc(5),
        },
      },
      "acme/quants": { files: { "q-Q8_0.gguf": Buffer.from("GGUF") } },
    })
    using folder = temporaryFolder()
    const plans: HubPlan[] = []
    const options = {
      cwd: folder.path,
      cacheDir: folder.file("cache"),
      endpoint: hub.url,
      token: null,
      onPlan: (plan: HubPlan) => {
        plans.push(plan)
        expect(fs.existsSync(plan.folder)).toBe(false)
      },
    }
    const model = await resolveModelSource("acme/llama", options)
    expect(model.kind).toBe("safetensors")
    expect(model.kind === "safetensors" && fs.readdirSync(model.folder).sort()).toEqual([
      "config.json",
      "model.safetensors",
    ])
    expect(plans.map((p) => p.missingBytes)).toEqual([101])
    const quant = await resolveModelSource("acme/quants:Q8_0", options)
    expect(quant.kind === "gguf" && quant.path.endsWith("q-Q8_0.gguf")).toBe(true)
    expect(plans).toHaveLength(2)
    const again = await resolveModelSource("acme/llama", { ...options, offline: true })
    expect(again).toEqual(model)
    expect(plans).toHaveLength(2)
    const refuse = () => Promise.reject(new Error("no"))
    expect(
      await codeOf(() =>
        resolveModelSource("acme/llama@v1", { ...options, cacheDir: join(folder.path, "c2"), onPlan: refuse }),
      ),
    ).toBe("not coded: Error: no")
  })
})
