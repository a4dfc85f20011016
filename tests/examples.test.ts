import { afterAll, describe, expect, test } from "bun:test"
import { spawn } from "node:child_process"
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { nanoFiles } from "@sloth/nano"
import { describeModel } from "@sloth/testing"
import { smallConfig } from "../examples/04-custom-model-family/make-model.ts"
import { qwen2Family } from "../examples/04-custom-model-family/plugin.ts"
import { writeSmallModel } from "../packages/sloth/testing/small-model.ts"

const root = join(import.meta.dirname, "..")
const folder = mkdtempSync(join(tmpdir(), "sloth-examples-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

// The examples run in a copy, so that what they write does not lie about here.
cpSync(join(root, "examples"), join(folder, "examples"), {
  recursive: true,
  filter: (path) => !path.endsWith("/runs"),
})
symlinkSync(join(root, "node_modules"), join(folder, "node_modules"))

const run = (name: string, ...args: string[]): Promise<{ code: number | null; output: string; seconds: number }> =>
  new Promise((resolve) => {
    const started = performance.now()
    const child = spawn(process.execPath, [join(folder, "examples", name, "main.ts"), ...args], {
      cwd: folder,
      env: { ...process.env, NO_COLOR: "1", SLOTH_CACHE: join(folder, "cache") },
    })
    let output = ""
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()))
    child.on("close", (code) => resolve({ code, output, seconds: (performance.now() - started) / 1000 }))
  })

/** nano where its weights are, else an untrained model of the same kind: the way of things is the same. */
const model = existsSync(join(nanoFiles().model, "model.safetensors"))
  ? "nano"
  : await writeSmallModel(join(folder, "model"))

/** What each example must print. */
const expected: Readonly<Record<string, readonly (string | RegExp)[]>> = {
  "01-finetune-nano": [/step 40: loss \d/, "adapter: ", "before: ", "after: "],
  "02-export-and-chat": [/gguf-f16: \d+ bytes/, /peft: \d+ bytes/, "4 messages"],
  "03-custom-exporter-and-tracker": [/step,loss,learningRate\n1,/, "FROM ./model.gguf", "ollama create"],
  "04-custom-model-family": ["family qwen2", /gguf-f16: within/, /safetensors-f32: within/],
  "05-code-with-unit-tests": [/honest +tests 1.00 +runs 1/, /never ends +tests 0.00/, /step 2: reward/, "adapter: "],
  "06-grpo-format-then-answer": [/format: mean reward \d/, /answer: mean reward \d/, "samples.jsonl"],
  "10-dpo-after-sft": [/taught: loss \d/, /step 10: margin \d.*100 % in order/, "before: ", "after: "],
  "11-orpo": ["Recognised 6 rows of preference pairs (texts).", "6 pairs", /step 20: loss \d/],
  "12-kto": [/step 12: margin \d/, "adapter: "],
  "13-play-2048": [/taught: loss \d/, /mean reward -?\d.* at first/, "strategies: "],
  "14-judge": [/the judge gives \d.* at first/, /was asked \d+ times/, "after: "],
}

/** What each must gain where nano's weights are; what an untrained model gains says nothing. */
const gains: Readonly<Record<string, RegExp>> = {
  "06-grpo-format-then-answer": /format: mean reward (\S+) at first, (\S+) at the end/,
  "13-play-2048": /mean reward (\S+) at first, (\S+) at the end/,
  "14-judge": /the judge gives (\S+) at first, (\S+) at the end/,
}

describe("examples", () => {
  test("each has a readme that names its command, and a test", () => {
    const names = readdirSync(join(root, "examples")).sort()
    expect(names).toEqual(Object.keys(expected))
    for (const name of names)
      expect(readFileSync(join(root, "examples", name, "README.md"), "utf8")).toContain(`bun examples/${name}/main.ts`)
  })

  for (const [name, parts] of Object.entries(expected))
    test(`${name} runs, in under a minute`, async () => {
      const { code, output, seconds } = await run(name, ...(name.startsWith("04") || model === "nano" ? [] : [model]))
      expect(code, output).toBe(0)
      for (const part of parts) expect(output).toMatch(part)
      const gained = model === "nano" ? gains[name]?.exec(output) : undefined
      if (gained != null) expect(Number(gained[2])).toBeGreaterThan(Number(gained[1]))
      expect(seconds).toBeLessThan(60)
    }, 120_000)

  test("the family of the example imports only public packages", () => {
    const place = join(root, "examples/04-custom-model-family")
    for (const file of readdirSync(place).filter((name) => name.endsWith(".ts")))
      for (const [, target] of readFileSync(join(place, file), "utf8").matchAll(/from "([^"]+)"/g))
        expect(target).toMatch(/^(\.\/[\w-]+\.ts|@sloth\/[\w-]+|node:\w+)$/)
  })
})

const tiny = { ...smallConfig, vocab_size: 101, hidden_size: 16, intermediate_size: 24, num_hidden_layers: 2 }
describeModel(qwen2Family, {
  tied: { config: tiny, expectConfig: { heads: 4, kvHeads: 2, headDim: 4, tied: true } },
  untied: { config: { ...tiny, tie_word_embeddings: false, num_key_value_heads: 4 }, expectConfig: { kvHeads: 4 } },
})
