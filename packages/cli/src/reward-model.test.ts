import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readFileSync } from "node:fs"
import { writeSmallModel } from "../../sloth/testing/small-model.ts"
import { cliProject } from "../testing/cli-project.ts"

const project = cliProject("reward-model")
const { at, read, run, write } = project
const json = (value: unknown): string => `${JSON.stringify(value)}\n`

const train = "train --model model --threads 1 --steps 3 --batch 4 --learning-rate 3e-3 --seed 1"
const online =
  "--model model --data prompts.jsonl --method grpo --threads 1 --steps 1 --batch 2 --num-generations 2 --max-completion-length 6 --rank 4"

/** Scores of the run's only step, by reward. */
const scoresOf = (name: string): Record<string, number>[] =>
  readFileSync(at("runs", name, "samples.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { rewards: Record<string, number> }).rewards)

beforeAll(async () => {
  await writeSmallModel(at("model"))
  write(
    "prompts.jsonl",
    ["Name a tree.", "Name a fish.", "Name a king.", "Name a gem."].map((prompt) => json({ prompt })).join(""),
  )
  write(
    "pairs.jsonl",
    Array.from({ length: 8 }, (_, i) =>
      json({ prompt: `What is ${i}?`, chosen: ` It is ${i}.`, rejected: ` I do not know what ${i} is.` }),
    ).join(""),
  )
  write(
    "steps.jsonl",
    Array.from({ length: 4 }, (_, i) =>
      json({ prompt: `What is ${i} + 1?`, completions: [`take ${i}`, "add one"], labels: [true, i % 2 === 0] }),
    ).join(""),
  )
})
afterAll(project.remove)

describe("a reward model by its folder", () => {
  test("scores as a LoRA run, as a fully trained run, and as the classifier that an export makes of each", async () => {
    for (const [name, flags] of [
      ["lora", "--rank 4"],
      ["full", "--full"],
    ] as const) {
      const made = await run(`${train} --method reward --data pairs.jsonl ${flags} --run runs/${name}`)
      expect([made.code, made.stderr]).toEqual([0, expect.any(String)])
      const out = await run(`export --model runs/${name} --format safetensors-f32 --to out-${name} --threads 1`)
      expect([out.code, out.stderr]).toEqual([0, expect.any(String)])
      const config = JSON.parse(read(`out-${name}/config.json`)) as Record<string, unknown>
      expect(config).toMatchObject({ architectures: ["LlamaForSequenceClassification"], id2label: { "0": "LABEL_0" } })
      const refused = await run(`export --model runs/${name} --format gguf-f16 --to out-${name}.gguf --threads 1`)
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining("SLOTH_EXPORT_UNSUPPORTED")])
    }
    const used = await run(
      `train ${online} --reward ./runs/lora --reward runs/full=0.5 --reward model:./out-lora --reward out-full --save-every 1 --schedule constant --run runs/judged`,
    )
    expect([used.code, used.stderr]).toEqual([0, expect.stringContaining("reward models")])
    for (const scores of scoresOf("judged")) {
      expect(Math.abs(scores["lora"]!)).toBeGreaterThan(1e-6)
      // Merging rounds each weight once; the sums are of a few hundred terms of f32.
      expect(scores["out-lora"]).toBeCloseTo(scores["lora"]!, 4)
      // A fully trained model is written as it is.
      expect(scores["out-full"]).toBe(scores["full"]!)
      expect(scores["full"]).not.toBeCloseTo(scores["lora"]!, 4)
    }
    const config = JSON.parse(read("runs/judged/config.json")) as { details: { inputs: unknown } }
    expect(JSON.stringify(config.details.inputs)).toContain("=0.5")
    const more = await run("train --resume --run runs/judged --steps 2")
    expect([more.code, more.stderr]).toEqual([0, expect.any(String)])
    expect(scoresOf("judged")).toHaveLength(2 * 2 * 2)
  }, 240_000)

  test("a process reward model gives the weakest step, from 0 to 1; a fully trained head is trained on", async () => {
    const made = await run(`${train} --method prm --data steps.jsonl --rank 4 --run runs/steps`)
    expect([made.code, made.stderr]).toEqual([0, expect.any(String)])
    const used = await run(`train ${online} --reward ./runs/steps --run runs/stepped`)
    expect([used.code, used.stderr]).toEqual([0, expect.any(String)])
    for (const { steps } of scoresOf("stepped")) if (steps !== null) expect(steps! > 0 && steps! < 1).toBe(true)
    const again = await run(
      `train --model out-full --threads 1 --steps 2 --batch 4 --method reward --data pairs.jsonl --full --run runs/again`,
    )
    expect([again.code, again.stderr]).toEqual([0, expect.any(String)])
  }, 240_000)

  test("what is none is told before anything starts", async () => {
    for (const [reward, said] of [
      ["./model", "SLOTH_REWARD_MODEL"],
      ["model:nowhere/at/all", "SLOTH_MODEL_NOT_FOUND"],
      ["./runs", "SLOTH_"],
      ["./runs/lora --reward runs/lora", "SLOTH_REWARD_NAMES"],
    ] as const) {
      const { code, stderr } = await run(`train ${online} --reward ${reward} --run runs/wrong`)
      expect([reward, code === 0, stderr.includes(said), stderr]).toEqual([reward, false, true, stderr])
      expect(existsSync(at("runs/wrong"))).toBe(false)
    }
    const plan = await run(`plan ${online} --reward runs/lora --json`)
    expect([plan.code, plan.stderr]).toEqual([0, ""])
    expect((JSON.parse(plan.stdout) as { memory: { rewardBytes: number } }).memory.rewardBytes).toBeGreaterThan(10_000)
  }, 240_000)
})
