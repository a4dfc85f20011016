import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { spawnSync } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "..")
const packages = ["packages", "plugins"].flatMap((d) => readdirSync(join(root, d)).map((n) => join(root, d, n)))
const manifest = (folder: string) =>
  JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as {
    name: string
    exports: Record<string, unknown>
    bin?: Record<string, string>
    dependencies?: Record<string, string>
  }

const run = (command: string, args: readonly string[], cwd: string) => {
  const r = spawnSync(command, args, {
    cwd,
    encoding: "utf8",
    env: { ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" },
  })
  return { code: r.status, output: `${r.stdout}${r.stderr}` }
}

/** A project outside the workspace that has the packed packages, and what they depend on. */
let project = ""

beforeAll(() => {
  const built = run(process.execPath, ["run", "build"], root)
  if (built.code !== 0) throw new Error(built.output)
  project = mkdtempSync(join(tmpdir(), "sloth-packed-"))
  writeFileSync(join(project, "package.json"), JSON.stringify({ name: "outside", private: true, type: "module" }))
  mkdirSync(join(project, "node_modules/@sloth"), { recursive: true })
  for (const name of readdirSync(join(root, "node_modules")))
    if (name !== "@sloth" && name !== ".bin" && name !== ".cache")
      symlinkSync(join(root, "node_modules", name), join(project, "node_modules", name))
  for (const folder of packages) {
    const out = mkdtempSync(join(tmpdir(), "sloth-tgz-"))
    const packed = run(process.execPath, ["pm", "pack", "--destination", out, "--ignore-scripts"], folder)
    const tarball = readdirSync(out).find((f) => f.endsWith(".tgz"))
    if (tarball === undefined) throw new Error(packed.output)
    const target = join(project, "node_modules", manifest(folder).name)
    mkdirSync(target, { recursive: true })
    const un = run("tar", ["xzf", join(out, tarball), "-C", target, "--strip-components=1"], project)
    if (un.code !== 0) throw new Error(un.output)
    rmSync(out, { recursive: true })
  }
}, 300_000)
afterAll(() => project !== "" && rmSync(project, { recursive: true, force: true }))

describe("packed packages", () => {
  for (const folder of packages) {
    const { name, exports } = manifest(folder)
    test(`${name}: whole, and tied to no workspace`, () => {
      const target = join(project, "node_modules", name)
      const text = readFileSync(join(target, "package.json"), "utf8")
      expect(text).not.toMatch(/workspace:|catalog:|file:|link:/)
      for (const entry of Object.values(exports))
        if (entry !== null && typeof entry === "object")
          for (const path of Object.values(entry as Record<string, string>))
            expect(existsSync(join(target, path)), path).toBe(true)
      expect(
        readdirSync(target, { recursive: true }).filter(
          (f) => String(f).endsWith(".test.ts") || String(f).endsWith(".test.js"),
        ),
      ).toEqual([])
    })
  }

  const names = packages.map((f) => manifest(f).name).filter((n) => n !== "@sloth/testing")
  const script = `const names = ${JSON.stringify(names)}
for (const name of names) {
  const m = await import(name)
  if (Object.keys(m).length === 0) throw new Error(name + " exports nothing")
}
let leak = ""
for (const name of names) { try { await import(name + "/internal/x.js"); leak = name } catch {} try { await import(name + "/src/internal/x.ts"); leak = name } catch {} }
if (leak !== "") throw new Error(leak + " shows its inside")
console.log("imported " + names.length)`

  for (const [runtime, command, args] of [
    ["Bun", process.execPath, []],
    ["Node", "node", []],
    ["Deno", join(root, "node_modules/.bin/deno"), ["run", "--allow-all", "--node-modules-dir=manual"]],
  ] as const)
    test(`import under ${runtime}`, () => {
      writeFileSync(join(project, "all.mjs"), script)
      const { code, output } = run(command, [...args, "all.mjs"], project)
      expect(output).toContain(`imported ${names.length}`)
      expect(code).toBe(0)
    }, 60_000)

  test("the kit for plugin authors is imported in a test under Bun", () => {
    mkdirSync(join(project, "kit"), { recursive: true })
    writeFileSync(
      join(project, "kit/kit.test.ts"),
      `import { test, expect } from "bun:test"\nimport * as kit from "@sloth/testing"\ntest("kit", () => expect(typeof kit.describeBackend).toBe("function"))\n`,
    )
    const { code, output } = run(process.execPath, ["test", "kit"], project)
    expect(output).toContain("1 pass")
    expect(code).toBe(0)
  }, 60_000)

  test("the sloth command runs from a packed package under Node and Bun", () => {
    const target = join(project, "node_modules/@sloth/cli")
    const bin = manifest(target).bin?.["sloth"]
    expect(bin).toBeDefined()
    cpSync(join(target, "package.json"), join(project, "cli.json"))
    for (const command of ["node", process.execPath]) {
      const { code, output } = run(command, [join(target, bin!), "--version"], project)
      expect(output).toContain("0.1.0")
      expect(code).toBe(0)
    }
  }, 60_000)
})
