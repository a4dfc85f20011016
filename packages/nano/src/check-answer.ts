/** How an answer is compared: the last number in it, its exact text, or its JSON value. */
export type AnswerCheck = "number" | "exact" | "json"

const numberPattern = /-?\d+(?:\.\d+)?/g

/** The value of a JSON text with sorted keys, or undefined. */
const canonical = (text: string): string | undefined => {
  const sort = (value: unknown): unknown =>
    Array.isArray(value)
      ? value.map(sort)
      : typeof value === "object" && value !== null
        ? Object.fromEntries(
            Object.entries(value)
              .sort(([a], [b]) => (a < b ? -1 : 1))
              .map(([k, v]) => [k, sort(v)]),
          )
        : value
  try {
    return JSON.stringify(sort(JSON.parse(text)))
  } catch {
    return undefined
  }
}

/** True if a completion gives the expected answer; a reward for the tasks of `rl.jsonl`. */
export function checkAnswer(check: AnswerCheck, completion: string, answer: string): boolean {
  const text = completion.trim()
  switch (check) {
    case "number": {
      const last = text.match(numberPattern)?.at(-1)
      return last !== undefined && Number(last) === Number(answer)
    }
    case "exact":
      return text === answer.trim()
    case "json": {
      const got = canonical(text)
      return got !== undefined && got === canonical(answer)
    }
  }
}
