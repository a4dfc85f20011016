import { afterAll, describe, expect, test } from "bun:test"
import { TrainConfigSchema } from "@sloth/train"
import { describeConfig } from "@sloth/core"
import { cliProject } from "../testing/cli-project.ts"
import { commands } from "./commands/index.ts"
import { commandHelp } from "./help.ts"
import { flagGroups, suggestFlag } from "./flags.ts"
import { styleOf } from "./terminal/terminal.ts"
import { visibleLength } from "./terminal/text.ts"

const project = cliProject("help")
afterAll(project.remove)
const run = (...args: string[]) => project.run(args)

describe("help", () => {
  test("the program lists every command and its exit statuses", async () => {
    const { code, stdout, stderr } = await run("--help")
    expect(code).toBe(0)
    expect(stderr).toBe("")
    for (const { name, summary } of commands) expect(stdout).toContain(`${name}`.padEnd(10) + "  " + summary)
    expect(stdout).toContain("130 interrupted")
  })

  test("without words it shows the help and is content; the version is one line", async () => {
    const [bare, version] = await Promise.all([run(), run("--version")])
    expect([bare.code, version.code]).toEqual([0, 0])
    expect(bare.stdout).toContain("sloth quickstart")
    expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/)
  })

  test("train explains itself with examples and a flag for every setting", async () => {
    const { code, stdout } = await run("train", "--help")
    expect(code).toBe(0)
    expect(stdout).toContain("Examples")
    for (const { flag, description } of describeConfig(TrainConfigSchema)) {
      expect(stdout).toContain(`${flag}`)
      expect(stdout.replace(/\s+/g, " ")).toContain(description!.slice(0, 40))
    }
  })

  for (const { name, load } of commands)
    test(`${name} has a description, examples, and lines that fit`, async () => {
      const { command } = await load()
      expect(command.name).toBe(name)
      expect(command.examples.length).toBeGreaterThan(0)
      for (const example of command.examples) expect(example.command).toContain(`sloth ${name}`)
      const text = commandHelp(command, styleOf(false), 80)
      for (const line of text.split("\n"))
        if (!line.startsWith("  sloth") && !line.includes(" | sloth") && !line.startsWith("  #"))
          expect(visibleLength(line)).toBeLessThanOrEqual(100)
      for (const { fields } of flagGroups(command)) for (const field of fields) expect(field.description).toBeTruthy()
    })
})

describe("a mistyped command line", () => {
  test("an unknown command gets the near one, and status 2", async () => {
    const { code, error, stderr, stdout } = await run("trian")
    expect(code).toBe(2)
    expect(stdout).toBe("")
    expect(error).toBe("SLOTH_CLI_COMMAND")
    expect(stderr).toContain("Did you mean train?")
    expect(stderr).not.toContain("    at ")
  })

  test("an unknown flag gets the near one, by spelling or by another tool's name", async () => {
    const [spelling, name] = await Promise.all([run("train", "--lerning-rate", "1"), run("train", "--lora-r", "8")])
    expect([spelling.code, name.code]).toEqual([2, 2])
    expect(spelling.stderr).toContain("Did you mean --learning-rate?")
    expect(name.stderr).toContain("Did you mean --rank?")
    const train = (await commands.find((entry) => entry.name === "train")!.load()).command
    expect(suggestFlag(train, "--max-seq-length")).toBe("--max-length")
    expect(suggestFlag(train, "--qqqqqq")).toBeUndefined()
  })

  test("all wrong flags are told at once", async () => {
    const { code, error, stderr } = await run("generate", "--max-tokens", "0", "--temperature", "hot")
    expect(code).toBe(2)
    expect(error).toBe("SLOTH_CONFIG_INVALID")
    for (const part of ["--max-tokens", "--temperature", "--model is missing", "--prompt is missing"])
      expect(stderr).toContain(part)
  })

  test("with --json the error is one line of JSON; with --debug it has a stack", async () => {
    const [json, debug] = await Promise.all([
      run("inspect", "./nothing", "--json"),
      run("inspect", "./nothing", "--debug"),
    ])
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: "SLOTH_MODEL_NOT_FOUND" } })
    expect(json.stdout).toBe("")
    expect(debug.stderr).toContain("    at ")
  })

  test("words that do nothing are refused", async () => {
    const [train, doctor] = await Promise.all([run("train", "rows.jsonl"), run("doctor", "please")])
    expect([train.code, doctor.code]).toEqual([2, 2])
    expect(train.stderr).toContain("--data")
    expect(doctor.stderr).toContain("please")
  })
})
