import { createSloth, standardPlugins } from "@sloth/sloth"

const model = process.argv[2] ?? "nano"

/** Answers that people rated one by one: thumbs up or down, no pairs. */
const ratings: readonly (readonly [question: string, answer: string, good: boolean])[] = [
  ["How are you?", "I am well, thank you.", true],
  ["How are you?", "Why do you ask?", false],
  ["Can you help me?", "Yes, gladly.", true],
  ["Can you help me?", "No.", false],
  ["Tell me a fact.", "Bees make honey.", true],
  ["Tell me a fact.", "I do not want to.", false],
  ["Good morning!", "Good morning to you!", true],
  ["What is your name?", "That is none of your business.", false],
]

await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })

const margins: number[] = []
const run = await sloth.train({
  model,
  method: "kto",
  // Fewer good answers than bad ones would weigh more with desirableWeight.
  settings: { beta: 0.1 },
  data: ratings.map(([question, content, label]) => ({
    prompt: [{ role: "user", content: question }],
    completion: [{ role: "assistant", content }],
    label,
  })),
  steps: 12,
  batch: 8,
  rank: 8,
  learningRate: 1e-3,
  onEvent: (event) => {
    if (event.type !== "step") return
    const { "rewards/margins": margin, kl } = event.metrics!
    margins.push(margin!)
    if (event.step % 4 === 0) console.log(`step ${event.step}: margin ${margin!.toFixed(2)}, kl ${kl!.toFixed(2)}`)
  },
})
if (!(margins.at(-1)! > margins[0]! + 0.5)) throw new Error("good answers did not gain on bad ones")
console.log(`adapter: ${run.adapter}`)
