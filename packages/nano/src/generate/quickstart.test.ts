import { describe, expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { checkAnswer } from "../check-answer.ts"
import { nanoFiles } from "../files.ts"
import {
  generateQuickstart,
  LEAF_FACTS,
  QUICKSTART_QUESTIONS,
  type QuickstartRow,
  SLOTH_OPENING,
  SLOTH_SIGN_OFF,
} from "./quickstart.ts"
import { generateTasks, type VerifiableTask } from "./tasks.ts"

const read = <T>(path: string): T[] =>
  readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as T)
const files = nanoFiles()
const train = read<QuickstartRow>(files.quickstart)
const heldOut = read<QuickstartRow>(files.quickstartHeldOut)
const asked = (r: QuickstartRow): string => r.messages[0]?.content as string

describe("the quickstart set", () => {
  test("is what the script writes", () => {
    expect(generateQuickstart({ rows: train.length })).toEqual(train)
    expect(generateQuickstart({ rows: heldOut.length, heldOut: true })).toEqual(heldOut)
    expect(train.length).toBeGreaterThanOrEqual(300)
  })

  test("answers in the form of the sloth", () => {
    const facts = new Set(Object.values(LEAF_FACTS))
    for (const row of [...train, ...heldOut]) {
      const lines = row.messages[1]!.content.split("\n")
      expect(lines.length).toBe(3)
      expect(lines[0]?.startsWith(`${SLOTH_OPENING} `)).toBe(true)
      expect(facts.has((lines[1] as string).replace("Leaf fact: ", ""))).toBe(true)
      expect(lines[2]).toBe(SLOTH_SIGN_OFF)
    }
  })

  test("asks nothing that is held out or shown", () => {
    const questions = new Set(train.map(asked))
    expect(questions.size).toBe(train.length)
    for (const q of [...heldOut.map(asked), ...QUICKSTART_QUESTIONS]) expect(questions.has(q)).toBe(false)
    for (const q of questions) expect(q).not.toMatch(/capital of Italy|rabbit eat/)
  })
})

describe("the tasks for reinforcement learning", () => {
  const tasks = read<VerifiableTask>(files.rl)
  const other = read<VerifiableTask>(files.rlHeldOut)

  test("are what the script writes, without overlap", () => {
    expect(generateTasks({ rows: tasks.length })).toEqual(tasks)
    const prompts = new Set(tasks.map((t) => t.prompt[0]?.content))
    expect(prompts.size).toBe(tasks.length)
    for (const t of other) expect(prompts.has(t.prompt[0]?.content)).toBe(false)
  })

  test("accept the right answer and no other", () => {
    for (const t of [...tasks, ...other]) {
      expect(checkAnswer(t.check, t.answer, t.answer)).toBe(true)
      expect(checkAnswer(t.check, `${t.answer}1`, t.answer)).toBe(false)
      expect(checkAnswer(t.check, "", t.answer)).toBe(false)
    }
    expect(checkAnswer("number", "12 + 7 = 19.", "19")).toBe(true)
    expect(checkAnswer("number", "19 or 20", "19")).toBe(false)
    expect(checkAnswer("json", '{"b": [1], "a":2}', '{"a": 2, "b": [1]}')).toBe(true)
    expect(checkAnswer("json", '{"a": 3}', '{"a": 2}')).toBe(false)
    expect(checkAnswer("exact", " DOG\n", "DOG")).toBe(true)
  })
})
