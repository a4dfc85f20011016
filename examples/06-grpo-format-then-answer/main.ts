import { readFileSync } from "node:fs"
import { nanoFiles } from "@sloth/nano"
import { defineReward, exactMatch, gate, wholeText } from "@sloth/rl"
import { createSloth, standardPlugins } from "@sloth/sloth"

// A model can be named on the command line, then the steps of each stage.
const model = process.argv[2] ?? "nano"
const steps = Number(process.argv[3] ?? 10)

interface Row {
  readonly prompt: readonly { readonly role: string; readonly content: string }[]
  readonly answer: string
  readonly kind: string
}

/** What every line of an answer begins with, by kind of task. */
const forms: Readonly<Record<string, RegExp>> = { bullets: /^- \S/, numbered: /^\d+\. \S/, lines: /^[A-Z]\w*: \S/ }

const rows = readFileSync(nanoFiles().rlWriting, "utf8")
  .split("\n")
  .filter((line) => line !== "")
  .map((line) => JSON.parse(line) as Row)
  .filter(({ kind }) => forms[kind] !== undefined)

/** Share of the lines that have the form asked for: something to learn from long before a whole answer is right. */
const format = defineReward<Row>({
  name: "format",
  columns: ["kind"],
  each: ({ completion, row }) => {
    const lines = completion.trim().split("\n")
    return lines.filter((line) => forms[row.kind]!.test(line)).length / lines.length
  },
})
/** The right answer counts only in the right form. */
const correct = gate(format, exactMatch({ find: wholeText }), { name: "correct", threshold: 1 })

await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })

const stage = async (name: string, from: string, rewards: readonly (typeof format)[]): Promise<string> => {
  const means: number[] = []
  const run = await sloth.train({
    model: from,
    data: rows,
    method: "grpo",
    rewards,
    settings: { numGenerations: 8, maxCompletionLength: 48 },
    steps,
    batch: 8,
    learningRate: 2e-3,
    saveEvery: 0,
    measure: false,
    onEvent: (event) => {
      if (event.type === "step") means.push(event.metrics?.["reward"] ?? 0)
    },
  })
  const part = Math.max(1, Math.floor(means.length / 4))
  const mean = (values: readonly number[]): string => (values.reduce((a, b) => a + b, 0) / values.length).toFixed(3)
  console.log(`${name}: mean reward ${mean(means.slice(0, part))} at first, ${mean(means.slice(-part))} at the end`)
  return run.run
}

// The form first, which most attempts can earn something by; then the answer, with the form still worth a little.
const formed = await stage("format", model, [format])
const tuned = await stage("answer", formed, [{ ...format, weight: 0.2 }, correct])

const question = "Write as bullet points: lamp, river and cloud."
console.log(`${question}\n${(await sloth.generate({ model: tuned, prompt: question, maxTokens: 40 })).text.trim()}`)
console.log(`completions: ${tuned}/samples.jsonl`)
