import { runRewards } from "@sloth/rl"
import { createSloth, standardPlugins } from "@sloth/sloth"
import rewards from "./reward.ts"

const model = process.argv[2] ?? "nano"

const rows = [
  {
    prompt: "Write a JavaScript function add(a, b) that returns the sum. Answer with one code block.",
    entry_point: "add",
    tests: [{ args: [2, 3], expected: 5 }],
  },
  {
    prompt: "Write a JavaScript function larger(a, b) that returns the larger number. Answer with one code block.",
    entry_point: "larger",
    tests: [{ args: [2, 3], expected: 3 }],
  },
]

/** What a model may come up with for the first row, from honest to hostile. */
const answers: Readonly<Record<string, string>> = {
  honest: "const add = (a, b) => a + b",
  "knows the test": "const add = () => 5",
  "equals everything": "const add = () => ({ valueOf: () => 5, toJSON: () => 5 })",
  "never ends": "function add(a, b) { for (;;); }",
  "fills the memory": "function add(a, b) { const x = []; for (;;) x.push(new Uint8Array(1e6)) }",
  "reads files": "const add = () => require('fs').readFileSync('/etc/passwd')",
}
const { scores } = await runRewards(
  rewards,
  Object.values(answers).map((code) => ({
    prompt: rows[0]!.prompt,
    completion: `\`\`\`javascript\n${code}\n\`\`\``,
    completionTokens: [],
    finishReason: "stop" as const,
    row: rows[0]!,
  })),
)
for (const [i, name] of Object.keys(answers).entries())
  console.log(`${name.padEnd(18)} tests ${scores[0]![i]!.toFixed(2)}  runs ${scores[1]![i]}`)

// The same rewards in training. A model that knows some JavaScript (Qwen2.5-Coder, say) has something to gain here; the embedded one shows the way only.
await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })
const run = await sloth.train({
  model,
  method: "grpo",
  data: rows,
  rewards: ["./reward.ts"],
  settings: { numGenerations: 2, maxCompletionLength: 24 },
  steps: 2,
  batch: 2,
  rank: 8,
  onEvent: (event) => {
    if (event.type === "step") console.log(`step ${event.step}: reward ${event.metrics?.["reward"]?.toFixed(2)}`)
  },
})
console.log(`adapter: ${run.adapter}`)
