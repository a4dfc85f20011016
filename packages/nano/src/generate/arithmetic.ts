import { countOf, listOf, numberWord, plural } from "./grammar.ts"
import type { Random } from "./random.ts"
import { fillTemplate, type Slots } from "./template.ts"
import type { Question } from "./types.ts"
import { COLOURS, FRUITS, PEOPLE, THINGS, VEGETABLES } from "./words.ts"

/** The signs of the calculations. */
export type Operator = "+" | "-" | "x" | "/"

const NAMES: Readonly<Record<Operator, readonly string[]>> = {
  "+": ["plus"],
  "-": ["minus"],
  x: ["times"],
  "/": ["divided by"],
}

function operands(random: Random, op: Operator): { a: number; b: number; c: number } {
  switch (op) {
    case "+": {
      const top = random.pick([10, 10, 20, 20, 50, 99])
      const a = random.integer(0, top)
      const b = random.integer(0, random.chance(0.5) ? 10 : top)
      return { a, b, c: a + b }
    }
    case "-": {
      const top = random.pick([10, 20, 20, 50, 99])
      const a = random.integer(1, top)
      const b = random.integer(0, random.chance(0.5) ? Math.min(a, 10) : a)
      return { a, b, c: a - b }
    }
    case "x": {
      const a = random.integer(0, 10)
      const b = random.integer(0, 10)
      return { a, b, c: a * b }
    }
    case "/": {
      const b = random.integer(1, 10)
      const c = random.integer(1, 10)
      return { a: b * c, b, c }
    }
  }
}

const pickOperator = (random: Random): Operator => random.weighted<Operator>({ "+": 5, "-": 4, x: 3, "/": 1 })

/** A bare calculation: "What is 12 + 7?". */
export function calculation(random: Random): Question {
  const op = pickOperator(random)
  const { a, b, c } = operands(random, op)
  const sign = op === "x" ? random.pick(["x", "x", "*"]) : op
  const s: Slots = { a, b, c, sign, word: random.pick(NAMES[op]), wa: numberWord(a), wb: numberWord(b) }
  const style = random.weighted({ sign: 6, word: 3, spelled: 1 })
  const expression = style === "sign" ? "{a} {sign} {b}" : style === "word" ? "{a} {word} {b}" : "{wa} {word} {wb}"
  const ask = fillTemplate(
    random,
    `[What is|What is|How much is|Calculate|Please calculate|Work out|Solve|What do you get for|Tell me]{space}${expression}`,
    { ...s, space: " " },
  )
  const question = /^(What|How)/.test(ask) ? `${ask}?` : `${ask}.`
  const answers =
    style === "sign"
      ? ["{a} {sign} {b} = {c}.", "{a} {sign} {b} = {c}.", "The answer is {c}.", "{a} {sign} {b} is {c}."]
      : ["{a} {word} {b} is {c}.", "{a} {word} {b} is {c}.", "The answer is {c}."]
  return {
    ask: random.chance(0.05) && style === "sign" ? fillTemplate(random, "{a} {sign} {b} [= ?|=|?]", s) : question,
    answer: fillTemplate(random, random.pick(answers), s),
    short: String(c),
  }
}

const MORE = [
  "{name} has {x}. {He} [finds|buys|gets|picks] {y} more.",
  "There are {x} [in a basket|on the table|in a box|in a bag]. {name} [puts|lays] {y} more there.",
  "{name} has {x} and {friend} has {y}. They put them together.",
  "[In the morning|On Monday] {name} [finds|gets] {x}. [In the evening|On Tuesday] {he} [finds|gets] {y} more.",
  "{name} counts {x}. Then {friend} brings {y} more.",
]
const MORE_ASK = ["How many {things} are there [now|in all]?", "How many {things} is that [now|in all|together]?"]
const LESS = [
  "{name} has {x}. {He} [gives {y} to {friend}|loses {y}|sells {y}|gives {y} away].",
  "There are {x} [in a basket|on the table|in a box|in a bag]. {name} takes {y} [away|out].",
  "{name} had {x} in the morning. {Friend} took {y} of them.",
  "{name} counts {x}. Then {y} of them [roll away|get lost|are sold].",
]
const LESS_ASK = ["How many {things} are left?", "How many {things} are still there?"]
const EACH = [
  "There are {b} [bags|boxes|baskets|bowls]. [Each one holds {xs}|There are {xs} in each].",
  "{name} has {b} [bags|boxes] with {xs} in each.",
  "{b} [children|friends] come to {name}. Each [one |]brings {xs}.",
]
const SHARE = [
  "{name} has {x}. {He} shares them equally among {b} [friends|children].",
  "{x} are put into {b} [bags|boxes], the same number in each.",
]

/** A word problem with one step. */
export function wordProblem(random: Random): Question {
  const op = pickOperator(random)
  let { a, b, c } = operands(random, op)
  while (b < 2 || a < 2 || a > 60) ({ a, b, c } = operands(random, op))
  const [p, q] = random.sample(PEOPLE, 2) as [(typeof PEOPLE)[number], (typeof PEOPLE)[number]]
  const thing = random.pick(
    random.chance(0.5) ? FRUITS : random.chance(0.5) ? VEGETABLES : THINGS.filter((t) => t !== "scarf"),
  )
  const noun =
    random.chance(0.2) && !(FRUITS.includes(thing) || VEGETABLES.includes(thing))
      ? `${random.pick(COLOURS)} ${thing}`
      : thing
  const s: Slots = {
    name: p.name,
    he: p.he,
    He: p.he === "she" ? "She" : "He",
    friend: q.name,
    Friend: q.name,
    b,
    x: countOf(a, noun),
    y: b,
    xs: countOf(op === "x" ? a : 1, noun),
    things: plural(noun),
  }
  const [stories, asks]: [readonly string[], readonly string[]] =
    op === "+"
      ? [MORE, MORE_ASK]
      : op === "-"
        ? [LESS, LESS_ASK]
        : op === "x"
          ? [EACH, ["How many {things} are there [in all|together]?"]]
          : [
              SHARE,
              [random.chance(0.5) ? "How many {things} are in one part?" : "How many {things} are that for each?"],
            ]
  const story = fillTemplate(random, random.pick(stories), s)
  const ask = fillTemplate(random, random.pick(asks), s)
  const end: Slots = { total: countOf(c, noun), are: c === 1 ? "is" : "are", a, b, c, op, none: plural(noun) }
  const answers =
    op === "-"
      ? c === 0
        ? ["{a} - {b} = 0. No {none} are left."]
        : ["{a} - {b} = {c}. {total} {are} left.", "{total} {are} left, because {a} - {b} = {c}."]
      : op === "/"
        ? ["{a} / {b} = {c}. That is {total} each.", "Each part has {total}, because {a} / {b} = {c}."]
        : op === "x"
          ? ["{b} x {a} = {c}. There {are} {total}.", "There {are} {total}, because {b} x {a} = {c}."]
          : ["{a} + {b} = {c}. There {are} {total}.", "There {are} {total}, because {a} + {b} = {c}."]
  return { ask: `${story} ${ask}`, answer: fillTemplate(random, random.pick(answers), end), short: String(c) }
}

/** Which number is larger or smaller, of two or three. */
export function comparison(random: Random): Question {
  const top = random.pick([10, 20, 100])
  const n = random.pick([2, 2, 3])
  const numbers = new Set<number>()
  while (numbers.size < n) numbers.add(random.integer(0, top))
  const list = [...numbers]
  const large = random.chance(0.5)
  const best = large ? Math.max(...list) : Math.min(...list)
  const others = list.filter((x) => x !== best)
  const word = large
    ? n === 2
      ? random.pick(["larger", "bigger", "greater"])
      : random.pick(["largest", "biggest"])
    : n === 2
      ? "smaller"
      : "smallest"
  if (n === 2 && random.chance(0.35)) {
    const [a, b] = list as [number, number]
    const yes = large ? a > b : a < b
    const s: Slots = { a, b, word }
    return {
      ask: fillTemplate(random, "Is {a} {word} than {b}?", s),
      answer: fillTemplate(random, yes ? "Yes, {a} is {word} than {b}." : "No, {a} is {other} than {b}.", {
        ...s,
        other: large ? "smaller" : "larger",
      }),
      short: yes ? "Yes" : "No",
    }
  }
  const s: Slots = {
    list: listOf(list.map(String), "or"),
    and: listOf(list.map(String), "and"),
    word,
    best,
    other: others.join(" and "),
  }
  return {
    ask: fillTemplate(
      random,
      "[Which number is {word}: {list}?|Which is {word}, {list}?|Look at {and}. Which number is the {word} one?|What is the {word} number: {list}?]",
      s,
    ),
    answer: fillTemplate(
      random,
      n === 2
        ? `[{best} is {word} than {other}.|The {word} number is {best}.]`
        : "[The {word} number is {best}.|{best} is the {word}.]",
      s,
    ),
    short: String(best),
  }
}

/** Counting on, counting back, sequences, doubles, halves, even and odd, missing numbers. */
export function numberSense(random: Random): Question {
  const kind = random.weighted({
    after: 2,
    before: 2,
    sequence: 3,
    double: 1,
    half: 1,
    even: 2,
    missing: 2,
    sum3: 2,
    word: 1,
    digit: 1,
    count: 3,
    between: 1,
  })
  const q = (ask: string, answers: readonly string[], short: string | number, s: Slots): Question => ({
    ask: fillTemplate(random, ask, s),
    answer: fillTemplate(random, random.pick(answers), { ...s, r: short }),
    short: String(short),
  })
  switch (kind) {
    case "after": {
      const n = random.integer(0, 98)
      return q(
        "[What number|Which number|What] comes after {n}?",
        ["{r} comes after {n}.", "The number after {n} is {r}."],
        n + 1,
        { n },
      )
    }
    case "before": {
      const n = random.integer(1, 99)
      return q(
        "[What number|Which number|What] comes before {n}?",
        ["{r} comes before {n}.", "The number before {n} is {r}."],
        n - 1,
        { n },
      )
    }
    case "between": {
      const n = random.integer(0, 97)
      return q("Which number is between {n} and {m}?", ["{r} is between {n} and {m}."], n + 1, { n, m: n + 2 })
    }
    case "sequence": {
      const step = random.pick([1, 1, 2, 2, 3, 5, 10, -1, -2])
      const start = step < 0 ? random.integer(10, 30) : random.integer(0, 20)
      const items = [0, 1, 2, 3].map((k) => start + k * step)
      return q(
        "[What comes next|Continue|Go on|Which number is next]: {items}, ...",
        ["The next number is {r}.", "Next comes {r}."],
        start + 4 * step,
        { items: items.join(", ") },
      )
    }
    case "double": {
      const n = random.integer(0, 30)
      return q(
        "[What is the double of {n}|What is double {n}|What is twice {n}]?",
        ["The double of {n} is {r}.", "{n} + {n} = {r}."],
        2 * n,
        { n },
      )
    }
    case "half": {
      const n = random.integer(1, 25)
      return q("What is half of {n}?", ["Half of {n} is {r}."], n, { n: 2 * n })
    }
    case "even": {
      const n = random.integer(0, 99)
      const askEven = random.chance(0.5)
      const even = n % 2 === 0
      return q(
        "Is {n} {word}?",
        even === askEven ? ["Yes, {n} is {word}."] : ["No, {n} is {other}."],
        even === askEven ? "Yes" : "No",
        {
          n,
          word: askEven ? "even" : "odd",
          other: askEven ? "odd" : "even",
        },
      )
    }
    case "missing": {
      const a = random.integer(0, 20)
      const b = random.integer(0, 20)
      return q(
        "[{a} + ? = {c}. What is the missing number?|Which number is missing: {a} + ? = {c}|What must I add to {a} to get {c}?]",
        ["The missing number is {r}, because {a} + {r} = {c}.", "{a} + {r} = {c}."],
        b,
        { a, c: a + b },
      )
    }
    case "sum3": {
      const [a, b, c] = [random.integer(0, 10), random.integer(0, 10), random.integer(0, 10)]
      return q("[What is|How much is] {a} + {b} + {c}?", ["{a} + {b} + {c} = {r}."], a + b + c, { a, b, c })
    }
    case "word": {
      const n = random.integer(0, 100)
      return q(
        "[How do you write {n} in words?|What is {n} as a word?|Write {n} as a word.]",
        ["{n} is {r}."],
        numberWord(n),
        { n },
      )
    }
    case "digit": {
      const n = random.integer(0, 100)
      return q("[Write the number {w} in digits|Write {w} with digits].", ["{w} is {r}."], n, { w: numberWord(n) })
    }
    case "count": {
      const n = random.integer(1, 6)
      const items = random.sample(random.pick([FRUITS, VEGETABLES, COLOURS, THINGS]), n)
      return q(
        "[How many words are in this list|How many things are there|Count the words]: {items}[.|?]",
        n === 1 ? ["There is {r} word.", "I count {r}."] : ["There are {r}.", "I count {r}."],
        n,
        { items: items.join(", ") },
      )
    }
  }
}

/** A sheet of calculations or counting, as raw text. */
export function arithmeticText(random: Random): string {
  const style = random.weighted({ sheet: 4, table: 2, count: 2, addTable: 2 })
  if (style === "sheet")
    return Array.from({ length: random.integer(3, 8) }, () => {
      const op = pickOperator(random)
      const { a, b, c } = operands(random, op)
      return `${a} ${op} ${b} = ${c}`
    }).join(random.pick(["\n", ". "]))
  if (style === "table") {
    const n = random.integer(1, 10)
    return Array.from({ length: random.integer(4, 10) }, (_, k) => `${k + 1} x ${n} = ${(k + 1) * n}`).join("\n")
  }
  if (style === "addTable") {
    const n = random.integer(1, 60)
    const from = random.integer(0, 8)
    return Array.from({ length: random.integer(4, 8) }, (_, k) => `${n} + ${from + k} = ${n + from + k}`).join("\n")
  }
  const step = random.pick([1, 1, 2, 5, 10])
  const start = step === 1 ? random.integer(0, 60) : 0
  return fillTemplate(random, "[Let us count|Count with me|Counting]{by}: {items}.", {
    by: step === 1 ? "" : ` by ${step}`,
    items: Array.from({ length: random.integer(6, 12) }, (_, k) => start + k * step).join(", "),
  })
}

/** One arithmetic question of any kind. */
export function arithmeticQuestion(random: Random): Question {
  const kind = random.weighted({ calculation: 6, word: 4, comparison: 2, sense: 3 })
  return kind === "calculation"
    ? calculation(random)
    : kind === "word"
      ? wordProblem(random)
      : kind === "comparison"
        ? comparison(random)
        : numberSense(random)
}
