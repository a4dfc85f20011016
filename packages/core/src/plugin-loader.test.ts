import { afterAll, describe, expect, test } from "bun:test"
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { pathToFileURL } from "node:url"
import { findConfig, isSlothError, loadConfigFile, loadPlugin } from "./index.ts"
import type { ConfigIssue, SlothError } from "./index.ts"

const root = realpathSync(mkdtempSync(join(tmpdir(), "sloth-load-")))
afterAll(() => rmSync(root, { recursive: true, force: true }))
const source = JSON.stringify(join(import.meta.dir, "index.ts"))

const put = (path: string, text: string): string => {
  const full = join(root, path)
  mkdirSync(dirname(full), { recursive: true })
  writeFileSync(full, text)
  return full
}
const defined = (name: string): string =>
  `definePlugin({ name: ${JSON.stringify(name)}, version: "1.0.0", apiVersion: 1, sloth: "^0.1.0", provides: {} })`
const head = `import { definePlugin } from ${source}\n`

const errorOf = async (run: () => Promise<unknown>): Promise<SlothError> => {
  try {
    await run()
  } catch (error) {
    if (isSlothError(error)) return error
    throw error
  }
  throw new Error("nothing was refused")
}

const project = join(root, "project")
put("project/package.json", '{"name":"project"}')
put("project/bun.lock", "{}")

describe("loadPlugin", () => {
  test("a package of the user's project, also one that only has an import condition", async () => {
    put(
      "project/node_modules/@acme/foo/package.json",
      '{"name":"@acme/foo","type":"module","exports":{".":{"import":"./main.js"},"./extra":"./extra.js"}}',
    )
    put("project/node_modules/@acme/foo/main.js", `${head}export default ${defined("@acme/foo")}`)
    put("project/node_modules/@acme/foo/extra.js", `${head}export default () => ${defined("extra")}`)
    expect((await loadPlugin("@acme/foo", project)).name).toBe("@acme/foo")
    expect((await loadPlugin("@acme/foo/extra", project)).name).toBe("extra")
    // resolved from the folder given: a sibling project does not see it
    mkdirSync(join(root, "elsewhere"), { recursive: true })
    expect((await errorOf(() => loadPlugin("@acme/foo", join(root, "elsewhere")))).code).toBe("SLOTH_PLUGIN_NOT_FOUND")
  })

  test("a TypeScript file by relative path, with or without its ending, by absolute path and by URL", async () => {
    const file = put(
      "project/plugins/mine.ts",
      `${head}const name: string = "mine"\nexport default async () => ${defined("mine")}`,
    )
    put("project/plugins/folder/index.ts", `${head}export default ${defined("folder")}`)
    for (const specifier of ["./plugins/mine.ts", "./plugins/mine", file, pathToFileURL(file).href]) {
      expect((await loadPlugin(specifier, project)).name).toBe("mine")
    }
    expect((await loadPlugin("./plugins/folder", project)).name).toBe("folder")
  })

  test("each failure has its code", async () => {
    const missing = await errorOf(() => loadPlugin("@acme/missing/sub", project))
    expect(missing.code).toBe("SLOTH_PLUGIN_NOT_FOUND")
    expect(missing.next).toBe("Install it: bun add -d @acme/missing")
    expect((await errorOf(() => loadPlugin("./plugins/none", project))).code).toBe("SLOTH_PLUGIN_NOT_FOUND")
    expect((await errorOf(() => loadPlugin(" ", project))).code).toBe("SLOTH_PLUGIN_NOT_FOUND")
    put("project/no-default.ts", "export const plugin = 1")
    const bare = await errorOf(() => loadPlugin("./no-default", project))
    expect(bare.code).toBe("SLOTH_PLUGIN_NO_DEFAULT")
    expect(bare.message).toContain("It exports: plugin.")
    put("project/not-a-plugin.ts", "export default { name: 'x' }")
    expect((await errorOf(() => loadPlugin("./not-a-plugin", project))).code).toBe("SLOTH_PLUGIN_NOT_A_PLUGIN")
    put("project/throws.ts", "throw new Error('at load')")
    const thrown = await errorOf(() => loadPlugin("./throws", project))
    expect(thrown.code).toBe("SLOTH_PLUGIN_IMPORT")
    expect(thrown.message).toContain("at load")
    put("project/factory-throws.ts", "export default () => { throw new Error('when called') }")
    expect((await errorOf(() => loadPlugin("./factory-throws", project))).code).toBe("SLOTH_PLUGIN_IMPORT")
  })
})

describe("configuration file", () => {
  test("is found in the folder or above it", () => {
    const file = put("found/sloth.config.mjs", "export default {}")
    mkdirSync(join(root, "found/a/b"), { recursive: true })
    expect(findConfig(join(root, "found/a/b"))).toBe(file)
    const nearer = put("found/a/sloth.config.ts", "export default {}")
    expect(findConfig(join(root, "found/a/b"))).toBe(nearer)
  })

  test("loads TypeScript and JSON", async () => {
    const file = put(
      "typed/sloth.config.ts",
      `import { defineConfig, definePlugin } from ${source}
       export default defineConfig({ plugins: [${defined("a")}, "./b.ts"], runs: "out", pluginConfig: { a: {} }, train: { rank: 8 } })`,
    )
    const loaded = await loadConfigFile(file, { sections: ["train"] })
    expect(loaded.plugins.map((p) => (typeof p === "string" ? p : p.name))).toEqual(["a", "./b.ts"])
    expect(loaded).toMatchObject({ directory: join(root, "typed"), runs: "out", sections: { train: { rank: 8 } } })
    const json = put("json/sloth.config.json", '{"$schema":"x","plugins":["@acme/foo"],"train":{"rank":4}}')
    expect((await loadConfigFile(json, { sections: ["train"] })).sections).toEqual({ train: { rank: 4 } })
  })

  test("all wrong keys at once", async () => {
    const file = put(
      "wrong/sloth.config.json",
      '{"plugins":["a",5],"runs":3,"trian":{},"generate":[],"pluginConfig":1}',
    )
    const error = await errorOf(() => loadConfigFile(file, { sections: ["train", "generate"] }))
    expect(error.code).toBe("SLOTH_CONFIG_INVALID")
    expect((error.fields["issues"] as ConfigIssue[]).map((i) => i.message)).toEqual([
      "plugins[1]: expected a plugin or its name, received 5",
      "pluginConfig: expected an object, received 1",
      "runs: expected text, received 3",
      'trian: unknown key; did you mean "train"?',
      "generate: expected an object, received []",
    ])
  })

  test("files that cannot be loaded", async () => {
    const none = put("bad/sloth.config.ts", "export const x = 1")
    const broken = put("bad2/sloth.config.json", "{")
    for (const file of [none, broken])
      expect((await errorOf(() => loadConfigFile(file))).code).toBe("SLOTH_CONFIG_FILE")
    expect((await errorOf(() => loadConfigFile(join(root, "nowhere.json")))).code).toBe("SLOTH_FILE_NOT_FOUND")
    expect((await errorOf(() => loadConfigFile(put("list/sloth.config.json", "[]")))).code).toBe("SLOTH_CONFIG_INVALID")
  })
})
