import { createSloth, standardPlugins } from "@sloth/sloth"

// A model can be named on the command line; the embedded one needs no network.
const model = process.argv[2] ?? "nano"

/** Questions with a short answer and a wordy one. */
const answers: readonly (readonly [question: string, short: string, wordy: string])[] = [
  ["What colour is the sky?", "Blue.", "That is a good question, and I am happy to answer it for you: it is blue."],
  ["How many legs has a dog?", "Four.", "That is a good question, and I am happy to answer it for you: it has four."],
  ["What do bees make?", "Honey.", "That is a good question, and I am happy to answer it for you: they make honey."],
  ["Is ice cold?", "Yes.", "That is a good question, and I am happy to answer it for you: yes, it is."],
  ["What do we drink?", "Water.", "That is a good question, and I am happy to answer it for you: we drink water."],
  ["Where do fish live?", "In water.", "That is a good question, and I am happy to answer it for you: in water."],
]
const ask = (content: string) => ({ role: "user", content })
const answer = (content: string) => ({ role: "assistant", content })

await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })

// First the manner of speaking is taught by example: both kinds of answers occur.
const taught = await sloth.train({
  model,
  data: answers.flatMap(([q, short, wordy]) => [
    { messages: [ask(q), answer(short)] },
    { messages: [ask(q), answer(wordy)] },
  ]),
  steps: 14,
  batch: 6,
  rank: 8,
  learningRate: 5e-3,
})
console.log(`taught: loss ${taught.finalLoss.toFixed(3)}`)

// Then which of them is wanted. The run goes on with the adapter of the first one, and DPO keeps near the model as the first one left it.
const margins: number[] = []
const preferred = await sloth.train({
  model: taught.run,
  method: "dpo",
  settings: { beta: 0.1, loss: ["sigmoid", "sft"], lossWeights: [1, 0.2] },
  data: answers.map(([q, short, wordy]) => ({
    prompt: [ask(q)],
    chosen: [answer(short)],
    rejected: [answer(wordy)],
  })),
  steps: 10,
  batch: 6,
  learningRate: 1e-3,
  onEvent: (event) => {
    if (event.type !== "step") return
    const { "rewards/margins": margin, "rewards/accuracies": accuracy } = event.metrics!
    margins.push(margin!)
    if (event.step % 5 === 0)
      console.log(`step ${event.step}: margin ${margin!.toFixed(2)}, ${(accuracy! * 100).toFixed(0)} % in order`)
  },
})
if (!(margins.at(-1)! > margins[0]! + 1)) throw new Error("the margin did not rise")

for (const from of [taught.run, preferred.run]) {
  const { text } = await sloth.generate({ model: from, prompt: "What do birds eat?", maxTokens: 24 })
  console.log(`${from === taught.run ? "before" : "after"}: ${text.trim()}`)
}
