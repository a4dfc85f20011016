import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test"
import { spawnSync } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

setDefaultTimeout(60_000)

// Made at once, not in beforeAll: whether the tests can run is found out with a first mount.
const folder = mkdtempSync(join(tmpdir(), "sloth-full-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const child = join(import.meta.dirname, "internal", "testing", "child-full-disk.ts")

/** A real disk of 8 MB, in a mount namespace of its own. */
const small = (script: string): ReturnType<typeof spawnSync> => {
  const disk = join(folder, "disk")
  mkdirSync(disk, { recursive: true })
  return spawnSync("unshare", ["-Urm", "sh", "-c", `mount -t tmpfs -o size=8m tmpfs ${disk} && ${script}`], {
    encoding: "utf8",
  })
}
const canMount = process.platform === "linux" && small("true").status === 0

// Needs Linux user namespaces, to mount a small disk without being root.
describe.skipIf(!canMount)("a disk that fills up while the run saves", () => {
  const lines = (mode: string) => {
    const run = join(folder, "disk", "run")
    const check = `bun -e 'const { verifyCheckpoint, } = await import("${join(import.meta.dirname, "checkpoint.ts")}"); const { listCheckpoints } = await import("@sloth/core"); for (const { path, step } of listCheckpoints("${run}")) { await verifyCheckpoint(path); console.log("sound", step) }'`
    const result = small(
      `cd ${import.meta.dirname} && ${process.execPath} ${child} ${run} ${mode} && ${check.replace("bun", process.execPath)} && ls -A ${run} ${run}/checkpoints`,
    )
    return `${String(result.stdout)}${String(result.stderr)}`.trim().split("\n")
  }

  test("the previous checkpoint survives, the run goes on, and saves again when there is room", () => {
    const out = lines("later")
    expect(out.slice(0, 6)).toEqual([
      "saved 2",
      "warning SLOTH_DISK_SPACE 4",
      "warning SLOTH_DISK_SPACE 6",
      "saved 8",
      "saved 10",
      "completed",
    ])
    expect(out.filter((l) => l.startsWith("sound"))).toEqual(["sound 10", "sound 8"])
    expect(out.filter((l) => l.endsWith(".tmp"))).toEqual([])
  })

  test("when the last chance to save fails the run ends with the code, and the previous checkpoint is sound", () => {
    const out = lines("never")
    expect(out).toContain("saved 2")
    expect(out).toContain("warning SLOTH_DISK_SPACE 8")
    expect(out).toContain("error SLOTH_DISK_SPACE")
    expect(out.filter((l) => l.startsWith("sound"))).toEqual(["sound 2"])
    expect(out.filter((l) => l.endsWith(".tmp"))).toEqual([])
  })
})
