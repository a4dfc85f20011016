import { codeRuns, unitTests } from "@sloth/rl"

const language = "javascript"

/** What the tests of a row say, with tests beside them that no completion can have foreseen; and a little for a program that runs at all. */
export default [
  unitTests({
    language,
    fresh: (row, random) =>
      Array.from({ length: 4 }, () => {
        const [a, b] = [Math.floor(random() * 1000), Math.floor(random() * 1000)]
        return { args: [a, b], expected: row["entry_point"] === "add" ? a + b : Math.max(a, b) }
      }),
  }),
  codeRuns({ language, weight: 0.2 }),
]
