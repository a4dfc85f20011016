import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readFileSync } from "node:fs"
import { writeSmallModel } from "../../sloth/testing/small-model.ts"
import { cliProject, jsonLines } from "../testing/cli-project.ts"

const project = cliProject("grpo")
const { at, read, run, write } = project

const train =
  "train --model model --data prompts.jsonl --method grpo --reward ./rewards/short.ts --reward soft_format=0.25 --threads 1" +
  " --steps 3 --batch 2 --num-generations 4 --max-completion-length 8 --rank 4 --seed 3"

beforeAll(async () => {
  await writeSmallModel(at("model"))
  const rows = Array.from({ length: 6 }, (_, i) =>
    JSON.stringify({ prompt: `What is ${i} + 1?`, answer: String(i + 1) }),
  )
  write("prompts.jsonl", `${rows.join("\n")}\n`)
  write(
    "rewards/short.ts",
    "export default (samples: readonly { completion: string }[]) => samples.map(({ completion }) => 1 / (1 + completion.length))\n",
  )
  write("rewards/none.ts", "export const nothing = 1\n")
  write("rewards/broken.ts", "throw new Error('not today')\n")
  write("rewards/package.ts", "import { answer } from 'not-installed-here'\nexport default answer\n")
})
afterAll(project.remove)

describe("sloth train --method grpo", () => {
  test("trains with a reward from a file and one by name, shows completions and writes them down", async () => {
    const { code, stderr, stdout } = await run(`${train} --run runs/one --json`)
    expect([code, stderr.includes("error")]).toEqual([0, false])
    expect(JSON.parse(stdout)).toMatchObject({ status: "completed", steps: 3 })
    expect(stderr).toMatch(/Trained 3 steps in .*, mean reward [\d.]+ \([\d.]+ at first\)/)
    expect(stderr).toContain("first prompt:")
    expect(stderr).toContain("Recognised 6 prompts")
    expect(stderr).toMatch(/step 1\/3 · reward [\d.]+ · length \d/)
    expect(stderr).toMatch(/^step 1 What is \d \+ 1\?$/m)
    const samples = project.lines("runs/one/samples.jsonl")
    expect(samples).toHaveLength(3 * 2 * 4)
    const { rewards, reward } = samples[0] as { rewards: Record<string, number>; reward: number }
    expect(reward).toBeCloseTo(rewards["short"]! + 0.25 * rewards["soft_format"]!, 12)
    const html = read("runs/one/report.html")
    for (const title of [
      "Mean reward",
      "Reward short",
      "Length of completions",
      "Completions of step 3",
      "Seconds of a step",
      "more figures",
    ])
      expect(html).toContain(title)
    expect(html).not.toContain("Before and after")
  })

  test("goes on with the run's own rewards", async () => {
    const whole = project.lines("runs/one/samples.jsonl")
    expect((await run(`${train} --run runs/part --save-every 1 --schedule constant`)).code).toBe(0)
    const more = await run("train --resume --run runs/part --steps 4")
    expect([more.code, more.stderr.includes("error")]).toEqual([0, false])
    const samples = project.lines("runs/part/samples.jsonl")
    expect(samples.filter(({ step }) => step === 4)).toHaveLength(8)
    // The first rollout does not depend on the schedule.
    expect(samples.slice(0, 8)).toEqual(whole.slice(0, 8))
  })

  test("a reward that never comes back ends the run in words, and nothing is lost", async () => {
    const loops = (how: string): string =>
      `let batch = 0
      export default ${how.includes("await") ? "async " : ""}(samples: readonly { completion: string }[]) => {
        if (++batch === 3 && process.env["HANGS"] !== undefined) { ${how}; for (;;); }
        return samples.map(({ completion }) => completion.length)
      }\n`
    const flags = (name: string) =>
      `train --model model --data prompts.jsonl --method grpo --reward ./rewards/${name}.ts --threads 1 --steps 4 --batch 2 --num-generations 2 --max-completion-length 8 --rank 4 --reward-timeout 0.3`
    const bytes = (name: string) => readFileSync(at(`runs/${name}/adapter/adapter_model.safetensors`))
    for (const [name, how, code] of [
      ["loop", "", 1],
      ["later", "await new Promise((done) => setTimeout(done, 5))", null],
    ] as const) {
      write(`rewards/${name}.ts`, loops(how))
      const hung = await run(`${flags(name)} --save-every 2 --run runs/${name}`, { env: { HANGS: "1" } })
      expect([hung.code, hung.error]).toEqual([code, "SLOTH_REWARD_TIMEOUT"])
      expect(hung.stderr).toContain(`sloth train --resume --run runs/${name}`)
      expect((await run(`train --resume --run runs/${name}`)).code).toBe(0)
      expect((await run(`${flags(name)} --run runs/${name}-whole`)).code).toBe(0)
      expect(bytes(name).equals(bytes(`${name}-whole`))).toBe(true)
    }
    const left = await run(`${flags("loop")} --on-reward-error null --run runs/left`, { env: { HANGS: "1" } })
    expect([left.code, left.stderr]).toEqual([
      0,
      expect.stringMatching(/warning SLOTH_REWARD_TIMEOUT.* 4 completions count as not scored/),
    ])
  }, 240_000)

  test("rewards that cannot be used are told before anything starts", async () => {
    const wrong: readonly (readonly [string, string])[] = [
      ["", "SLOTH_RL_NO_REWARD"],
      ["--reward ./rewards/missing.ts", "SLOTH_REWARD_NOT_FOUND"],
      ["--reward ./rewards/none.ts", "SLOTH_REWARD_EXPORT"],
      ["--reward ./rewards/broken.ts", "SLOTH_REWARD_IMPORT"],
      ["--reward ./rewards/package.ts", "bun add not-installed-here"],
      ["--reward soft_format=much", "SLOTH_REWARD_WEIGHT"],
      ["--reward soft_formta", "soft_format"],
      ["--reward soft_format --data promts.jsonl", 'Did you mean "prompts.jsonl"?'],
    ]
    for (const [flags, said] of wrong) {
      const line = `train --model model --data prompts.jsonl --method grpo --steps 1 --threads 1 --run runs/wrong ${flags}`
      const { code, stderr } = await run(line.trim())
      expect([code === 0, stderr.includes(said), stderr]).toEqual([false, true, stderr])
      expect(existsSync(at("runs/wrong"))).toBe(false)
    }
    const noMethod = await run("train --model model --data prompts.jsonl --num-generations 4")
    expect([noMethod.code, noMethod.stderr]).toEqual([
      2,
      expect.stringMatching(/a setting of grpo, .*: name the method/),
    ])
    const sft = await run("train --model model --data prompts.jsonl --reward soft_format --steps 1 --threads 1")
    expect([sft.code === 0, /SLOTH_TRAIN_REWARDS|SLOTH_DATA/.test(sft.stderr)]).toEqual([false, true])
  })
})

describe("sloth samples", () => {
  test("filters, sorts and prints lines of JSON", async () => {
    const best = jsonLines((await run("samples runs/one --sort reward --limit 5 --json")).stdout)
    const rewards = best.map(({ reward }) => reward as number)
    expect(rewards).toHaveLength(5)
    expect(rewards).toEqual(rewards.toSorted((a, b) => b - a))
    const second = jsonLines((await run("samples runs/one --step 2 --limit 0 --json")).stdout)
    expect(second.map(({ step }) => step)).toEqual(Array(8).fill(2))
    const few = jsonLines(
      (await run(`samples runs/one --reward short --max ${rewards[4]} --sort reward --json`)).stdout,
    )
    for (const { rewards: all } of few) expect((all as { short: number }).short).toBeLessThanOrEqual(rewards[4]!)
  })

  test("says what each reward gave, and refuses what is not there", async () => {
    const { stdout } = await run("samples runs/one --limit 1")
    expect(stdout).toContain("24 of 24 completions")
    expect(stdout).toMatch(/soft_format\s+0\s/)
    const { stderr, code } = await run("samples runs/one --reward nope")
    expect([code, stderr.includes("SLOTH_SAMPLES_REWARD")]).toEqual([1, true])
  })
})
