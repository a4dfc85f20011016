import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { mkdirSync, readFileSync, symlinkSync } from "node:fs"
import { join } from "node:path"
import { writeSmallModel } from "../../sloth/testing/small-model.ts"
import { cliProject } from "../testing/cli-project.ts"

const project = cliProject("resume")
const { at, read, run, write } = project
const config = (name: string) =>
  JSON.parse(readFileSync(at("runs", name, "config.json"), "utf8")) as {
    readonly config: Readonly<Record<string, unknown>>
    readonly details: Readonly<Record<"inputs" | "settings", unknown>>
  }
const adapter = (name: string): Buffer => readFileSync(at("runs", name, "adapter/adapter_model.safetensors"))

beforeAll(async () => {
  await writeSmallModel(at("model"))
  await writeSmallModel(at("teacher"), { hidden: 64 })
  write(
    "prompts.jsonl",
    Array.from({ length: 6 }, (_, i) => ({ prompt: `What is ${i} + 1?`, answer: String(i + 1) })),
  )
  write(
    "chats.jsonl",
    Array.from({ length: 6 }, (_, i) => ({
      messages: [
        { role: "user", content: `What is ${i} + 1?` },
        { role: "assistant", content: String(i + 1) },
      ],
    })),
  )
  write(
    "short.ts",
    "export default (all: readonly { completion: string }[]) => all.map(({ completion }) => 1 / (1 + completion.length))\n",
  )
  // An engine, a tracker and a reward of a plugin that is named by a path. What it does is written down.
  write(
    "plugin.ts",
    `import { appendFileSync } from "node:fs"
    import { definePlugin } from "@sloth/core"
    import { localRollout } from "@sloth/infer"
    const note = (word: string) => appendFileSync(${JSON.stringify(at("notes.txt"))}, word + "\\n")
    export default definePlugin({
      name: "@acme/noted", version: "1.0.0", apiVersion: 1, sloth: "*",
      provides: {
        rollouts: [{ name: "noted", create: (model: never, options: never) => (note("rollout"), localRollout.create(model, options)) }],
        rewards: [{ name: "even", score: (all: readonly { completion: string }[]) => all.map(({ completion }) => (completion.length % 2 === 0 ? 1 : 0)) }],
      },
    })\n`,
  )
  write("template.jinja", "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<answer>")
  mkdirSync(at("node_modules"), { recursive: true })
  symlinkSync(join(import.meta.dirname, "../../../node_modules/@sloth"), at("node_modules/@sloth"))
  mkdirSync(at("elsewhere"))
})
afterAll(project.remove)

describe("sloth train --resume", () => {
  test("needs nothing again: engine, plugin, rewards, template, backend, threads and method are the run's", async () => {
    const flags =
      "train --model ./model --data prompts.jsonl --method grpo --plugin ./plugin.ts --rollout noted --reward ./short.ts --reward even=0.5 --tracker tensorboard --backend reference --threads 1 --template template.jinja --steps 4 --batch 2 --num-generations 2 --max-completion-length 8 --rank 4 --save-every 1 --sample Hello"
    const whole = await run(`${flags} --run runs/whole`)
    expect([whole.code, whole.stderr]).toEqual([0, expect.anything()])
    const killed = await run(`${flags} --run runs/killed`, {
      interruptWhen: (stderr) => stderr.includes("checkpoint checkpoints/step-000002"),
      signal: "SIGKILL",
    })
    expect(killed.code).toBe(null)
    write("notes.txt", "")
    // From another folder, and without a flag.
    const more = await run("train --resume --run ../runs/killed", { cwd: at("elsewhere") })
    expect([more.code, more.stderr]).toEqual([0, expect.stringContaining("Resuming from step")])
    expect(read("notes.txt")).toBe("rollout\n")
    expect(adapter("killed").equals(adapter("whole"))).toBe(true)
    const { inputs } = config("killed").details
    expect(inputs).toEqual(config("whole").details.inputs)
    expect(inputs).toMatchObject({
      rollout: "noted",
      trackers: ["tensorboard"],
      commandLine: {
        backend: "reference",
        plugins: [{ specifier: "./plugin.ts", from: project.path }],
        samples: ["Hello"],
      },
    })
    expect(config("killed").config["threads"]).toBe(1)
    expect(read("runs/killed/report.html")).toContain("Before and after")
  }, 240_000)

  test("finds a relative teacher from elsewhere", async () => {
    const flags =
      "train --model model --data chats.jsonl --method gkd --teacher ./teacher --threads 1 --steps 3 --batch 2 --max-completion-length 6 --rank 4 --schedule constant"
    expect((await run(`${flags} --run runs/taught`)).code).toBe(0)
    const more = await run("train --resume ../runs/taught --steps 4", { cwd: at("elsewhere") })
    expect([more.code, more.stderr]).toEqual([0, expect.anything()])
  }, 240_000)

  test("the run's method has its flags, and what failing rewards do may change", async () => {
    write(
      "fails.ts",
      "let n = 0\nexport default (all: readonly object[]) => { if (++n > 1) throw new Error('no'); return all.map((_, i) => i) }\n",
    )
    const failed = await run(
      "train --model model --data prompts.jsonl --method grpo --reward ./fails.ts --threads 1 --steps 3 --batch 2 --num-generations 2 --max-completion-length 8 --rank 4 --run runs/failed",
    )
    expect([failed.code, failed.error]).toEqual([1, "SLOTH_REWARD_THREW"])
    const other = await run("train --resume --run runs/failed --num-generations 4")
    expect([other.code, other.error]).toEqual([1, "SLOTH_RESUME_CONFIG"])
    expect(other.stderr).toContain("numGenerations was 2 and is now 4")
    const judged = await run("train --resume --run runs/failed --reward ./fails.ts=2")
    expect([judged.code, judged.stderr]).toEqual([1, expect.stringContaining("rewards were fails and are now fails=2")])
    const misspelt = await run("train --resume --run runs/failed --reward-timeuot 5")
    expect([misspelt.code, misspelt.stderr]).toEqual([2, expect.stringContaining("--reward-timeout")])
    const more = await run("train --resume --run runs/failed --on-reward-error null --reward-timeout 5")
    expect([more.code, more.stderr]).toEqual([0, expect.stringContaining("count as not scored")])
    expect(config("failed").details.settings).toMatchObject({
      numGenerations: 2,
      onRewardError: "null",
      rewardTimeout: 5,
    })
  }, 240_000)

  test("Ctrl-C does not wait for a reward, and saves what is done", async () => {
    write(
      "slow.ts",
      "let n = 0\nexport default async (all: readonly object[]) => { if (++n > 1) await new Promise((done) => { console.error('waiting'); setTimeout(done, 60_000) }); return all.map((_, i) => i) }\n",
    )
    const flags =
      "train --model model --data prompts.jsonl --method grpo --reward ./slow.ts --threads 1 --steps 3 --batch 2 --num-generations 2 --max-completion-length 8 --rank 4 --run runs/slow"
    const started = performance.now()
    const { code, stderr } = await run(flags, { interruptWhen: (said) => said.includes("waiting") })
    expect([code, stderr]).toEqual([130, expect.stringContaining("Interrupted at step 1 of 3; everything is saved.")])
    expect(performance.now() - started).toBeLessThan(50_000)
    expect(stderr).toContain("sloth train --resume --run runs/slow")
  }, 120_000)

  test("a plugin that is gone is named, with what to do", async () => {
    const killed = read("plugin.ts")
    write("plugin.ts", "throw new Error('moved away')\n")
    const { code, stderr } = await run("train --resume --run runs/killed --steps 4")
    expect([code, stderr.includes("moved away")]).toEqual([1, true])
    write("plugin.ts", killed)
  }, 120_000)
})
