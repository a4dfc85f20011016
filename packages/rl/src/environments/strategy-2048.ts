import { createHash } from "node:crypto"
import { createSandbox, type Sandbox, type SandboxLanguage } from "@sloth/sandbox"
import { checkImports, codeBlock } from "../rewards/code-text.ts"
import { defineReward, type DefinedReward } from "../rewards/define-reward.ts"
import { defineEnvironment, type Environment } from "./environment.ts"
import { Game2048, type Game2048Options, type Move2048 } from "./game-2048.ts"

/** How a strategy for 2048 is played and scored. */
export interface Strategy2048Options extends Omit<Game2048Options, "seed"> {
  /** "python" when absent. */
  readonly language?: SandboxLanguage
  /** Where strategies run; one of its own with the default limits when absent. */
  readonly sandbox?: Sandbox
  /** Games of each strategy; 1 when absent. */
  readonly games?: number
  /** Most moves of a game; 5000 when absent. */
  readonly maxMoves?: number
  readonly scores?: Partial<typeof SCORES>
}

/** What a strategy earns; the numbers of the 2048 example that Unsloth's documentation has, and a part of `played` by the largest tile. */
const SCORES = {
  /** There is no code block with a function `strategy`. */
  missing: -2,
  /** It imports what is not in the standard library. */
  refused: -20,
  /** It does not parse, or fails before the game. */
  broken: -0.5,
  /** It throws, or answers something that is no move. */
  crashed: -3,
  /** It is too slow, takes too much memory, or was killed for something else. */
  killed: -1,
  /** It has played to the end without winning: this times log2(largest tile) / log2(target). */
  played: 2,
  /** It has reached the target. */
  won: 20,
}

/** How a strategy did. */
export interface Strategy2048Result {
  readonly outcome: keyof typeof SCORES
  readonly score: number
  /** Of the last game. */
  readonly largest: number
  readonly moves: number
}

const MOVES: readonly string[] = ["W", "A", "S", "D"] satisfies Move2048[]
/** Moves without effect after which a strategy counts as stuck: one that only looks at the board would give the same for ever. */
const IDLE_MOVES = 16

/** Plays the strategy in a completion. The game runs outside the sandbox: the strategy sees boards and answers moves, nothing else. */
export const playStrategy2048 = async (
  sandbox: Sandbox,
  completion: string,
  seed: number,
  options: Strategy2048Options = {},
  signal?: AbortSignal,
): Promise<Strategy2048Result> => {
  const { language = "python", games = 1, maxMoves = 5000, ...setup } = options
  const scores = { ...SCORES, ...options.scores }
  const end = (outcome: keyof typeof SCORES, game?: Game2048, score = scores[outcome]): Strategy2048Result => ({
    outcome,
    score,
    largest: game?.largest ?? 0,
    moves: game?.moves ?? 0,
  })
  const program = codeBlock(completion, language)
  const defined = language === "python" ? /^def\s+strategy\s*\(/m : /\bstrategy\b/
  if (program === undefined || !defined.test(program)) return end("missing")
  if (!checkImports(program, language).ok) return end("refused")
  let total = 0
  let last: Strategy2048Result | undefined
  for (let k = 0; k < games; k++) {
    const game = new Game2048({ ...setup, seed: seed + k })
    await using session = await sandbox.open(program, { signal })
    if (session.opened.status !== "ok") return end(session.opened.status === "error" ? "broken" : "killed", game)
    for (let idle = 0; game.state === "playing" && game.moves < maxMoves && idle < IDLE_MOVES;) {
      // Python's function is taken out of its globals, so that it can keep nothing between moves; helpers belong inside it.
      const said = await session.call({ function: "strategy", args: [game.board], locked: language === "python" })
      if (said.status === "error") return end("crashed", game)
      if (said.status !== "ok") return end("killed", game)
      if (typeof said.value !== "string" || !MOVES.includes(said.value)) return end("crashed", game)
      idle = game.move(said.value as Move2048) ? 0 : idle + 1
    }
    last =
      game.state === "won"
        ? end("won", game)
        : end("played", game, (scores.played * Math.log2(game.largest)) / Math.log2(game.target))
    total += last.score
  }
  return { ...last!, score: total / games }
}

const seedOf = (text: string): number => createHash("sha256").update(text).digest().readUInt32LE(0)

/** Scores strategies for 2048 that a completion holds, by games that are the same for all completions of a prompt and row. Notes the largest tile and the moves. */
export const strategy2048Reward = (
  options: Strategy2048Options & { readonly name?: string; readonly weight?: number; readonly seed?: number } = {},
): DefinedReward => {
  const { name = "strategy_2048", weight, seed = 0 } = options
  const sandboxOf = lazySandbox(options)
  return defineReward({
    name,
    weight,
    each: async ({ completion, prompt, row }, { signal, metric }) => {
      const game = seedOf(JSON.stringify([seed, prompt, row]))
      const result = await playStrategy2048(sandboxOf(), completion, game, options, signal)
      metric("largest_tile", result.largest)
      metric("moves", result.moves)
      metric("won", result.outcome === "won" ? 1 : 0)
      return result.score
    },
  })
}

const lazySandbox = ({ sandbox, language = "python" }: Strategy2048Options): (() => Sandbox) => {
  let found = sandbox
  return () => (found ??= createSandbox({ language, timeMs: 1000, totalMs: 30_000 }))
}

/** The task in words. */
export const prompt2048 = (
  language: SandboxLanguage,
  { size = 4, target = 2048 }: Omit<Game2048Options, "seed"> = {},
): string => {
  const example =
    language === "python" ? 'def strategy(board):\n    return "W"' : 'function strategy(board) {\n  return "W"\n}'
  return [
    `Write a short strategy for the game 2048 on a board of ${size} x ${size}; the tile ${target} wins.`,
    `The function \`strategy\` gets the board, a list of rows of numbers where 0 is an empty place, and returns the next move: "W" (up), "A" (left), "S" (down) or "D" (right).`,
    "Use only the standard library, and put every helper inside the function. Answer with the function in one code block, like this example:",
    `\`\`\`${language}\n${example}\n\`\`\``,
  ].join("\n")
}

/**
 * 2048 by code: the model writes a strategy, sees how it did, and may write a better one as long as `attempts` last. The reward of a turn is what its strategy
 * earned beyond the best before, so that the rewards of an episode add up to its best score.
 */
export const strategy2048 = (
  options: Strategy2048Options & { readonly attempts?: number } = {},
): Environment<Readonly<Record<string, unknown>>, { readonly seed: number; best: number | undefined }> => {
  const { attempts = 1, language = "python" } = options
  const sandboxOf = lazySandbox(options)
  return defineEnvironment<Readonly<Record<string, unknown>>, { readonly seed: number; best: number | undefined }>({
    name: "strategy_2048",
    maxTurns: attempts,
    // Episodes differ by their seed alone.
    rows: Array.from({ length: 64 }, () => ({})),
    // Says before the first step that Python is missing, and checks the board.
    ready: async () => {
      void new Game2048({ ...options, seed: 0 })
      await sandboxOf().warm()
    },
    reset: (_row, seed) => ({
      messages: [{ role: "user", content: prompt2048(language, options) }],
      state: { seed: seed >>> 0, best: undefined },
    }),
    step: async (state, { text, turn }, { signal, metric }) => {
      const result = await playStrategy2048(sandboxOf(), text, state.seed, options, signal)
      metric("largest_tile", result.largest)
      const reward = state.best === undefined ? result.score : Math.max(0, result.score - state.best)
      state.best = Math.max(state.best ?? result.score, result.score)
      if (result.outcome === "won" || turn === attempts - 1) return { reward, done: true }
      return { reward, messages: [{ role: "user", content: feedback(result) }], done: false }
    },
  })
}

const feedback = ({ outcome, largest, moves }: Strategy2048Result): string => {
  const what = {
    missing: "There was no code block with a function `strategy`.",
    refused: "The strategy imports something that is not in the standard library.",
    broken: "The program does not run.",
    crashed: "The strategy threw an error, or returned something that is no move.",
    killed: "The strategy took too long.",
    played: `The game ended after ${moves} moves; the largest tile was ${largest}.`,
    won: "The strategy won.",
  }[outcome]
  return `${what} Write a better strategy, in one code block.`
}
