import { afterAll, beforeAll, describe, expect, test } from "bun:test"
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { smallRows, writeSmallModel } from "../../sloth/testing/small-model.ts"
import { cliProject } from "../testing/cli-project.ts"
import { runBin } from "../testing/run-bin.ts"

const project = cliProject("bad")
const { at, read, write } = project
const run = (...args: string[]) => project.run(args)
const train = (...args: string[]) => run("train", "--model", "model", "--steps", "1", ...args)

beforeAll(async () => {
  await writeSmallModel(at("model"))
  write("rows.jsonl", smallRows(4))
})
afterAll(project.remove)

/** A command line, the error it must give, and what the message must say. */
interface Case {
  readonly name: string
  readonly setUp?: () => void
  readonly args: readonly string[]
  readonly code: string
  readonly says: readonly (string | RegExp)[]
  readonly status?: number
}

const cases: readonly Case[] = [
  {
    name: "a data file that does not exist",
    args: ["train", "--model", "model", "--data", "gone.jsonl"],
    code: "SLOTH_DATA_NOT_FOUND",
    says: ["gone.jsonl"],
  },
  {
    name: "a folder in place of a data file",
    setUp: () => mkdirSync(at("folder"), { recursive: true }),
    args: ["train", "--model", "model", "--data", "folder"],
    code: "SLOTH_DATA_IS_DIRECTORY",
    says: ["folder"],
  },
  {
    name: "a model that does not exist",
    args: ["generate", "--model", "./gone", "--prompt", "x"],
    code: "SLOTH_MODEL_NOT_FOUND",
    says: ["gone"],
  },
  {
    name: "a file that is no model",
    args: ["generate", "--model", "rows.jsonl", "--prompt", "x"],
    code: "SLOTH_MODEL_KIND",
    says: ["rows.jsonl"],
  },
  {
    name: "an unknown architecture: says which are known and how to add one",
    setUp: () => {
      mkdirSync(at("strange"), { recursive: true })
      writeFileSync(at("strange/config.json"), JSON.stringify({ architectures: ["StrangeForCausalLM"] }))
    },
    args: ["train", "--model", "strange", "--data", "rows.jsonl"],
    code: "SLOTH_MODEL_ARCHITECTURE",
    says: ["StrangeForCausalLM", "LlamaForCausalLM", "plugin"],
  },
  {
    name: "a tokenizer that does not fit the model",
    setUp: () => {
      mkdirSync(at("misfit"), { recursive: true })
      const config = JSON.parse(read("model/config.json")) as Record<string, unknown>
      for (const name of ["tokenizer.json", "tokenizer_config.json", "model.safetensors"])
        writeFileSync(at("misfit", name), readFileSync(at("model", name)))
      writeFileSync(at("misfit/config.json"), JSON.stringify({ ...config, vocab_size: 100 }))
    },
    args: ["train", "--model", "misfit", "--data", "rows.jsonl"],
    code: "SLOTH_MODEL_TOKENIZER",
    says: ["2048", "100"],
  },
  {
    name: "a broken line, with its number",
    setUp: () => void write("broken.jsonl", `${JSON.stringify(smallRows(1)[0])}\n{"messages": [\n`),
    args: ["train", "--model", "model", "--data", "broken.jsonl"],
    code: "SLOTH_DATA_JSON",
    says: ["broken.jsonl line 2"],
  },
  {
    name: "an empty data set",
    setUp: () => void write("empty.jsonl", ""),
    args: ["train", "--model", "model", "--data", "empty.jsonl"],
    code: "SLOTH_DATA_EMPTY",
    says: ["empty.jsonl"],
  },
  {
    name: "rows of mixed kinds",
    setUp: () => void write("mixed.jsonl", [smallRows(1)[0]!, { text: "plain" }]),
    args: ["train", "--model", "model", "--data", "mixed.jsonl"],
    code: "SLOTH_DATA_MIXED_KINDS",
    says: ["2"],
  },
  {
    name: "no scored token in any row",
    setUp: () => void write("unscored.jsonl", [{ tokens: [5, 6, 7], mask: [0, 0, 0] }]),
    args: ["train", "--model", "model", "--data", "unscored.jsonl"],
    code: "SLOTH_DATA_NOTHING_SCORED",
    says: ["1 rows"],
  },
  {
    name: "adapter targets that match nothing: lists what exists",
    args: ["train", "--model", "model", "--data", "rows.jsonl", "--targets", "c_attn"],
    code: "SLOTH_ADAPTER_TARGETS",
    says: ["c_attn", "q_proj", "down_proj"],
  },
  {
    name: "a rank larger than the layer",
    args: ["train", "--model", "model", "--data", "rows.jsonl", "--rank", "64"],
    code: "SLOTH_ADAPTER_RANK",
    says: ["64", "from 1 to 32"],
  },
  {
    name: "a setting of other methods, where none is named",
    args: ["train", "--model", "model", "--data", "rows.jsonl", "--num-generations", "4"],
    code: "SLOTH_CLI_USAGE",
    says: ["It is a setting of", "grpo", "name the method with --method"],
    status: 2,
  },
  {
    name: "a setting of other methods than the one that is named",
    args: ["train", "--model", "model", "--data", "rows.jsonl", "--method", "dpo", "--num-generations", "4"],
    code: "SLOTH_CLI_USAGE",
    says: ["dpo has no such setting; it is one of", "grpo"],
    status: 2,
  },
  {
    name: "settings that exclude each other",
    args: ["train", "--model", "model", "--data", "rows.jsonl", "--steps", "2", "--epochs", "1"],
    code: "SLOTH_CONFIG_INVALID",
    says: ["epochs"],
    status: 2,
  },
  {
    name: "too little memory",
    args: ["train", "--model", "model", "--data", "rows.jsonl", "--memory-budget", "100000"],
    code: "SLOTH_PLAN_MEMORY",
    says: ["100.0 KB"],
  },
  {
    name: "a method that nothing provides",
    args: ["train", "--model", "model", "--data", "rows.jsonl", "--method", "sfd"],
    code: "SLOTH_PLUGIN_UNKNOWN_ID",
    says: ["sfd", 'Did you mean "sft"?'],
    status: 2,
  },
  {
    name: "a format that nothing provides",
    args: ["export", "--model", "model", "--format", "gguf-q8"],
    code: "SLOTH_PLUGIN_UNKNOWN_ID",
    says: ["gguf-q8_0"],
    status: 2,
  },
  {
    name: "an adapter format without an adapter",
    args: ["export", "--model", "model", "--format", "peft"],
    code: "SLOTH_EXPORT_NO_ADAPTER",
    says: ["peft"],
  },
  {
    name: "no model",
    args: ["train", "--data", "rows.jsonl"],
    code: "SLOTH_TRAIN_NO_MODEL",
    says: ["model"],
    status: 2,
  },
  {
    name: "nothing to compare",
    args: ["chat", "--model", "model", "--compare"],
    code: "SLOTH_CHAT_COMPARE",
    says: ["adapter"],
  },
  {
    name: "a plugin that is not there",
    args: ["doctor", "--plugin", "./nothing.ts"],
    code: "SLOTH_PLUGIN_NOT_FOUND",
    says: ["nothing.ts"],
  },
  {
    name: "a model of the hub, offline",
    args: ["generate", "--model", "org/name", "--prompt", "x", "--offline"],
    code: "SLOTH_HUB_OFFLINE",
    says: ["org/name"],
  },
]

describe("bad input is a coded error before step 1", () => {
  for (const { name, setUp, args, code, says, status } of cases)
    test(name, async () => {
      setUp?.()
      const result = await run(...args)
      expect(result.error, result.stderr).toBe(code)
      expect(result.code).toBe(status ?? 1)
      for (const part of says) expect(result.stderr.replace(/\s+/g, " ")).toMatch(part)
      expect(result.stderr).not.toContain("    at ")
    })

  test("no network", async () => {
    const result = await runBin(["pull", "org/name"], { cwd: project.path, env: { HF_ENDPOINT: "http://127.0.0.1:9" } })
    expect(result.error, result.stderr).toBe("SLOTH_HUB_NO_NETWORK")
    expect(result.code).toBe(1)
  }, 60_000)

  test("an unknown key in the configuration file, with the near one", async () => {
    write("project/sloth.config.json", JSON.stringify({ train: { model: "../model", learningrate: 1 } }))
    const result = await runBin(["train", "--data", "../rows.jsonl"], { cwd: at("project") })
    expect(result.error).toBe("SLOTH_CONFIG_INVALID")
    expect(result.code).toBe(2)
    expect(result.stderr).toContain("learningRate")
    write("project/sloth.config.json", JSON.stringify({ trian: {} }))
    const section = await runBin(["train"], { cwd: at("project") })
    expect(section.stderr).toContain('did you mean "train"?')
  })

  test("a NaN in a model's file is no answer: the tensor is named, whatever is asked", async () => {
    await writeSmallModel(at("damaged"))
    const path = at("damaged/model.safetensors")
    const file = readFileSync(path)
    const weight = "model.layers.1.mlp.up_proj.weight"
    const header = Number(file.readBigUInt64LE(0))
    const table = JSON.parse(file.toString("utf8", 8, 8 + header)) as Record<string, { data_offsets: [number, number] }>
    file.writeFloatLE(Number.NaN, 8 + header + table[weight]!.data_offsets[0] + 4 * 77)
    writeFileSync(path, file)
    for (const args of [
      ["score", "--input", "rows.jsonl"],
      ["eval", "--data", "rows.jsonl"],
      ["generate", "--prompt", "x", "--max-tokens", "4"],
    ]) {
      const result = await run(...args, "--model", "damaged")
      expect(result.error, result.stderr).toBe("SLOTH_MODEL_NAN")
      expect(result.stderr).toContain(weight)
      expect(result.code).toBe(1)
    }
    const result = await run("train", "--model", "damaged", "--data", "rows.jsonl", "--steps", "1")
    expect(result.error).toBe("SLOTH_TRAIN_NAN")
    expect(result.stderr).toContain(weight)
  }, 120_000)

  test("a second run in one folder", async () => {
    const first = await train("--data", "rows.jsonl", "--run", "twice")
    expect(first.code, first.stderr).toBe(0)
    const second = await train("--data", "rows.jsonl", "--run", "twice")
    expect(second.error).toBe("SLOTH_RUN_EXISTS")
    expect(second.stderr).toContain("--resume")
  }, 60_000)

  test.skipIf(process.getuid?.() === 0)(
    "a folder that may not be written to (skipped for root, who may write everywhere)",
    async () => {
      mkdirSync(at("readonly"), { recursive: true })
      chmodSync(at("readonly"), 0o555)
      const result = await train("--data", "rows.jsonl", "--run", "readonly/run")
      chmodSync(at("readonly"), 0o755)
      expect(result.error).toBe("SLOTH_FILE_READ_ONLY")
    },
  )
})
