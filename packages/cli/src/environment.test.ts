import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { writeSmallModel } from "../../sloth/testing/small-model.ts"
import { cliProject } from "../testing/cli-project.ts"

const project = cliProject("environment")
const { at, run, write } = project

const common =
  "--model model --method grpo --threads 1 --steps 2 --batch 2 --num-generations 2 --max-completion-length 48 --rank 4 --seed 3"

beforeAll(async () => {
  await writeSmallModel(at("model"))
  write(
    "env.ts",
    `export default {
      name: "echo",
      maxTurns: 2,
      reset: (row: { word: string }) => ({ messages: [{ role: "user", content: "Say " + row.word }], state: {} }),
      step: (_state: unknown, { text, turn }: { text: string; turn: number }) => ({
        reward: turn === 0 ? 0.25 : text.length % 2,
        done: turn === 1,
        messages: turn === 0 ? [{ role: "user", content: "Again." }] : [],
      }),
    }\n`,
  )
  write("words.jsonl", ["red", "blue", "tin", "fog"].map((word) => `${JSON.stringify({ word })}\n`).join(""))
  write("none.ts", "export const nothing = 1\n")
  write("half.ts", 'export default { name: "half" }\n')
  write("broken.ts", "throw new Error('not today')\n")
  write("throws.ts", 'export default { name: "throws", rows: [{}], reset: () => { throw new Error("no board") } }\n')
  write("empty.ts", 'export default { name: "empty", rows: [{}], reset: () => ({ state: 1 }) }\n')
  write("hangs.ts", 'export default { name: "hangs", rows: [{}], reset: () => new Promise(() => {}) }\n')
})
afterAll(project.remove)

describe("sloth train --environment", () => {
  test("plays a file's environment: turns with what each earned are written down, and a resumed run goes on with it", async () => {
    const flags = `${common} --environment ./env.ts --data words.jsonl --turn-tokens 8 --stop e --stop a --stop o --reward soft_format=0.5 --save-every 1`
    const { code, stderr } = await run(`train ${flags} --schedule constant --run runs/one`)
    expect([code, stderr]).toEqual([0, expect.stringContaining('episodes of the environment "echo"')])
    const samples = project.lines("runs/one/samples.jsonl")
    expect(samples).toHaveLength(2 * 2 * 2)
    for (const { turns, rewards, tokens } of samples as {
      turns: { reward: number; tokens: number }[]
      rewards: Record<string, number>
      tokens: number
    }[]) {
      expect(rewards["echo"]).toBeCloseTo(
        turns.reduce((n, { reward }) => n + reward, 0),
        12,
      )
      expect(turns[0]!.reward).toBe(0.25)
      expect(turns.every((turn) => turn.tokens <= 8)).toBe(true)
      expect(tokens).toBeLessThanOrEqual(48)
    }
    // A stop text ends a turn, so that the environment answers and the model speaks again.
    expect(samples.some(({ turns }) => (turns as unknown[]).length === 2)).toBe(true)
    const shown = (await run("samples runs/one --full --limit 1")).stdout
    expect(shown).toMatch(/turns 0\.25/)
    expect(shown).toContain("turn 1: 0.25 for")
    const more = await run("train --resume --run runs/one --steps 3 --environment ./env.ts")
    expect([more.code, more.stderr.includes("error")]).toEqual([0, false])
    expect(project.lines("runs/one/samples.jsonl").filter(({ step }) => step === 3)).toHaveLength(4)
    // Naming the same environment again keeps its settings.
    const { details } = JSON.parse(project.read("runs/one/config.json")) as { details: { inputs: unknown } }
    expect(details.inputs).toMatchObject({ environmentSettings: { turnTokens: 8 } })
  }, 240_000)

  test("plays one by name without data, with its settings as flags", async () => {
    const { code, stdout, stderr } = await run(
      `plan ${common} --environment number-guess --high 9 --guesses 2 --eval-fraction 0.25 --json`,
    )
    expect([code, stderr]).toEqual([0, expect.anything()])
    expect(JSON.parse(stdout)).toMatchObject({ method: "grpo" })
    const help = (await run("train --method grpo --environment number-guess --help")).stdout
    for (const text of [
      "Settings of the environment number-guess",
      "--guesses",
      "--turn-tokens",
      "Settings of the method grpo",
    ])
      expect(help).toContain(text)
  }, 240_000)

  test("says before the first step what is wrong", async () => {
    const wrong: readonly (readonly [string, string])[] = [
      ["--environment number-gues", 'Did you mean "number-guess"?'],
      ["--environment ./enw.ts", 'Did you mean "env.ts"?'],
      ["--environment ./none.ts", "SLOTH_ENVIRONMENT_EXPORT"],
      ["--environment ./half.ts", "SLOTH_ENVIRONMENT_EXPORT"],
      ["--environment ./broken.ts", "not today"],
      ["--environment ./throws.ts", "no board"],
      ["--environment ./empty.ts", "SLOTH_ENVIRONMENT_RESET"],
      ["--environment ./hangs.ts --turn-seconds 0.2", "SLOTH_ENVIRONMENT_TIMEOUT"],
      ["--environment ./env.ts", "SLOTH_TRAIN_NO_DATA"],
      ["--environment number-guess --high 1", "--high"],
      ["--environment number-guess --guesses 13", "SLOTH_ENVIRONMENT_ROOM"],
      ["--environment number-guess --rank 2", "--rank is given 2 times"],
      ["--environment number-guess --guesse 3", "--guesses"],
      ["--environment number-guess --method sft", "SLOTH_TRAIN_ENVIRONMENT"],
    ]
    for (const [flags, said] of wrong) {
      const base = flags.includes("--method sft") ? "--model model --steps 1 --threads 1" : common
      const { code, stderr } = await run(`train ${base} --run runs/wrong ${flags}`)
      expect([flags, code === 0, stderr.includes(said), stderr]).toEqual([flags, false, true, stderr])
      expect(existsSync(at("runs/wrong"))).toBe(false)
    }
  }, 240_000)
})
