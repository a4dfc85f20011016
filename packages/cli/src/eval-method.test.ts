import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync } from "node:fs"
import { writeSmallModel } from "../../sloth/testing/small-model.ts"
import { cliProject } from "../testing/cli-project.ts"

const project = cliProject("eval-method")
const { at, read, run, write } = project
const json = (value: unknown): string => `${JSON.stringify(value)}\n`
const figures = async (line: string): Promise<Record<string, number> & { loss?: number; rows: number }> => {
  const { code, stdout, stderr } = await run(`eval ${line} --threads 1 --json`)
  expect([line, code, stderr]).toEqual([line, 0, expect.not.stringContaining("error")])
  const { metrics, ...rest } = JSON.parse(stdout) as { metrics: Record<string, number>; rows: number; loss?: number }
  return { ...metrics, ...rest } as never
}

const pairs = (offset: number): string =>
  Array.from({ length: 8 }, (_, i) =>
    json({
      prompt: `What is ${i + offset}?`,
      chosen: ` It is ${i + offset}.`,
      rejected: ` I do not know ${i + offset}.`,
    }),
  ).join("")

beforeAll(async () => {
  await writeSmallModel(at("model"))
  write("pairs.jsonl", pairs(0))
  write("held.jsonl", pairs(20))
  write("prompts.jsonl", ["Name a tree.", "Name a fish.", "Name a king."].map((prompt) => json({ prompt })).join(""))
  write(
    "short.ts",
    "export default (samples: readonly { completion: string }[]) => samples.map(({ completion }) => 1 / (1 + completion.length))\n",
  )
})
afterAll(project.remove)

describe("sloth eval --method", () => {
  test("measures pairs of a run, and against the model that it started from", async () => {
    const train = "--threads 1 --batch 4 --learning-rate 5e-3 --data pairs.jsonl"
    expect((await run(`train --model model --method orpo --steps 3 --rank 4 ${train} --run runs/first`)).code).toBe(0)
    const more = await run(
      `train --model runs/first --method dpo --steps 4 ${train} --eval-data held.jsonl --run runs/second`,
    )
    expect([more.code, more.stderr]).toEqual([0, expect.stringContaining("Going on with the adapter of runs/first")])
    const held = await figures("--model runs/second --method dpo --data held.jsonl")
    expect(held.rows).toBe(8)
    expect(held["rewards/margins"]!).toBeGreaterThan(0)
    // The run evaluated the same rows at its end; sums of micro-batches are added in another order.
    const events = read("runs/second/events.jsonl").trim().split("\n")
    const last = events
      .map((line) => JSON.parse(line) as { type: string; loss: number })
      .findLast(({ type }) => type === "eval")!
    expect(held.loss!).toBeCloseTo(last.loss, 5)
    const orpo = await figures("--model model --method orpo --data held.jsonl --beta 0.2")
    expect(orpo.loss!).toBeGreaterThan(0)
  }, 240_000)

  test("measures what sampled completions earn, with spread, the same each time", async () => {
    const line =
      "--model model --method grpo --data prompts.jsonl --reward ./short.ts --reward soft_format=0.5 --max-completion-length 8"
    const first = await figures(`${line} --samples 3 --write out.jsonl`)
    const lines = read("out.jsonl").trim().split("\n")
    expect(lines).toHaveLength(9)
    const rewards = lines.map((text) => (JSON.parse(text) as { reward: number }).reward)
    expect(first["reward"]).toBeCloseTo(rewards.reduce((a, b) => a + b, 0) / 9, 10)
    expect(first["reward_best"]!).toBeGreaterThanOrEqual(first["reward"]!)
    for (const key of ["reward_error", "reward_std", "rewards/short/mean", "completions/mean_length"])
      expect(first[key]).toBeNumber()
    expect((await figures(`${line} --samples 3`))["reward"]).toBe(first["reward"])
    expect((await figures(`${line} --samples 3 --seed 7`))["reward"]).not.toBe(first["reward"])
    const shown = await run(`eval ${line} --samples 2 --threads 1`)
    expect(shown.stdout).toContain("reward, standard error over prompts")
    const played = await figures(
      "--model model --method grpo --environment number-guess --guesses 2 --samples 1 --max-completion-length 16 --turn-tokens 4 --seed 1",
    )
    expect(played["rewards/number_guess/mean"]).toBeNumber()
  }, 240_000)

  test("says what does not go together", async () => {
    for (const [flags, said] of [
      ["--model model --method dpo --data held.jsonl", "SLOTH_EVAL_REFERENCE"],
      ["--model model --method reward --data held.jsonl", "SLOTH_MODEL_NO_SCORE"],
      ["--model model --method grpo --data prompts.jsonl", "SLOTH_RL_NO_REWARD"],
      ["--model model --method gpro --data prompts.jsonl", 'Did you mean "grpo"'],
      ["--model model --data prompts.jsonl --reward ./short.ts", "without a method"],
      ["--model model --method dpo", "SLOTH_EVAL_NO_ROWS"],
      ["--model model", "--data is missing"],
      ["--model model --method dpo --data held.jsonl --mask all", "--mask"],
      ["--model model --method dpo --data held.jsonl --beat 1", "--beta"],
    ] as const) {
      const { code, stderr } = await run(`eval ${flags} --threads 1`)
      expect([flags, code === 0, stderr.includes(said), stderr]).toEqual([flags, false, true, stderr])
    }
    expect(existsSync(at("runs/wrong"))).toBe(false)
  }, 240_000)
})
