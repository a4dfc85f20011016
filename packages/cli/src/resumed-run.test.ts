import { afterAll, describe, expect, test } from "bun:test"
import type { RunRecord } from "@sloth/sloth"
import { cliProject } from "../testing/cli-project.ts"
import { command as train } from "./commands/train.ts"
import { wordsOf } from "./method-flags.ts"
import { commandLineRecord, resumedFlags } from "./resumed-run.ts"

const project = cliProject("resumed-run")
const { at, path, write } = project
write("own.ts", "")
write("more.ts", "")
write("sloth.config.ts", "")
afterAll(project.remove)

const record = (commandLine: unknown): RunRecord => ({ commandLine }) as RunRecord

describe("resumedFlags", () => {
  test("plugins of the command line come to those of the run, each once", () => {
    const own = { specifier: "./own.ts", from: path }
    const run = record({ plugins: [own, { specifier: "@acme/a", from: "/elsewhere" }] })
    const plugins = (...plugin: string[]) => resumedFlags({ plugin }, run, path).session.plugin
    expect(plugins()).toEqual([own, { specifier: "@acme/a", from: "/elsewhere" }])
    expect(plugins("./more.ts", "@acme/a")).toEqual([
      own,
      { specifier: "@acme/a", from: path },
      { specifier: "./more.ts", from: path },
    ])
    expect(plugins(at("own.ts"))).toHaveLength(2)
    // One that was moved is given again from where it is now.
    const moved = record({ plugins: [{ specifier: "./gone.ts", from: path }] })
    expect(resumedFlags({ plugin: ["./more.ts"] }, moved, path).session.plugin).toEqual([
      { specifier: "./more.ts", from: path },
    ])
    expect(resumedFlags({}, moved, path).session.plugin).toEqual([{ specifier: "./gone.ts", from: path }])
  })

  test("a run without a configuration file takes none of the folder, and one that is gone stays in the record", () => {
    const config = at("sloth.config.ts")
    expect(resumedFlags({}, record({}), path)).toMatchObject({ session: { config: false } })
    expect(resumedFlags({ config }, record({}), path).session.config).toBe(config)
    expect(resumedFlags({}, record({ config }), path).session.config).toBe(config)
    const gone = resumedFlags({}, record({ config: at("gone.ts") }), path)
    expect([gone.session.config, gone.config]).toEqual([false, at("gone.ts")])
    expect(commandLineRecord(gone.session, path, gone.config, undefined)).toEqual({ config: at("gone.ts") })
    // Started in code, which says nothing of files.
    expect(resumedFlags({}, record(undefined), path).session.config).toBeUndefined()
  })
})

test("the words of a command line are those that belong to no flag", () => {
  const words = (line: string) => wordsOf(train, line.split(" "))
  expect(words("train runs/a --resume --reward-timeout 120")).toEqual(["runs/a"])
  expect(words("train --resume --json runs/a --threads=1 runs/b")).toEqual(["runs/a", "runs/b"])
  expect(words("train --resume runs/a -m nano --run runs/b")).toEqual([])
})
