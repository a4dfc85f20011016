import { describe, expect, test } from "bun:test"
import { spawnSync } from "node:child_process"
import {
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
import { dirname, join } from "node:path"

const root = join(import.meta.dirname, "..")
const pages = [
  "README.md",
  ...readdirSync(join(root, "docs"))
    .filter((n) => n.endsWith(".md"))
    .map((n) => `docs/${n}`),
]

interface Block {
  readonly info: string
  readonly line: number
  readonly text: string
}

const blocksOf = (page: string): Block[] => {
  const lines = readFileSync(join(root, page), "utf8").split("\n")
  const blocks: Block[] = []
  for (let i = 0; i < lines.length; i++) {
    const open = /^(\s*)```(\S.*)$/.exec(lines[i]!)
    if (open === null) continue
    const end = lines.findIndex((l, j) => j > i && l.trim() === "```")
    blocks.push({ info: open[2]!.trim(), line: i + 1, text: lines.slice(i + 1, end).join("\n") })
    i = end
  }
  return blocks
}

/** A scratch project that sees the workspace's packages, as a user's project sees installed ones. The blocks of a page share it, in order. */
const project = (): string => {
  const folder = mkdtempSync(join(tmpdir(), "sloth-docs-"))
  writeFileSync(join(folder, "package.json"), '{"name":"docs","private":true,"type":"module"}\n')
  symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))
  return folder
}

/** `sloth` in a shell block is the command of this workspace. */
const withSloth = (folder: string): NodeJS.ProcessEnv => {
  const bin = join(folder, ".bin")
  mkdirSync(bin, { recursive: true })
  writeFileSync(
    join(bin, "sloth"),
    `#!/bin/sh\nexec "${process.execPath}" "${join(root, "packages/cli/src/bin.ts")}" "$@"\n`,
    { mode: 0o755 },
  )
  writeFileSync(
    join(bin, "bunx"),
    `#!/bin/sh\nexec "${process.execPath}" "${join(root, "packages/cli/src/bin.ts")}" "\${@:2}"\n`.replace(
      "/bin/sh",
      "/bin/bash",
    ),
    { mode: 0o755 },
  )
  return {
    ...process.env,
    PATH: `${bin}:${dirname(process.execPath)}:${process.env["PATH"]}`,
    NO_COLOR: "1",
    SLOTH_CACHE: join(folder, ".sloth"),
  }
}

describe("documentation", () => {
  for (const page of pages) {
    const blocks = blocksOf(page)
    const runnable = blocks.filter((b) => /^(ts|sh) run\b/.test(b.info))
    if (runnable.length > 0)
      test(`${page}: ${runnable.length} snippets run`, () => {
        const folder = project()
        try {
          const env = withSloth(folder)
          for (const [i, b] of runnable.entries()) {
            const file = join(folder, b.info.startsWith("ts") ? `snippet-${i}.ts` : `snippet-${i}.sh`)
            writeFileSync(file, `${b.text}\n`)
            const r = b.info.startsWith("ts")
              ? spawnSync(process.execPath, [file], { cwd: folder, encoding: "utf8", env })
              : spawnSync("bash", ["-euo", "pipefail", file], { cwd: folder, encoding: "utf8", env })
            if (r.status !== 0)
              throw new Error(
                `${page}:${b.line} failed (${r.status}):\n${b.text}\n---\n${r.stdout.slice(-3000)}\n${r.stderr.slice(-3000)}`,
              )
          }
        } finally {
          rmSync(folder, { recursive: true, force: true })
        }
      }, 300_000)
    test(`${page}: links lead somewhere`, () => {
      const text = readFileSync(join(root, page), "utf8").replace(/```[\s\S]*?```/g, "")
      const broken = [...text.matchAll(/\]\((?!https?:|#|mailto:)([^)#\s]+)[^)]*\)/g)]
        .map((m) => m[1]!)
        .filter((target) => !existsSync(join(root, dirname(page), target)))
      expect(broken).toEqual([])
    })
  }
})
