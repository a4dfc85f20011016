/**
 * What the settings of generation bring: formats of the cache at a long context, and guessing ahead on texts that do and do not repeat. SmolLM2-135M.
 *
 *   bun bench/generation.ts cache      [--context 1800 --batch 4 --tokens 16]
 *   bun bench/generation.ts speculate  [--tokens 128]
 *
 * The settings take turns in --rounds rounds (3) of the same process; medians. Both take --threads N.
 */
import { availableParallelism } from "node:os"
import {
  chatPrompt,
  Generator,
  KV_CACHE_FORMATS,
  textPrompt,
  type Completion,
  type GeneratorOptions,
} from "@sloth/infer"
import { createCpuBackend } from "@sloth/kernels-cpu"
import { Engine } from "@sloth/tensor"
import { number } from "./lib/options.ts"
import { tokenIds } from "./lib/rows.ts"
import { smollm2 } from "./lib/shapes.ts"
import { median } from "./lib/stats.ts"

const mode = process.argv[2]
if (mode !== "cache" && mode !== "speculate") throw new Error("say what to measure: cache or speculate")
const engine = new Engine(await createCpuBackend({ threads: number("threads", availableParallelism()) }))
const { model, files } = await smollm2(engine)
if (files === undefined) throw new Error("generation needs the model file: set SLOTH_TEST_MODEL_GGUF")
const { tokenizer } = files
const rounds = number("rounds", 3)

/** Runs each setting in turn, round by round, and prints the median of what `figure` makes of its completions. */
const contest = async (
  title: string,
  prompt: readonly number[],
  batch: number,
  tokens: number,
  settings: readonly (readonly [string, GeneratorOptions])[],
  figure: (completions: readonly Completion[]) => number,
  words: (completions: readonly Completion[], generator: Generator) => string,
): Promise<void> => {
  const figures = settings.map((): number[] => [])
  const said = settings.map(() => "")
  for (let round = 0; round < rounds; round++)
    for (const [i, [, options]] of settings.entries()) {
      using generator = new Generator(model, tokenizer, { maxBatch: batch, ...options })
      const completions = await generator.generate(
        Array.from({ length: batch }, (_, seed) => ({
          prompt,
          options: { maxTokens: tokens, ignoreEnd: true, temperature: batch > 1 ? 1 : 0, seed },
        })),
      )
      figures[i]!.push(figure(completions))
      said[i] = words(completions, generator)
    }
  console.log(title)
  for (const [i, [name]] of settings.entries())
    console.log(`  ${name.padEnd(12)} ${median(figures[i]!).toFixed(1).padStart(7)}  ${said[i]}`)
}

if (mode === "cache") {
  const [context, batch] = [number("context", 1800), number("batch", 4)]
  await contest(
    `ms a pass of ${batch} texts at ${context} tokens`,
    tokenIds(1, context),
    batch,
    number("tokens", 16),
    KV_CACHE_FORMATS.map((kvCache) => [kvCache, { kvCache }]),
    (all) => 1000 / all.at(-1)!.tokensPerSecond,
    (_, generator) => `${(generator.cache.bytes / 1e6).toFixed(1)} MB allocated`,
  )
} else {
  const text =
    "The quick brown fox jumps over the lazy dog. A small boat sails on the blue sea. The old man reads a book near the fire."
  const code = Array.from({ length: 24 }, (_, i) => `const value${i} = readValue("name${i}", ${i * 3})\n`).join("")
  const prompts: [string, number[]][] = [
    ["quoting the question", chatPrompt(tokenizer, [{ role: "user", content: `Repeat this text exactly:\n${text}` }])],
    ["code with a pattern", textPrompt(tokenizer, code)],
    ["a free story", chatPrompt(tokenizer, [{ role: "user", content: "Tell me a story about a small boat." }])],
  ]
  for (const [name, prompt] of prompts)
    await contest(
      `tokens/s, ${name}`,
      prompt,
      1,
      number("tokens", 128),
      [
        ["plain", {}],
        ["lookup", { speculate: { kind: "lookup" } }],
      ],
      ([completion]) => completion!.tokensPerSecond,
      ([{ speculation } = {} as Completion]) =>
        speculation === undefined ? "" : `${speculation.accepted} of ${speculation.proposed} guesses right`,
    )
}
model[Symbol.dispose]()
engine[Symbol.dispose]()
