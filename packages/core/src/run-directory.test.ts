import { afterAll, describe, expect, test } from "bun:test"
import { spawn, spawnSync } from "node:child_process"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { isSlothError, listRuns, readRunConfig, requireSameInputs, RunDirectory } from "./index.ts"

const root = mkdtempSync(join(tmpdir(), "sloth-runs-"))
afterAll(() => {
  chmodSync(root, 0o755)
  rmSync(root, { recursive: true, force: true })
})
const source = JSON.stringify(join(import.meta.dir, "index.ts"))

const codeOf = async (run: () => unknown): Promise<string> => {
  try {
    await run()
  } catch (error) {
    if (isSlothError(error)) return error.code
    throw error
  }
  return "nothing was refused"
}

describe("RunDirectory", () => {
  test("automatic names count up and never reuse a folder", async () => {
    const runs = join(root, "auto")
    const names: string[] = []
    for (let n = 0; n < 3; n++) {
      using run = await RunDirectory.create({ root: runs, prefix: "nano sft" })
      names.push(run.name)
    }
    expect(names).toEqual(["nano-sft-001", "nano-sft-002", "nano-sft-003"])
    const together = await Promise.all([1, 2, 3].map(() => RunDirectory.create({ root: runs, prefix: "nano sft" })))
    expect(new Set(together.map((run) => run.name)).size).toBe(3)
    for (const run of together) run.close()
  })

  test("an existing run is refused, then resumed", async () => {
    const directory = join(root, "exists")
    {
      using run = await RunDirectory.create({ directory })
      await run.writeConfig({ command: "train", config: { rank: 8 }, hashes: { model: "aa" } })
    }
    expect(await codeOf(() => RunDirectory.create({ directory }))).toBe("SLOTH_RUN_EXISTS")
    const before = readRunConfig(directory)
    expect(before).toMatchObject({ sloth: { format: 1 }, name: "exists", command: "train", config: { rank: 8 } })
    using again = await RunDirectory.resume(directory)
    await again.writeConfig({ command: "train", config: { rank: 8 } })
    expect(again.readConfig().createdAt).toBe(before.createdAt)
    expect(listRuns(root).map((run) => basename(run.path))).toEqual(["exists"])
  })

  test("a folder with other things in it is refused; a run that died before it wrote anything is not in the way", async () => {
    const directory = join(root, "other")
    mkdirSync(directory)
    writeFileSync(join(directory, "letter.txt"), "x")
    expect(await codeOf(() => RunDirectory.create({ directory }))).toBe("SLOTH_RUN_NOT_EMPTY")
    expect(readdirSync(directory)).toEqual(["letter.txt"])
    rmSync(join(directory, "letter.txt"))
    mkdirSync(join(directory, "checkpoints"))
    writeFileSync(join(directory, ".config.json.99-0011aabb.tmp"), "{")
    using run = await RunDirectory.create({ directory })
    expect(run.name).toBe("other")
  })

  test("a model's folder is not called a run, and stays as it was", async () => {
    const directory = join(root, "a-model")
    mkdirSync(directory)
    for (const text of ['{"architectures":["LlamaForCausalLM"]}', "not json", "null"]) {
      writeFileSync(join(directory, "config.json"), text)
      const error = await RunDirectory.create({ directory }).catch((e: unknown) => e)
      if (!isSlothError(error)) throw error
      expect(error.code).toBe("SLOTH_RUN_NOT_EMPTY")
      expect(error.message).toContain("config.json that no run wrote")
      expect(readFileSync(join(directory, "config.json"), "utf8")).toBe(text)
      expect(readdirSync(directory)).toEqual(["config.json"])
    }
    // A run of a later version is a run all the same.
    writeFileSync(join(directory, "config.json"), '{"sloth":{"version":"9.0.0","format":2}}')
    expect(await codeOf(() => RunDirectory.create({ directory }))).toBe("SLOTH_RUN_EXISTS")
  })

  test("what is not a run is not resumed", async () => {
    const directory = join(root, "not-a-run")
    expect(await codeOf(() => RunDirectory.resume(directory))).toBe("SLOTH_FILE_NOT_FOUND")
    mkdirSync(directory)
    expect(await codeOf(() => RunDirectory.resume(directory))).toBe("SLOTH_RUN_NOT_A_RUN")
    writeFileSync(join(directory, "config.json"), '{"architectures":["LlamaForCausalLM"]}')
    expect(await codeOf(() => RunDirectory.resume(directory))).toBe("SLOTH_RUN_NOT_A_RUN")
    writeFileSync(join(directory, "config.json"), '{"sloth":{"version":"9.0.0","format":2}}')
    expect(await codeOf(() => RunDirectory.resume(directory))).toBe("SLOTH_RUN_FORMAT")
    expect(existsSync(join(directory, "run.lock"))).toBe(false)
  })

  test("checkpoints are listed newest first, unfinished ones not, and resuming cleans those up", async () => {
    const directory = join(root, "checkpoints")
    {
      using run = await RunDirectory.create({ directory })
      await run.writeConfig({ command: "train", config: {} })
      for (const step of [100, 2, 1_000_000]) mkdirSync(run.checkpointPath(step))
      mkdirSync(join(run.paths.checkpoints, ".step-000200.12-00ff00ff.tmp"))
      expect(run.checkpoints().map((c) => [c.step, basename(c.path)])).toEqual([
        [1_000_000, "step-1000000"],
        [100, "step-000100"],
        [2, "step-000002"],
      ])
    }
    using run = await RunDirectory.resume(directory)
    expect(readdirSync(run.paths.checkpoints).filter((name) => name.startsWith("."))).toEqual([])
  })

  test("a changed model or data set is named", async () => {
    requireSameInputs({ model: "a", data: "b" }, { model: "a", data: "b", extra: "c" }, "runs/x")
    try {
      requireSameInputs({ model: "a", data: "b" }, { model: "z", data: "b" }, "runs/x")
      throw new Error("accepted")
    } catch (error) {
      expect(isSlothError(error) && error.code).toBe("SLOTH_RUN_INPUT_CHANGED")
      expect(isSlothError(error) && error.fields["changed"]).toEqual(["model"])
    }
  })
})

describe("the lock", () => {
  const holder = `
    import { RunDirectory } from ${source}
    const run = await RunDirectory.create({ directory: process.argv[1] })
    await run.writeConfig({ command: "train", config: {} })
    console.log("held")
    setInterval(() => {}, 1000)
  `
  test("two runs in one folder are refused, here and across processes; a killed holder's lock is taken over", async () => {
    const directory = join(root, "locked")
    const child = spawn(process.execPath, ["-e", holder, directory], { stdio: ["ignore", "pipe", "inherit"] })
    await new Promise((held) => child.stdout.once("data", held))
    expect(await codeOf(() => RunDirectory.resume(directory))).toBe("SLOTH_RUN_LOCKED")
    child.kill("SIGKILL")
    await new Promise((done) => child.once("exit", done))
    using run = await RunDirectory.resume(directory)
    expect(await codeOf(() => RunDirectory.resume(directory))).toBe("SLOTH_RUN_LOCKED")
    run.close()
    run.close()
    expect(existsSync(join(directory, "run.lock"))).toBe(false)
  })

  test("a lock of a reused pid is stale, one of another host is not", async () => {
    const directory = join(root, "reused")
    {
      using run = await RunDirectory.create({ directory })
      await run.writeConfig({ command: "train", config: {} })
      const lock = JSON.parse(readFileSync(run.paths.lock, "utf8")) as Record<string, unknown>
      run.close()
      writeFileSync(run.paths.lock, JSON.stringify({ ...lock, token: "other", started: "1" }))
    }
    const path = join(directory, "run.lock")
    const again = await RunDirectory.resume(directory)
    const held = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>
    again.close()
    writeFileSync(path, JSON.stringify({ ...held, host: "another-host" }))
    expect(await codeOf(() => RunDirectory.resume(directory))).toBe("SLOTH_RUN_LOCKED")
  })

  test("of many processes that find a stale lock, one gets it", async () => {
    const directory = join(root, "race")
    {
      using run = await RunDirectory.create({ directory })
      await run.writeConfig({ command: "train", config: {} })
    }
    writeFileSync(
      join(directory, "run.lock"),
      JSON.stringify({ pid: 2 ** 22 + 1, host: (await import("node:os")).hostname(), token: "dead", since: "" }),
    )
    const contender = `
      import { RunDirectory } from ${source}
      while (Date.now() < Number(process.argv[2])) {}
      try { await RunDirectory.resume(process.argv[1]); console.log("won"); setTimeout(() => process.exit(0), 1500) }
      catch (error) { console.log(error.code) }
    `
    const at = String(Date.now() + 1500)
    const results = await Promise.all(
      [1, 2, 3, 4].map(
        () =>
          new Promise<string>((done) => {
            const child = spawn(process.execPath, ["-e", contender, directory, at], {
              stdio: ["ignore", "pipe", "inherit"],
            })
            let out = ""
            child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()))
            child.once("exit", () => done(out.trim()))
          }),
      ),
    )
    expect(results.sort()).toEqual(["SLOTH_RUN_LOCKED", "SLOTH_RUN_LOCKED", "SLOTH_RUN_LOCKED", "won"])
  }, 20_000)
})

test("a read-only folder is a coded error", () => {
  const place = join(root, "read-only")
  mkdirSync(place)
  chmodSync(place, 0o555)
  chmodSync(root, 0o755)
  // the superuser may write anywhere, so the child gives its rights up first
  const script = `
    import { RunDirectory } from ${source}
    if (process.getuid?.() === 0) process.setuid(65534)
    try { await RunDirectory.create({ root: process.argv[1] }); console.log("made") } catch (error) { console.log(error.code) }
  `
  const child = spawnSync(process.execPath, ["-e", script, place], { encoding: "utf8" })
  expect(child.stdout.trim()).toBe("SLOTH_FILE_READ_ONLY")
})
