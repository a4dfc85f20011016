import { afterAll, describe, expect, test } from "bun:test"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { readEvents, runPaths, type RunEventOf } from "@sloth/core"
import { cliProject } from "../testing/cli-project.ts"
import { runBin } from "../testing/run-bin.ts"

const project = cliProject("methods")
const { run } = project
afterAll(project.remove)

const rows = [
  ["Name a colour.", "Blue.", "Seven."],
  ["Name a number.", "Seven.", "Blue."],
  ["Say hello.", "Hello!", "Go away."],
  ["What is two plus two?", "Four.", "A fish."],
].map(([prompt, chosen, rejected]) => ({
  prompt: [{ role: "user", content: prompt }],
  chosen: [{ role: "assistant", content: chosen }],
  rejected: [{ role: "assistant", content: rejected }],
}))
writeFileSync(join(project.path, "pairs.jsonl"), rows.map((row) => JSON.stringify(row)).join("\n"))
const common = ["--model", "nano", "--data", "pairs.jsonl", "--batch", "2", "--rank", "4"]

describe("a method on the command line", () => {
  test("dpo trains on pairs, shows what it read, evaluates with its metrics, and resumes with its settings", async () => {
    const { code, stderr } = await run([
      "train",
      "--method",
      "dpo",
      "--beta",
      "0.3",
      "--run",
      "dpo",
      "--steps",
      "3",
      "--schedule",
      "constant",
      ...common,
      "--eval-data",
      "pairs.jsonl",
    ])
    expect(stderr).toContain("Recognised 4 rows of preference pairs (conversations).")
    expect(stderr).toContain("chosen: [[Blue.<|im_end|>]]")
    expect(stderr).toContain("rejected: [[Seven.<|im_end|>]]")
    expect(code).toBe(0)
    const run1 = join(project.path, "dpo")
    const { details } = JSON.parse(readFileSync(join(run1, "config.json"), "utf8")) as { details: { settings: object } }
    expect(details.settings).toMatchObject({ beta: 0.3, loss: "sigmoid" })
    const names = ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"]
    const events = readEvents(runPaths(run1).events)
    for (const type of ["step", "eval"] as const) {
      const event = events.find((item): item is RunEventOf<"step" | "eval"> => item.type === type)!
      expect(Object.keys(event.metrics ?? {})).toEqual(expect.arrayContaining(names))
    }
    const more = await run(["train", "--resume", "--run", "dpo", "--steps", "5"])
    expect(more.stderr).toContain("Resuming from step 3.")
    expect(more.code).toBe(0)
    const other = await run(["train", "--resume", "--run", "dpo", "--method", "dpo", "--beta", "0.4"])
    expect(other.error).toBe("SLOTH_RESUME_CONFIG")
  })

  test("settings come from the configuration file, and flags go over them; those of another method do not count", async () => {
    writeFileSync(
      join(project.path, "sloth.config.json"),
      JSON.stringify({ train: { method: "dpo", settings: { beta: 0.7, loss: ["sigmoid", "sft"] } } }),
    )
    const plans = await Promise.all([
      run(["plan", ...common, "--label-smoothing", "0.1"]),
      run(["plan", ...common, "--method", "orpo", "--beta", "0.2"]),
    ])
    expect(plans.map(({ code }) => code)).toEqual([0, 0])
    expect(plans[0]!.stdout).toMatch(/training\s+dpo/)
    expect(plans[1]!.stdout).toMatch(/training\s+orpo/)
    expect((await run(["plan", ...common, "--loss-weights", "1"])).error).toBe("SLOTH_RL_SETTINGS")
  })

  test("help lists the method's flags; a name that is taken gets the method's in front", async () => {
    const [dpo, alphapo] = await Promise.all(
      ["dpo", "alphapo"].map((name) => run(["train", "--method", name, "--help"])),
    )
    expect(dpo!.stdout).toContain("Settings of the method dpo")
    expect(dpo!.stdout).toContain("--label-smoothing X")
    expect(alphapo!.stdout).toContain("--alphapo-alpha X")
    expect(alphapo!.stdout).toContain("--alpha X")
  })

  test("wrong flags: the near one, the name of another tool, a range, rows of another method", async () => {
    const train = (flag: string, value: string) => run(["train", "--method", "dpo", ...common, flag, value])
    const [near, other, range, kto] = await Promise.all([
      train("--betaa", "1"),
      train("--loss-type", "ipo"),
      train("--beta", "-1"),
      train("--mask", "all"),
    ])
    expect(near.stderr).toContain("Did you mean --beta?")
    expect(other.stderr).toContain("Did you mean --loss?")
    expect(range.stderr).toContain("--beta: expected a number greater than 0, received -1")
    expect(kto.error).toBe("SLOTH_RL_DATA_OPTION")
    expect([near, other, range].map(({ code }) => code)).toEqual([2, 2, 2])
  })

  // BCO remembers the mean of its rewards, which the checkpoint must bring back.
  for (const method of ["dpo", "bco"])
    test(`${method} killed with SIGKILL and resumed has the bits of a run that was not`, async () => {
      const start = (name: string) => [
        "train",
        "--method",
        method,
        "--run",
        `${method}-${name}`,
        "--steps",
        "6",
        "--save-every",
        "1",
        "--dropout",
        "0.1",
        "--seed",
        "5",
        ...common,
      ]
      const whole = await run(start("whole"))
      expect(whole.code, whole.stderr).toBe(0)
      const killed = await runBin(start("killed"), {
        cwd: project.path,
        signal: "SIGKILL",
        interruptWhen: (stderr) => stderr.includes("step-000003"),
      })
      expect(killed.code).toBeNull()
      const resumed = await run(["train", "--resume", "--run", `${method}-killed`])
      expect(resumed.code, resumed.stderr).toBe(0)
      expect(resumed.stderr).toContain("Resuming from step ")
      const adapter = (name: string) =>
        readFileSync(join(project.path, `${method}-${name}`, "adapter", "adapter_model.safetensors"))
      expect(adapter("killed").equals(adapter("whole"))).toBe(true)
      const curve = (name: string) =>
        readEvents(runPaths(join(project.path, `${method}-${name}`)).events).flatMap((e) =>
          e.type === "step" ? [[e.step, e.loss, e.gradNorm, e.metrics]] : [],
        )
      expect(curve("killed")).toEqual(curve("whole"))
    }, 120_000)
})
