import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { existsSync, readFileSync } from "node:fs"
import { readEvents } from "@sloth/core"
import { smallRows, writeSmallModel } from "../../sloth/testing/small-model.ts"
import { cliProject } from "../testing/cli-project.ts"
import { runBin } from "../testing/run-bin.ts"

const project = cliProject("workflow")
const { at, read, write } = project
const run = (...args: string[]) => project.run(args)
const words = (line: string): string[] => line.split(" ")
const json = <T>(text: string): T => JSON.parse(text) as T

beforeAll(async () => {
  await writeSmallModel(at("model"))
  write("rows.jsonl", smallRows(12))
  const result = await run(
    ...words("train --model model --data rows.jsonl --seed 7 --steps 4 --batch 3"),
    ...words("--max-length 128 --rank 4 --alpha 8 --learning-rate 1e-2 --schedule linear"),
    ...words("--order sequential --threads 1 --run runs/one --eval-fraction 2 --eval-every 2"),
    "--sample",
    "What is 1 + 1?",
    "--json",
  )
  if (result.code !== 0) throw new Error(result.stderr)
  trained = result
})
afterAll(project.remove)
let trained: Awaited<ReturnType<typeof runBin>>

describe("sloth train", () => {
  test("prints the plan, the data with its scored tokens, and plain lines on a log", () => {
    const { stderr } = trained
    expect(stderr).toContain("Recognised 12 rows of conversations")
    expect(stderr).toContain("[[It is")
    expect(stderr).toMatch(/memory\s+\S+ \S+ of/)
    expect(stderr).toMatch(/step 1\/4 · loss \d/)
    expect(stderr).toContain("eval step 2: loss")
    expect(stderr).not.toContain("\u001b")
    expect(stderr).not.toContain("\r")
  })

  test("prints the result as JSON and leaves a whole run folder", () => {
    const result = json<Record<string, unknown>>(trained.stdout)
    expect(result).toMatchObject({
      status: "completed",
      steps: 4,
      run: at("runs/one"),
      adapter: at("runs/one/adapter"),
    })
    for (const name of ["config.json", "events.jsonl", "adapter/adapter_model.safetensors", "report.html"])
      expect(existsSync(at("runs/one", name))).toBe(true)
    const steps = readEvents(at("runs/one/events.jsonl")).filter((event) => event.type === "step")
    expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4])
    expect(steps[3]!.loss).toBeLessThan(steps[0]!.loss)
  })

  test("the report stands alone: curves, settings, samples, and no address to load from", () => {
    const html = read("runs/one/report.html")
    expect(html).toContain("<svg")
    expect(html).toContain("What is 1 + 1?")
    expect(html).toContain("learningRate")
    expect(html).not.toMatch(/(?:src|href)=|url\(|@import|https?:/)
  })

  test("the same command line gives the same run, bit for bit", async () => {
    const again = await run(
      ...words("train --model model --data rows.jsonl --seed 7 --steps 4 --batch 3"),
      ...words("--max-length 128 --rank 4 --alpha 8 --learning-rate 1e-2 --schedule linear"),
      ...words("--order sequential --threads 2 --run runs/two --eval-fraction 2"),
    )
    expect(again.code, again.stderr).toBe(0)
    const adapter = (name: string) => readFileSync(at("runs", name, "adapter/adapter_model.safetensors"))
    expect(adapter("two").equals(adapter("one"))).toBe(true)
  })

  test("Ctrl-C finishes the step, saves, says how to go on; going on ends where an undisturbed run ends", async () => {
    const common = ["--model", "model", "--data", "rows.jsonl", "--steps", "300", "--batch", "2", "--rank", "4"]
    const cut = await runBin(["train", ...common, "--run", "runs/cut"], {
      cwd: project.path,
      interruptWhen: (stderr) => stderr.includes("step 1/300"),
    })
    expect(cut.code, cut.stderr).toBe(130)
    expect(cut.stderr).toContain("Interrupted at step")
    const [, command] = /continue: sloth (.*)/.exec(cut.stderr)!
    expect(command).toBe("train --resume --run runs/cut")
    const resumed = await run(...command!.split(" "))
    expect(resumed.code, resumed.stderr).toBe(0)
    expect(resumed.stderr).toContain("Resuming from step")
    const whole = await run("train", ...common, "--run", "runs/whole")
    expect(whole.code).toBe(0)
    const adapter = (name: string) => readFileSync(at("runs", name, "adapter/adapter_model.safetensors"))
    expect(adapter("cut").equals(adapter("whole"))).toBe(true)
  }, 120_000)

  test("refuses to go on with other data", async () => {
    write("changing.jsonl", smallRows(6))
    const args = ["train", "--model", "model", "--data", "changing.jsonl", "--steps", "2", "--run", "runs/changed"]
    expect((await run(...args)).code).toBe(0)
    write("changing.jsonl", smallRows(7))
    const result = await run("train", "--resume", "runs/changed")
    expect(result.error).toBe("SLOTH_RUN_INPUT_CHANGED")
  }, 60_000)

  test("trains every weight with --full, and the run is a model like any other", async () => {
    const full = await run(...words("train --model model --data rows.jsonl --steps 2 --full --run runs/full"))
    expect(full.code, full.stderr).toBe(0)
    const answer = await run("generate", "--model", "runs/full", "--prompt", "hi", "--max-tokens", "3", "--json")
    expect(answer.code, answer.stderr).toBe(0)
    const exported = await run(
      "export",
      "--model",
      "runs/full",
      "--format",
      "safetensors-f32",
      "--to",
      "merged",
      "--json",
    )
    expect(exported.code, exported.stderr).toBe(0)
    const same = await run("generate", "--model", "merged", "--prompt", "hi", "--max-tokens", "3", "--json")
    expect(json<{ tokens: number[] }>(same.stdout).tokens).toEqual(json<{ tokens: number[] }>(answer.stdout).tokens)
  }, 60_000)
})

describe("what a run can do", () => {
  test("generate --json has exactly the documented keys, and greedy is repeatable", async () => {
    const ask = () =>
      run(
        "generate",
        "--model",
        "runs/one",
        "--prompt",
        "What is 2 + 1?",
        "--max-tokens",
        "6",
        "--temperature",
        "0",
        "--json",
      )
    const [one, two] = await Promise.all([ask(), ask()])
    const result = json<{ tokens: number[]; text: string; logprobs: number[] }>(one.stdout)
    expect(Object.keys(result)).toEqual(["tokens", "text", "logprobs", "tokensPerSecond", "firstTokenSeconds"])
    expect(result.tokens).toEqual(json<{ tokens: number[] }>(two.stdout).tokens)
    expect(result.logprobs).toHaveLength(result.tokens.length)
  })

  test("generate and chat take a smaller cache and guess tokens", async () => {
    const ask = (...more: string[]) =>
      run("generate", "--model", "runs/one", "--prompt", "one two one two one two", "--max-tokens", "12", ...more)
    const [plain, lookup, draft, bad] = await Promise.all([
      ask("--json"),
      ask("--speculate", "lookup", "--kv-cache", "f32", "--json"),
      ask("--speculate", "model", "--kv-cache", "f16"),
      ask("--kv-cache", "q4_0"),
    ])
    type Answer = { tokens: number[]; speculation?: { proposed: number; accepted: number } }
    const guessed = json<Answer>(lookup.stdout)
    expect(guessed.tokens).toEqual(json<Answer>(plain.stdout).tokens)
    expect(Object.keys(guessed.speculation!)).toEqual(["proposed", "accepted"])
    expect(draft.code, draft.stderr).toBe(0)
    expect(draft.stderr).toMatch(/cache \d+ kB \(f16\), \d+ of \d+ guesses right/)
    expect(bad.stderr).toContain("--kv-cache")
    expect(bad.code).toBe(2)
  }, 60_000)

  test("score --json prints tokens and log-probs for each row, null where nothing is scored", async () => {
    write("score.jsonl", [
      { tokens: [10, 20, 30, 40], mask: [0, 0, 1, 1] },
      { tokens: [10, 20, 30], mask: [0, 0, 0] },
    ])
    const { stdout, code, stderr } = await run("score", "--model", "runs/one", "--input", "score.jsonl", "--json")
    expect(code, stderr).toBe(0)
    const rows = stdout
      .trim()
      .split("\n")
      .map((line) => json<{ tokens: number[]; logprobs: (number | null)[] }>(line))
    expect(rows).toHaveLength(2)
    expect(Object.keys(rows[0]!)).toEqual(["tokens", "logprobs"])
    expect(rows[0]!.tokens).toEqual([10, 20, 30, 40])
    expect(rows[0]!.logprobs.map((lp) => lp === null)).toEqual([true, true, false, false])
    expect(rows[0]!.logprobs[2]).toBeLessThan(0)
    expect(rows[1]!.logprobs).toEqual([null, null, null])
  })

  test("score agrees with eval, and training made the data likelier", async () => {
    const [tuned, base, scored] = await Promise.all([
      run("eval", "--model", "runs/one", "--data", "rows.jsonl", "--json"),
      run("eval", "--model", "model", "--data", "rows.jsonl", "--json"),
      run("score", "--model", "runs/one", "--input", "rows.jsonl", "--json"),
    ])
    const loss = json<{ loss: number }>(tuned.stdout).loss
    expect(loss).toBeLessThan(json<{ loss: number }>(base.stdout).loss)
    const values = scored.stdout
      .trim()
      .split("\n")
      .flatMap((line) => json<{ logprobs: (number | null)[] }>(line).logprobs)
    const numbers = values.filter((lp): lp is number => lp !== null)
    expect(-numbers.reduce((a, b) => a + b, 0) / numbers.length).toBeCloseTo(loss, 4)
  })

  test("export lists its formats, writes, verifies, notes it in the run, and what it wrote works", async () => {
    const list = await run("export")
    expect(list.stdout).toContain("gguf-q8_0")
    const { code, stdout, stderr } = await run(...words("export --model runs/one --format gguf-f32 --format peft"))
    expect(code, stderr).toBe(0)
    expect(stdout).toMatch(/gguf-f32 runs\/one\/exports/)
    expect(stdout).toContain("verified on")
    const events = readEvents(at("runs/one/events.jsonl")).filter((event) => event.type === "export")
    expect(events.map(({ format, verified }) => [format, verified])).toEqual([
      ["gguf-f32", true],
      ["peft", true],
    ])
    expect(read("runs/one/report.html")).toContain("gguf-f32")
    const ask = async (model: string, ...more: string[]) =>
      json<{ tokens: number[] }>(
        (await run("generate", "--model", model, ...more, "--prompt", "What is 3 + 1?", "--max-tokens", "6", "--json"))
          .stdout,
      ).tokens
    const expected = await ask("runs/one")
    expect(await ask("runs/one/exports/one-gguf-f32.gguf")).toEqual(expected)
    expect(await ask("model", "--adapter", "runs/one/exports/one-peft")).toEqual(expected)
  }, 60_000)

  test("inspect knows a model, a GGUF file, an adapter, a data file and a run", async () => {
    const facts = await Promise.all(
      ["model", "nano", "runs/one/adapter", "rows.jsonl", "runs/one"].map((what) => run("inspect", what, "--json")),
    )
    const kinds = facts.map(({ stdout, stderr }) => (stdout === "" ? stderr : json<{ kind: string }>(stdout).kind))
    expect([kinds[0], kinds[2], kinds[3], kinds[4]]).toEqual(["model", "adapter", "dataset", "run"])
    expect(json<{ steps: number; status: string }>(facts[4]!.stdout)).toMatchObject({ steps: 4, status: "completed" })
    const seen = await run("inspect", "rows.jsonl", "--model", "model")
    expect(seen.stdout).toContain("[[It is")
  })

  test("chat answers piped lines, saves the conversation, and compares", async () => {
    const { code, stdout, stderr } = await runBin(["chat", "--model", "runs/one", "--max-tokens", "4"], {
      cwd: project.path,
      input: "hello\n/save talk.jsonl\n/reset\n/what\n/help\n/quit\nnever\n",
    })
    expect(code, stderr).toBe(0)
    expect(stdout).toContain("There is no /what")
    expect(stdout).toContain("/reset")
    const saved = json<{ messages: { role: string; content: string }[] }>(read("talk.jsonl"))
    expect(saved.messages.map(({ role }) => role)).toEqual(["user", "assistant"])
    const both = await runBin(["chat", "--model", "runs/one", "--max-tokens", "4", "--compare"], {
      cwd: project.path,
      input: "hello\n",
    })
    expect(both.code, both.stderr).toBe(0)
    expect(both.stdout).toMatch(/base\s+│ tuned/)
  })

  test("plan does nothing and prints what it would", async () => {
    const { code, stdout, stderr } = await run(
      "plan",
      "--model",
      "model",
      "--data",
      "rows.jsonl",
      "--steps",
      "3",
      "--json",
    )
    expect(code, stderr).toBe(0)
    expect(json<{ steps: number; memory: { peakBytes: number } }>(stdout)).toMatchObject({ steps: 3 })
    expect(existsSync(at("runs/model-sft-001"))).toBe(false)
  })

  test("doctor says what runs natively and what plugins bring", async () => {
    const { code, stdout } = await run("doctor", "--json")
    expect(code).toBe(0)
    const facts = json<{ backend: { native: boolean; gflops: number }; plugins: { name: string }[] }>(stdout)
    expect(facts.backend.gflops).toBeGreaterThan(0)
    expect(facts.plugins.map(({ name }) => name)).toContain("@sloth/model-llama")
  })
})

describe("a project", () => {
  test("init, then train without flags; a second init does not overwrite", async () => {
    const made = await run("init", "project")
    expect(made.code, made.stderr).toBe(0)
    expect((await run("init", "project")).error).toBe("SLOTH_INIT_EXISTS")
    const inside = (...args: string[]) => runBin(args, { cwd: at("project") })
    const result = await inside("train", "--model", "../model", "--steps", "2", "--json")
    expect(result.code, result.stderr).toBe(0)
    expect(json<{ run: string }>(result.stdout).run).toBe(at("project/runs/model-sft-001"))
    const config = json<{ config: { learningRate: number } }>(read("project/runs/model-sft-001/config.json"))
    expect(config.config.learningRate).toBe(2e-3)
  }, 60_000)

  test("a plugin of the project brings a command, an exporter and a tracker; flags and help come from its schema", async () => {
    const core = JSON.stringify(import.meta.resolve("@sloth/core"))
    write(
      "plugged/my-plugin.ts",
      `import { appendFileSync, writeFileSync } from "node:fs"
import { definePlugin, field, withDefault } from ${core}
import * as Schema from ${JSON.stringify(import.meta.resolve("effect/Schema"))}
export default definePlugin({
  name: "my-plugin", version: "1.0.0", apiVersion: 1, sloth: "^0.1.0",
  provides: {
    commands: [{
      name: "greet", description: "Says hello.", usage: "<name>",
      config: Schema.Struct({ loud: field.boolean({ description: "Shout." }).pipe(withDefault(false)) }),
      examples: [{ command: "sloth greet you", description: "hello" }],
      run: ({ arguments: [name], config, print }) => { print(config.loud ? "HELLO " + name : "hello " + name); return 0 },
    }],
    exporters: [{
      name: "names", description: "names of the weights", adapterOnly: false, extension: ".txt",
      export: async ({ model }, to) => {
        const text = [...model.weights.keys()].join("\\n")
        writeFileSync(to, text)
        return { format: "names", path: to, bytes: text.length, seconds: 0, hint: "cat " + to,
          verification: { tokens: 0, largest: 0, mean: 0, agreement: 1, allowed: { largest: 0, mean: 0, reason: "" } } }
      },
    }],
    trackers: [{ name: "lines", open: (run) => ({ event: (e) => appendFileSync(run.directory + "/lines.txt", e.type + "\\n") }) }],
  },
})
`,
    )
    const inside = (...args: string[]) => runBin(args, { cwd: at("plugged") })
    const greet = await inside("greet", "Ada", "--loud", "--plugin", "./my-plugin.ts")
    expect(greet.stderr).toBe("")
    expect(greet.stdout).toBe("HELLO Ada\n")
    expect((await inside("greet", "--plugin", "./my-plugin.ts", "--lout")).stderr).toContain("Did you mean --loud?")
    write("plugged/sloth.config.ts", `export default { plugins: ["./my-plugin.ts"] }\n`)
    expect((await inside("greet", "--help")).stdout).toContain("Shout.")
    const result = await inside(
      ...words("train --model ../model --data ../rows.jsonl --steps 2"),
      "--tracker",
      "lines",
      "--run",
      "r",
    )
    expect(result.code, result.stderr).toBe(0)
    expect(read("plugged/r/lines.txt")).toContain("step\nstep\n")
    const written = await inside("export", "--model", "r", "--format", "names", "--to", "names.txt")
    expect(written.code, written.stderr).toBe(0)
    expect(read("plugged/names.txt")).toContain("model.embed_tokens.weight")
  }, 60_000)
})

test("quickstart goes the whole way", async () => {
  const { code, stdout, stderr } = await run("quickstart", "--model", "model", "--steps", "3", "--json")
  expect(code, stderr).toBe(0)
  const result = json<{
    run: string
    report: string
    steps: number
    samples: unknown[]
    exports: { format: string }[]
  }>(stdout)
  expect(result.steps).toBe(3)
  expect(result.samples).toHaveLength(3)
  expect(result.exports.map(({ format }) => format)).toEqual(["gguf-f16", "peft"])
  expect(existsSync(result.report)).toBe(true)
  for (const part of ["Before and after", "verified on", "Next"]) expect(stderr).toContain(part)
}, 60_000)
