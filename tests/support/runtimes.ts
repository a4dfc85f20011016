import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")

/** Each runtime with how it starts a program. */
export const RUNTIMES = [
  ["Bun", process.execPath, []],
  ["Node", "node", []],
  ["Deno", join(root, "node_modules/.bin/deno"), ["run", "--allow-all", "--node-modules-dir=manual"]],
] as const

/** A folder outside the workspace in which a program sees the compiled packages as a user of each runtime does. */
export interface RuntimeProject {
  /** Runs the program; no longer than 100 s. */
  run(command: string, args: readonly string[]): { readonly stdout: string; readonly stderr: string }
  remove(): void
}

/** Builds a package with what it needs, and writes the program. */
export const runtimeProject = (name: string, program: string): RuntimeProject => {
  const built = spawnSync(process.execPath, ["x", "turbo", "run", "build", `--filter=${name}`], {
    cwd: root,
    encoding: "utf8",
  })
  if (built.status !== 0) throw new Error(`${built.stdout}${built.stderr}`)
  const folder = mkdtempSync(join(tmpdir(), "sloth-runtimes-"))
  mkdirSync(join(folder, "node_modules"))
  symlinkSync(join(root, "node_modules/@sloth"), join(folder, "node_modules/@sloth"))
  writeFileSync(join(folder, "package.json"), JSON.stringify({ type: "module" }))
  writeFileSync(join(folder, "main.mjs"), program)
  return {
    run: (command, args) => {
      const { stdout, stderr } = spawnSync(command, [...args, "main.mjs"], {
        cwd: folder,
        encoding: "utf8",
        timeout: 100_000,
      })
      return { stdout, stderr }
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}
