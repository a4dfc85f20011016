import { describe, expect, test } from "bun:test"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"

/** The order of the house: a package imports only packages before it. Plugins see the packages of their interface and never each other. */
const ORDER = [
  "core",
  "tensor",
  "kernels-cpu",
  "model",
  "data",
  "infer",
  "train",
  "sandbox",
  "rl",
  "export",
  "testing",
  "nano",
  "sloth",
  "cli",
]
/** Packages that a later one must not see, whatever the order says. */
const NEVER: Record<string, readonly string[]> = {
  "kernels-cpu": ["tensor"],
  export: ["train", "rl", "data", "infer"],
  nano: ["core", "tensor", "kernels-cpu", "model", "data", "infer", "train", "export", "testing"],
}
/** Only the packages that compose the standard set may name plugins. */
const COMPOSERS = ["sloth", "cli"]

const root = join(import.meta.dirname, "..")
const sources = (folder: string): string[] =>
  readdirSync(folder, { withFileTypes: true }).flatMap((e) => {
    const path = join(folder, e.name)
    return e.isDirectory() ? sources(path) : e.name.endsWith(".ts") ? [path] : []
  })

/** Every module a file imports, by static import, re-export, dynamic import or type import. */
const importsOf = (path: string): string[] =>
  [...readFileSync(path, "utf8").matchAll(/(?:from\s+|import\s*\(\s*|import\s+)["']([^"'\n]+)["']/g)].map((m) => m[1]!)

/** Why an import is not allowed, or undefined. `importer` is a folder such as "packages/train". */
export const wrongArrow = (importer: string, file: string, specifier: string, isTest: boolean): string | undefined => {
  const [kind, name] = importer.split("/") as ["packages" | "plugins", string]
  if (specifier.startsWith(".")) {
    const target = relative(join(root, importer), resolve(dirname(join(root, file)), specifier))
    if (target.startsWith("..") && !isTest) return "leaves its package by a relative path"
    return undefined
  }
  const m = /^@sloth\/([^/]+)(\/.*)?$/.exec(specifier)
  if (m === null) return undefined
  const [, target, sub] = m as unknown as [string, string, string | undefined]
  if (sub !== undefined && sub !== "/package.json") return "reaches inside another package"
  const isPlugin = existsSync(join(root, "plugins", target))
  if (isPlugin)
    return (kind === "packages" && COMPOSERS.includes(name)) || (kind === "plugins" && name === target) || isTest
      ? undefined
      : "imports a plugin"
  if (kind === "plugins") return COMPOSERS.includes(target) ? "is a plugin and imports the front door" : undefined
  if (target === name) return "imports itself by name"
  if (isTest) return undefined
  if (!ORDER.includes(target)) return "imports an unknown package"
  if (ORDER.indexOf(target) > ORDER.indexOf(name)) return "imports a package that stands after it"
  if (NEVER[name]?.includes(target) === true) return `must know nothing of ${target}`
  return undefined
}

describe("the import direction of the house", () => {
  for (const folder of ["packages", "plugins"].flatMap((d) => readdirSync(join(root, d)).map((n) => `${d}/${n}`)))
    test(folder, () => {
      if (folder.startsWith("packages/")) expect(ORDER).toContain(folder.slice("packages/".length))
      const wrong = sources(join(root, folder, "src")).flatMap((path) => {
        const file = relative(root, path)
        // Fixtures of tests stand in folders that are not packed.
        const isTest = file.endsWith(".test.ts") || file.includes("/internal/testing/")
        return importsOf(path).flatMap((s) => {
          const why = wrongArrow(folder, file, s, isTest)
          return why === undefined ? [] : [`${file} ${why}: ${s}`]
        })
      })
      expect(wrong).toEqual([])
    })

  test("a wrong arrow is seen", () => {
    expect(wrongArrow("packages/core", "packages/core/src/x.ts", "@sloth/tensor", false)).toContain("after it")
    expect(wrongArrow("packages/train", "packages/train/src/x.ts", "@sloth/model-llama", false)).toContain("plugin")
    expect(wrongArrow("packages/train", "packages/train/src/x.ts", "@sloth/model/internal/x", false)).toContain(
      "inside",
    )
    expect(wrongArrow("packages/train", "packages/train/src/x.ts", "../../model/src/x.ts", false)).toContain("relative")
    expect(wrongArrow("packages/export", "packages/export/src/x.ts", "@sloth/train", false)).toContain("nothing of")
    expect(wrongArrow("packages/train", "packages/train/src/x.ts", "@sloth/model", false)).toBeUndefined()
  })

  test("effect versions are pinned to one", () => {
    const versions = new Set<string>()
    for (const d of ["packages", "plugins"])
      for (const n of readdirSync(join(root, d))) {
        const pkg = JSON.parse(readFileSync(join(root, d, n, "package.json"), "utf8")) as {
          dependencies?: Record<string, string>
        }
        for (const [name, version] of Object.entries(pkg.dependencies ?? {}))
          if (name === "effect" || name.startsWith("@effect/")) versions.add(version)
      }
    expect([...versions]).toEqual(["4.1.0"])
  })
})
