import { createSloth, standardPlugins } from "@sloth/sloth"

const model = process.argv[2] ?? "nano"

/** Plain texts in place of conversations: the common beginning of a pair is its prompt. */
const rows = [
  ["The cat is", "on the mat.", "a number."],
  ["The sun is", "warm and bright.", "made of cheese."],
  ["A dog can", "run and bark.", "read the news."],
  ["We go to", "the sea today.", "seven o'clock blue."],
  ["The bird sings", "in the tree.", "under a spoon of."],
  ["My house has", "a red door.", "no because yes."],
].map(([start, good, bad]) => ({ chosen: `${start} ${good}`, rejected: `${start} ${bad}` }))

await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })
const request = {
  model,
  method: "orpo",
  data: rows,
  settings: { beta: 0.5 },
  steps: 20,
  batch: 6,
  rank: 8,
  learningRate: 3e-3,
} as const

// What would be done, and how the rows were understood.
const { plan, data } = await sloth.plan(request)
console.log(data.statement)
console.log(`${plan.rows} pairs, ${plan.trainableParameters} parameters are trained`)

const odds: number[] = []
await sloth.train({
  ...request,
  onEvent: (event) => {
    if (event.type !== "step") return
    odds.push(event.metrics!["log_odds_chosen"]!)
    if (event.step % 10 === 0)
      console.log(`step ${event.step}: loss ${event.loss.toFixed(3)}, log odds ratio ${odds.at(-1)!.toFixed(2)}`)
  },
})
if (!(odds.at(-1)! > odds[0]! + 1)) throw new Error("the odds of the chosen texts did not rise")
