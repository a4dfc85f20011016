import { afterAll, describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { createSandbox } from "@sloth/sandbox"
import { byteTokenizer } from "../../../data/fixtures/byte-tokenizer.ts"
import { scriptedEngine } from "../internal/testing/scripted-engine.ts"
import { runRewards } from "../rewards/run-rewards.ts"
import { Game2048, type Move2048 } from "./game-2048.ts"
import { runEpisodes } from "./run-episodes.ts"
import { playStrategy2048, prompt2048, strategy2048, strategy2048Reward } from "./strategy-2048.ts"

describe("the game", () => {
  const play = (seed: number, moves: string): Game2048 => {
    const game = new Game2048({ seed })
    for (const move of moves) game.move(move as Move2048)
    return game
  }

  test("follows from its seed", () => {
    expect(play(3, "WASDWASD").board).toEqual(play(3, "WASDWASD").board)
    expect(play(3, "").board).not.toEqual(play(4, "").board)
    expect(
      play(1, "")
        .board.flat()
        .filter((tile) => tile > 0),
    ).toHaveLength(2)
  })

  test("moves, merges once, counts, and keeps the sum of tiles but for new ones", () => {
    for (let seed = 0; seed < 30; seed++) {
      const game = new Game2048({ seed, size: 3, probabilityFours: 0 })
      for (let i = 0; game.state === "playing" && i < 500; i++) {
        const before = game.board
        const move = "WASD"[i % 4] as Move2048
        // The same by hand: each line read from the side the tiles go to.
        const lines = [0, 1, 2].map((k) => {
          const line = move === "A" || move === "D" ? before[k]! : before.map((row) => row[k]!)
          const tiles = (move === "D" || move === "S" ? line.toReversed() : line).filter((tile) => tile > 0)
          for (let j = 0; j + 1 < tiles.length; j++) if (tiles[j] === tiles[j + 1]) tiles.splice(j, 2, tiles[j]! * 2)
          return tiles
        })
        const moved = game.move(move)
        const after = game.board
        for (const [k, tiles] of lines.entries()) {
          const line = move === "A" || move === "D" ? after[k]! : after.map((row) => row[k]!)
          const from = move === "D" || move === "S" ? line.toReversed() : line
          expect(from.slice(0, tiles.length)).toEqual(tiles)
        }
        const sum = (board: number[][]): number => board.flat().reduce((a, b) => a + b, 0)
        expect(sum(after)).toBe(sum(before) + (moved ? 2 : 0))
      }
      expect(game.state).toBe("lost")
    }
  })

  test("is won at its target, and refuses to be set up wrongly", () => {
    const game = new Game2048({ seed: 1, target: 8 })
    for (let i = 0; game.state === "playing"; i++) game.move("WASD"[i % 4] as Move2048)
    expect(game.state).toBe("won")
    expect(game.move("A")).toBe(false)
    for (const wrong of [{ size: 1 }, { target: 100 }, { probabilityFours: 2 }])
      expect(() => new Game2048({ seed: 1, ...wrong })).toThrow(
        expect.objectContaining({ code: "SLOTH_ENVIRONMENT_OPTION" }),
      )
  })
})

describe("strategies", () => {
  const python = createSandbox({ language: "python", processes: 1, timeMs: 2000, totalMs: 60_000 })
  const javascript = createSandbox({ language: "javascript", processes: 1, timeMs: 1000, totalMs: 60_000 })
  afterAll(async () => {
    await python[Symbol.asyncDispose]()
    await javascript[Symbol.asyncDispose]()
  })
  const fence = (code: string, language = "python"): string => `\`\`\`${language}\n${code}\n\`\`\``

  test("earn by how far they come", async () => {
    const play = (code: string, more = {}) => playStrategy2048(python, fence(code), 5, { target: 64, ...more })
    const cycle = `def strategy(board):
    import random
    return "WASD"[sum(map(sum, board)) // 2 % 4]`
    expect(await play(cycle, { target: 8 })).toMatchObject({ outcome: "won", score: 20 })
    const stuck = await play('def strategy(board): return "W"')
    expect(stuck).toMatchObject({ outcome: "played" })
    expect(stuck.score).toBeCloseTo((2 * Math.log2(stuck.largest)) / 6, 12)
    const cases = {
      missing: "x = 1",
      refused: 'import os\ndef strategy(board): return "W"',
      broken: "def strategy(board):",
      crashed: 'def strategy(board): return "up"',
    }
    for (const [outcome, code] of Object.entries(cases)) expect((await play(code)).outcome).toBe(outcome as "missing")
    expect((await play("def strategy(board): return board[9]")).outcome).toBe("crashed")
    expect(await play("def strategy(board):\n    while True: pass")).toMatchObject({ outcome: "killed", score: -1 })
    const remembering = 'n = [0]\ndef strategy(board):\n    n[0] += 1\n    return "WASD"[n[0] % 4]'
    expect((await play(remembering)).outcome).toBe("crashed")
    expect(prompt2048("python", { size: 6 })).toContain("6 x 6")
  }, 60_000)

  test("as a reward: the same game for all completions of a row", async () => {
    const reward = strategy2048Reward({ language: "javascript", sandbox: javascript, target: 32 })
    const sample = (code: string, row: number) => ({
      prompt: "p",
      completion: fence(code, "javascript"),
      completionTokens: [],
      finishReason: "stop" as const,
      row: { row },
    })
    const code = 'const strategy = (board) => "WASD"[board.flat().reduce((a, b) => a + b, 0) / 2 % 4]'
    const { scores, metrics } = await runRewards(
      [reward],
      [sample(code, 1), sample(code, 1), sample(code, 2), sample("no(", 1)],
    )
    expect(scores[0]![0]).toBe(scores[0]![1]!)
    expect(scores[0]![0]).toBeGreaterThan(0)
    expect(metrics["rewards/strategy_2048/largest_tile"]).toBeGreaterThan(0)
  }, 60_000)

  test("as an environment: a second attempt earns what it does better", async () => {
    const chatTemplate = readFileSync(
      join(import.meta.dirname, "../../../data/fixtures/templates/chatml.jinja"),
      "utf8",
    )
    const tokenizer = byteTokenizer({ chatTemplate })
    const attempts = [
      "const strategy = () => 1",
      'const strategy = (b) => "WASD"[b.flat().reduce((x, y) => x + y, 0) / 2 % 4]',
    ]
    const { engine } = scriptedEngine(tokenizer, (_, call) => fence(attempts[call]!, "javascript"))
    const environment = strategy2048({ language: "javascript", sandbox: javascript, target: 16, attempts: 2 })
    const { episodes, metrics } = await runEpisodes(engine, tokenizer, environment, [{}], {
      sampling: { maxTokens: 400 },
      maxTokens: 4000,
      seed: 1,
    })
    const [episode] = episodes
    expect(episode!.turns[0]!.reward).toBe(-3)
    expect(episode!.turns[1]!.reward).toBeGreaterThan(3)
    expect(episode!.messages.at(2)!.content).toContain("threw an error")
    expect(metrics["environment/largest_tile"]).toBeGreaterThan(0)
  }, 60_000)
})
