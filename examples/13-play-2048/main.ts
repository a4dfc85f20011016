import { prompt2048, strategy2048 } from "@sloth/rl"
import { createSloth, standardPlugins } from "@sloth/sloth"

// A model can be named on the command line, then the steps of the second part.
const model = process.argv[2] ?? "nano"
const steps = Number(process.argv[3] ?? 6)

// A small target, so that a game takes a moment, and a win that is worth little more than coming near: a few steps should not depend on luck.
const game = { language: "javascript", size: 4, target: 128, games: 2, scores: { won: 4 } } as const

/** What a beginner might write: most of it gets stuck. A model that knows some JavaScript needs no such examples. */
const drafts = [
  'return "W"',
  'return "A"',
  'return board[0][0] === 0 ? "W" : "A"',
  'return Math.random() < 0.5 ? "W" : "A"',
  'return "WASD"[Math.floor(Math.random() * 4)]',
]
const code = (body: string): string => `\`\`\`javascript\nfunction strategy(board) {\n  ${body}\n}\n\`\`\``

await using sloth = await createSloth({ plugins: standardPlugins(), cwd: import.meta.dirname })

// First by example, so that there is something to choose from: all drafts are equally likely.
const taught = await sloth.train({
  model,
  data: drafts.map((body) => ({
    messages: [
      { role: "user", content: prompt2048("javascript", game) },
      { role: "assistant", content: code(body) },
    ],
  })),
  steps: 40,
  batch: drafts.length,
  rank: 16,
  learningRate: 3e-3,
  saveEvery: 0,
  measure: false,
})
console.log(`taught: loss ${taught.finalLoss.toFixed(2)}`)

// Then by playing: each completion is a strategy that plays, and what plays better is written more often.
const rewards: number[] = []
const played = await sloth.train({
  model: taught.run,
  method: "grpo",
  environment: strategy2048(game),
  settings: { numGenerations: 8, maxCompletionLength: 80 },
  steps,
  batch: 3,
  learningRate: 2e-4,
  saveEvery: 0,
  measure: false,
  onEvent: (event) => {
    if (event.type !== "step") return
    const { reward, "rewards/strategy_2048/environment/largest_tile": tile } = event.metrics!
    rewards.push(reward!)
    console.log(`step ${event.step}: mean reward ${reward!.toFixed(2)}, largest tile ${tile?.toFixed(0)} on average`)
  },
})
const part = Math.max(1, Math.floor(rewards.length / 3))
const mean = (values: readonly number[]): string => (values.reduce((a, b) => a + b, 0) / values.length).toFixed(2)
console.log(`mean reward ${mean(rewards.slice(0, part))} at first, ${mean(rewards.slice(-part))} at the end`)
console.log(`strategies: sloth samples ${played.run} --sort reward --full`)
