import { listOf, plural } from "./grammar.ts"
import type { Random } from "./random.ts"
import { fillTemplate } from "./template.ts"
import type { Question } from "./types.ts"
import { ANIMALS, COLOURS, FRUITS, PEOPLE, PLACES, THINGS } from "./words.ts"

/** What is said about each person of a scene, and how one asks for it: by the person, and by the value. */
interface Property {
  readonly draw: (random: Random, n: number) => string[]
  readonly say: string
  readonly ask: string
  readonly answer: string
  readonly askWho: string
  readonly answerWho: string
}

const PROPERTIES: readonly Property[] = [
  {
    draw: (r, n) => r.sample(THINGS, n).map((t) => `${r.pick(COLOURS)} ${t}`),
    say: "{name} has {a v}.",
    ask: "What does {name} have?",
    answer: "{name} has {a v}.",
    askWho: "Who has the {v}?",
    answerWho: "{name} has the {v}.",
  },
  {
    draw: (r, n) => r.sample(PLACES, n).map((p) => p.at),
    say: "{name} is {v}.",
    ask: "Where is {name}?",
    answer: "{name} is {v}.",
    askWho: "Who is {v}?",
    answerWho: "{name} is {v}.",
  },
  {
    draw: (r, n) => r.sample(FRUITS, n).map((f) => plural(f)),
    say: "{name} [likes|likes to eat] {v}.",
    ask: "What does {name} like?",
    answer: "{name} likes {v}.",
    askWho: "Who likes {v}?",
    answerWho: "{name} likes {v}.",
  },
  {
    draw: (r, n) => r.sample([3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 20, 30, 40, 50, 60, 70, 80], n).map(String),
    say: "{name} is {v} years old.",
    ask: "How old is {name}?",
    answer: "{name} is {v} years old.",
    askWho: "Who is {v} years old?",
    answerWho: "{name} is {v} years old.",
  },
  {
    draw: (r, n) =>
      r
        .sample(
          ANIMALS.filter((a) => a.hero === true),
          n,
        )
        .map((a) => a.name),
    say: "{name} [has|owns] {a v}.",
    ask: "Which animal does {name} have?",
    answer: "{name} has {a v}.",
    askWho: "Who has the {v}?",
    answerWho: "{name} has the {v}.",
  },
  {
    draw: (r, n) => r.sample(COLOURS, n),
    say: "The hat of {name} is {v}.",
    ask: "What colour is the hat of {name}?",
    answer: "The hat of {name} is {v}.",
    askWho: "Whose hat is {v}?",
    answerWho: "The hat of {name} is {v}.",
  },
]

/** A few sentences about people, and a question that only those sentences answer. */
export function readingQuestion(random: Random): Question {
  const n = random.integer(2, 4)
  const people = random.sample(PEOPLE, n)
  const property = random.pick(PROPERTIES)
  const values = property.draw(random, n)
  const rows = people.map((p, k) => ({ name: p.name, v: values[k] as string }))
  const text = rows.map((row) => fillTemplate(random, property.say, row)).join(" ")
  const who = random.chance(0.5)
  const row = random.pick(rows)
  const style = random.unit()
  if (style < 0.1) {
    const names = rows.map((r) => r.name)
    return {
      ask: `${text} ${random.pick(["How many people are in this text?", "Count the people."])}`,
      answer: `There are ${n} people: ${listOf(names)}.`,
      short: String(n),
    }
  }
  if (style < 0.2) {
    const other = random.pick(PEOPLE.filter((p) => !people.includes(p))).name
    return {
      ask: `${text} ${fillTemplate(random, property.ask, { name: other })}`,
      answer: `The text does not say anything about ${other}.`,
      short: "The text does not say",
    }
  }
  return {
    ask: `${text} ${fillTemplate(random, who ? property.askWho : property.ask, row)}`,
    answer: fillTemplate(random, who ? property.answerWho : property.answer, row),
    short: who ? row.name : row.v,
  }
}
