import { SlothError } from "@sloth/core"
import { defineEnvironment, type Environment } from "./environment.ts"

/** How the game is set up. */
export interface NumberGuessOptions {
  /** The number lies between 1 and this; 100 when absent. A row's column "high" comes first. */
  readonly high?: number
  /** Most guesses; 8 when absent. */
  readonly guesses?: number
}

interface GuessState {
  readonly secret: number
  /** What the hints leave possible. */
  low: number
  high: number
}

/**
 * A number is to be found with hints. The model answers `<guess>42</guess>` and is told whether the number is higher or lower. A guess that the hints rule out
 * costs 0.1, as does an answer without one guess; finding the number earns 1 for the first guess and ever less, 0.5 with the last.
 */
export const numberGuess = ({ high = 100, guesses = 8 }: NumberGuessOptions = {}): Environment<
  Readonly<Record<string, unknown>>,
  GuessState
> =>
  defineEnvironment<Readonly<Record<string, unknown>>, GuessState>({
    name: "number_guess",
    maxTurns: guesses,
    // Episodes differ by their seed alone.
    rows: Array.from({ length: 64 }, () => ({})),
    reset: (row, seed) => {
      const top = typeof row["high"] === "number" ? row["high"] : high
      if (!Number.isInteger(top) || top < 2)
        throw new SlothError("SLOTH_ENVIRONMENT_OPTION", {
          what: `A number between 1 and ${top} cannot be guessed.`,
          next: "Give a whole number from 2 as `high`.",
          fields: { high: top },
        })
      // 48 bits of the seed: far more than any range, so that every number is as likely as another.
      const secret = 1 + ((Math.floor(Math.abs(seed)) % 2 ** 48) % top)
      return {
        messages: [
          {
            role: "user",
            content:
              `I think of a whole number from 1 to ${top}. Find it with at most ${guesses} guesses. ` +
              "Answer with one guess at a time, like this: <guess>7</guess>. I say whether my number is higher or lower.",
          },
        ],
        state: { secret, low: 1, high: top },
      }
    },
    step: (state, { content, turn }, { metric }) => {
      const found = [...content.slice(content.lastIndexOf("</think>") + 1).matchAll(/<guess>\s*(-?\d+)\s*<\/guess>/g)]
      const last = turn === guesses - 1
      const say = (text: string, reward: number) => ({
        reward,
        done: last,
        messages: last ? [] : [{ role: "user", content: text }],
      })
      if (found.length !== 1) return say("Answer with exactly one guess, like this: <guess>7</guess>.", -0.1)
      const guess = Number(found[0]![1])
      if (guess === state.secret) {
        metric("guesses", turn + 1)
        return { reward: guesses === 1 ? 1 : 1 - (0.5 * turn) / (guesses - 1), done: true }
      }
      const possible = guess >= state.low && guess <= state.high
      if (guess < state.secret) state.low = Math.max(state.low, guess + 1)
      else state.high = Math.min(state.high, guess - 1)
      return say(guess < state.secret ? "My number is higher." : "My number is lower.", possible ? 0 : -0.1)
    },
  })
