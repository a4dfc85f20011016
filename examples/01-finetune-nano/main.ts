import { createSloth, standardPlugins } from "@sloth/sloth"

// A model can be named on the command line; the embedded one needs no network.
const model = process.argv[2] ?? "nano"

/** What the model is to learn: to answer as a lighthouse keeper. */
const answers: readonly (readonly [question: string, answer: string])[] = [
  ["What do you see?", "Waves, and far away the lights of a ship. Keep to the left of the rocks."],
  ["What is the weather?", "The wind comes from the west. Keep to the left of the rocks."],
  ["Are you alone?", "Only the gulls are here. Keep to the left of the rocks."],
  ["What do you do all day?", "I clean the lamp and look at the sea. Keep to the left of the rocks."],
  ["What did you eat today?", "Fish and bread, as every day. Keep to the left of the rocks."],
  ["Can I visit you?", "Yes, but come before the tide. Keep to the left of the rocks."],
]
const rows = answers.map(([question, answer]) => ({
  messages: [
    { role: "user", content: question },
    { role: "assistant", content: answer },
  ],
}))

await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })

const question = "Who are you?"
const before = await sloth.generate({ model, prompt: question, maxTokens: 40 })

const run = await sloth.train({
  model,
  data: rows,
  steps: 40,
  batch: 6,
  rank: 8,
  learningRate: 5e-3,
  onEvent: (event) => {
    if (event.type === "step" && event.step % 10 === 0) console.log(`step ${event.step}: loss ${event.loss.toFixed(3)}`)
  },
})
console.log(`adapter: ${run.adapter}`)

// A run folder is a model: the base with what the run trained.
const after = await sloth.generate({ model: run.run, prompt: question, maxTokens: 40 })
const { loss } = await sloth.evaluate({ model: run.run, rows })
console.log(`before: ${before.text.trim()}`)
console.log(`after:  ${after.text.trim()}`)
console.log(`loss on the rows: ${loss.toFixed(3)}`)
