import { endpointJudge, llmJudge } from "@sloth/rl"
import { createSloth, standardPlugins } from "@sloth/sloth"
import { startJudge } from "./judge-server.ts"

// A model can be named on the command line, then the steps.
const model = process.argv[2] ?? "nano"
const steps = Number(process.argv[3] ?? 12)

const questions = [
  "What colour is the sky?",
  "How many legs has a dog?",
  "What do bees make?",
  "Is ice cold?",
  "What do we drink?",
  "Where do fish live?",
  "What does a cow eat?",
  "When does the sun rise?",
]

const server = await startJudge()
const judge = llmJudge({
  judge: endpointJudge({ baseUrl: server.baseUrl, model: "stand-in" }),
  rubric: "One short sentence that answers the question, with a capital letter and a full stop.",
  scale: [0, 10],
})

try {
  await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })
  const rewards: number[] = []
  const run = await sloth.train({
    model,
    method: "grpo",
    data: questions.map((prompt) => ({ prompt })),
    rewards: [judge],
    settings: { numGenerations: 8, maxCompletionLength: 32, temperature: 1 },
    steps,
    batch: 4,
    rank: 16,
    learningRate: 2e-3,
    saveEvery: 0,
    measure: false,
    onEvent: (event) => {
      if (event.type === "step") rewards.push(event.metrics!["reward"]!)
    },
  })
  const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length
  const part = Math.max(1, Math.floor(steps / 4))
  console.log(
    `the judge gives ${mean(rewards.slice(0, part)).toFixed(3)} at first, ${mean(rewards.slice(-part)).toFixed(3)} at the end`,
  )
  console.log(
    `the judge was asked ${server.asked()} times for ${8 * 4 * steps} answers; the others it had judged before`,
  )
  const { text } = await sloth.generate({ model: run.run, prompt: "What do birds eat?", maxTokens: 32 })
  console.log(`after: ${text.trim()}`)
} finally {
  server.close()
}
