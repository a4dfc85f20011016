import type { AnswerCheck } from "../check-answer.ts"
import { arithmeticQuestion, calculation, numberSense, wordProblem } from "./arithmetic.ts"
import { formatTask } from "./formats.ts"
import { Random } from "./random.ts"
import type { Message } from "./types.ts"

/** A task whose answer a program can check: the prompt, the reference answer and the way to compare (see `checkAnswer`). */
export interface VerifiableTask {
  readonly prompt: readonly Message[]
  readonly answer: string
  readonly check: AnswerCheck
  /** "arithmetic" or the format that is asked for. */
  readonly kind: string
}

const FORMATS = [
  "jsonPerson",
  "jsonList",
  "jsonArray",
  "upper",
  "lower",
  "bullets",
  "numbered",
  "sortWords",
  "sortNumbers",
  "reverse",
  "repeat",
  "comma",
  "keyLines",
  "quotes",
  "title",
]

/** Tasks with checkable answers, for reinforcement learning. Half are arithmetic, half ask for a form; no prompt occurs twice. */
export function generateTasks(options: {
  readonly seed?: number
  readonly rows: number
  readonly exclude?: ReadonlySet<string>
}): VerifiableTask[] {
  const { seed = 11, rows, exclude } = options
  const seen = new Set<string>(exclude)
  const out: VerifiableTask[] = []
  for (let attempt = 0; out.length < rows; attempt++) {
    const random = new Random(seed, attempt)
    let task: VerifiableTask
    if (random.chance(0.5)) {
      const q = random.pick([calculation, calculation, wordProblem, numberSense, arithmeticQuestion])(random)
      if (!/^\d+$/.test(q.short)) continue
      task = { prompt: [{ role: "user", content: q.ask }], answer: q.short, check: "number", kind: "arithmetic" }
    } else {
      const t = formatTask(random, random.pick(FORMATS))
      task = {
        prompt: [{ role: "user", content: t.ask }],
        answer: t.answer,
        check: t.format === "json" ? "json" : "exact",
        kind: t.format,
      }
    }
    const key = task.prompt[0]?.content as string
    if (seen.has(key)) continue
    seen.add(key)
    out.push(task)
  }
  return out
}
