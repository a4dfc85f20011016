import { capital, listOf, numberWord, ordinalWord, withArticle } from "./grammar.ts"
import { askFact, randomFact } from "./facts.ts"
import { arithmeticQuestion } from "./arithmetic.ts"
import type { Random } from "./random.ts"
import { fillTemplate, type Slots } from "./template.ts"
import { ANIMALS, CATEGORIES, COLOURS, COUNTRIES, FRUITS, PEOPLE, THINGS, VEGETABLES, categoryPlural } from "./words.ts"

/** A task whose answer has exactly one right form, so that a program can check it. */
export interface FormatTask {
  /** What is trained: "json", "upper", "bullets", ... */
  readonly format: string
  readonly ask: string
  readonly answer: string
}

const WORDS: readonly string[] = [...FRUITS, ...VEGETABLES, ...COLOURS, ...THINGS, ...ANIMALS.map((a) => a.name)]
const NAMES = PEOPLE.map((p) => p.name)

const task = (random: Random, format: string, ask: string, answer: string, slots: Slots = {}): FormatTask => ({
  format,
  ask: fillTemplate(random, ask, slots),
  answer,
})

const words = (random: Random, low: number, high: number): string[] =>
  random.sample(
    random.pick([FRUITS, VEGETABLES, COLOURS, THINGS, ANIMALS.map((a) => a.name), WORDS]),
    random.integer(low, high),
  )

const bullets = (items: readonly string[], mark = "-"): string => items.map((i) => `${mark} ${i}`).join("\n")
const numbered = (items: readonly string[]): string => items.map((i, k) => `${k + 1}. ${i}`).join("\n")

/** JSON as nano writes it: one line, a space after colons and commas. */
const json = (value: Readonly<Record<string, string | number | boolean | readonly string[]>>): string =>
  `{${Object.entries(value)
    .map(
      ([k, v]) =>
        `${JSON.stringify(k)}: ${Array.isArray(v) ? `[${v.map((x) => JSON.stringify(x)).join(", ")}]` : JSON.stringify(v)}`,
    )
    .join(", ")}}`

const MAKERS: Readonly<Record<string, (random: Random) => FormatTask>> = {
  jsonPerson(random) {
    const name = random.pick(NAMES)
    const age = random.integer(3, 90)
    const colour = random.pick(COLOURS)
    const city = random.pick(COUNTRIES).capital
    const fields: [string, string | number, string][] = random.sample(
      [
        ["age", age, "{name} is {v} years old"],
        ["colour", colour, "[{name} likes the colour {v}|the favourite colour of {name} is {v}]"],
        ["city", city, "{name} lives in {v}"],
        ["pet", random.pick(ANIMALS).name, "{name} has {a v}"],
        ["food", random.pick(FRUITS), "{name} likes to eat {s v}"],
      ],
      random.integer(1, 3),
    ) as [string, string | number, string][]
    const keys = ["name", ...fields.map((f) => f[0])]
    const value = json(
      Object.fromEntries([["name", name], ...fields.map((f) => [f[0], f[1]] as const)]) as Record<
        string,
        string | number
      >,
    )
    if (random.chance(0.5)) {
      const text = fields.map((f) => capital(fillTemplate(random, f[2], { name, v: f[1] }))).join(". ")
      return task(random, "json", "[Write|Put|Turn] this [into|as] JSON with the keys {keys}: {text}.", value, {
        keys: listOf(keys),
        text,
      })
    }
    return task(random, "json", "[Write|Make|Give me] a JSON object with {fields}[.|, please.]", value, {
      fields: listOf([["name", name] as const, ...fields].map((f) => `${f[0]} ${f[1]}`)),
    })
  },
  jsonList(random) {
    const items = words(random, 2, 4)
    const key = random.pick(["items", "words", "list", "things"])
    return task(
      random,
      "json",
      '[Put|Write] {items} into a JSON [list|array] [called|under the key|with the key] "{key}".',
      json({ [key]: items }),
      { items: listOf(items), key },
    )
  },
  jsonArray(random) {
    const items = words(random, 2, 4)
    return task(
      random,
      "json",
      "[Write|Give me] a JSON array of [these words|the words]: {items}.",
      `[${items.map((i) => JSON.stringify(i)).join(", ")}]`,
      { items: items.join(", ") },
    )
  },
  upper(random) {
    const many = random.chance(0.4)
    const text = many ? words(random, 2, 3).join(" ") : random.pick(WORDS)
    return task(
      random,
      "upper",
      `[Write|Put|Say] [${many ? "the words" : "the word"}|this] in [upper case|capital letters|capitals]: {text}`,
      text.toUpperCase(),
      { text },
    )
  },
  lower(random) {
    const text = random.pick(WORDS)
    return task(random, "lower", "[Write|Put] this in [lower case|small letters]: {text}", text, {
      text: text.toUpperCase(),
    })
  },
  title(random) {
    const items = words(random, 2, 3)
    return task(
      random,
      "title",
      "[Write|Put] a capital letter at the start of each word: {text}",
      items.map(capital).join(" "),
      { text: items.join(" ") },
    )
  },
  bullets(random) {
    const items = words(random, 2, 5)
    return task(
      random,
      "bullets",
      "[Make a bullet list of|Write a bullet list with|Put this into a bullet list:|Write as bullet points:] {items}.",
      bullets(items),
      { items: listOf(items) },
    )
  },
  numbered(random) {
    const items = words(random, 2, 5)
    return task(
      random,
      "numbered",
      "[Make a numbered list of|Write a numbered list with|Number these:|Put numbers before] {items}.",
      numbered(items),
      { items: listOf(items) },
    )
  },
  category(random) {
    const category = random.pick(Object.keys(CATEGORIES))
    const all = CATEGORIES[category] as readonly string[]
    const n = random.integer(2, Math.min(5, all.length))
    const items = random.sample(all, n)
    const s: Slots = { n: random.chance(0.5) ? numberWord(n) : n, kinds: categoryPlural(category) }
    const style = random.weighted({ comma: 4, bullets: 3, numbered: 3, sentence: 2 })
    if (style === "comma")
      return task(
        random,
        "list",
        "[Name|List|Tell me|Give me|Write] {n} {kinds}[.|, please.| separated by commas.]",
        items.join(", "),
        s,
      )
    if (style === "bullets")
      return task(
        random,
        "bullets",
        "[Name|List|Give me] {n} {kinds} as [a bullet list|bullet points].",
        bullets(items),
        s,
      )
    if (style === "numbered")
      return task(random, "numbered", "[Name|List|Give me] {n} {kinds} [in|as] a numbered list.", numbered(items), s)
    const sentence = `${capital(numberWord(n))} ${categoryPlural(category)} I know are ${listOf(items)}.`
    return task(
      random,
      "list",
      "[Which {kinds} do you know? Name {n}.|Can you name {n} {kinds}?|Do you know {n} {kinds}?]",
      sentence,
      s,
    )
  },
  comma(random) {
    const items = words(random, 2, 5)
    const [sign, name] = random.pick([
      [", ", "commas"],
      ["-", "dashes"],
      [" / ", "slashes"],
      ["; ", "semicolons"],
      [" + ", "plus signs"],
    ] as const)
    return task(
      random,
      "join",
      "[Write these words with {name} between them|Join these words with {name}|Put {name} between these words]: {items}",
      items.join(sign),
      { name, items: items.join(" ") },
    )
  },
  sortWords(random) {
    let items = words(random, 3, 4)
    while (new Set(items.map((i) => i[0])).size < items.length) items = words(random, 3, 4)
    return task(
      random,
      "sort",
      "[Sort these words|Put these words in order|Order these words] [from A to Z|by the alphabet]: {items}",
      [...items].sort().join(", "),
      { items: items.join(", ") },
    )
  },
  sortNumbers(random) {
    const set = new Set<number>()
    const n = random.integer(3, 5)
    const top = random.pick([10, 20, 99])
    while (set.size < n) set.add(random.integer(0, top))
    const up = random.chance(0.7)
    const sorted = [...set].sort((x, y) => (up ? x - y : y - x)).join(", ")
    return task(
      random,
      "sort",
      "[[Sort|Order] these numbers from {a} to {b}|[Sort|Order] these numbers, {a} first]: {items}",
      sorted,
      { items: [...set].join(", "), a: up ? "small" : "large", b: up ? "large" : "small" },
    )
  },
  reverse(random) {
    const items = words(random, 2, 4)
    return task(
      random,
      "reverse",
      "[Write this list backwards|Reverse this list|Turn this list around]: {items}",
      [...items].reverse().join(", "),
      { items: items.join(", ") },
    )
  },
  nth(random) {
    const items = words(random, 3, 5)
    const k = random.integer(0, items.length - 1)
    const last = k === items.length - 1
    const which = last && random.chance(0.7) ? "last" : ordinalWord(k + 1)
    const item = items[k] as string
    const bare = random.chance(0.4)
    return task(
      random,
      bare ? "word" : "nth",
      `[What is the {which} word|Which word is the {which} one|Tell me the {which} word] [in this list|here]: {items}${bare ? ". Answer with the word only." : ""}`,
      bare ? item : fillTemplate(random, "[The {which} word is {item}.|It is {item}.]", { which, item }),
      {
        which,
        items: items.join(", "),
      },
    )
  },
  repeat(random) {
    const n = random.integer(2, 4)
    const text = random.chance(0.5) ? random.pick(WORDS) : `${random.pick(COLOURS)} ${random.pick(THINGS)}`
    return task(
      random,
      "repeat",
      '[Say|Write|Repeat] "{text}" {n} times.',
      Array.from({ length: n }, () => text).join(" "),
      { text, n: random.chance(0.5) ? numberWord(n) : n },
    )
  },
  echo(random) {
    const text = fillTemplate(
      random,
      "[The {c} {t} is {p}.|{N} has {a c} {t}.|I like {s f}.|{N} and {M} are friends.|{A a} can run.|My {t} is {c}.]",
      {
        c: random.pick(COLOURS),
        t: random.pick(THINGS),
        p: random.pick(["old", "new", "small", "big", "wet", "clean"]),
        N: random.pick(NAMES),
        M: random.pick(NAMES),
        f: random.pick(FRUITS),
        a: random.pick(ANIMALS).name,
      },
    )
    return task(
      random,
      "echo",
      "[Repeat this sentence|Say this again|Write exactly this|Repeat after me]: {text}",
      text,
      { text },
    )
  },
  quotes(random) {
    const text = words(random, 1, 2).join(" ")
    const [open, close, name] = random.pick([
      ['"', '"', "quotes"],
      ["(", ")", "round brackets"],
      ["[", "]", "square brackets"],
      ["*", "*", "stars"],
      ["<", ">", "angle brackets"],
    ] as const)
    return task(random, "wrap", "[Put|Write] {text} in {name}.", `${open}${text}${close}`, { text, name })
  },
  keyValue(random) {
    const q = random.chance(0.6) ? askFact(random, randomFact(random)) : arithmeticQuestion(random)
    const key = random.pick(["Answer", "Result", "Reply", "A"])
    return task(random, "key", "{ask} [Answer in the form|Use the form|Write it as] {key}: ...", `${key}: ${q.short}`, {
      ask: q.ask,
      key,
    })
  },
  keyLines(random) {
    const name = random.pick(NAMES)
    const rows: [string, string][] = random.sample(
      [
        ["Age", String(random.integer(3, 90))],
        ["City", random.pick(COUNTRIES).capital],
        ["Colour", random.pick(COLOURS)],
        ["Pet", random.pick(ANIMALS).name],
        ["Food", random.pick(FRUITS)],
      ],
      2,
    ) as [string, string][]
    const all: [string, string][] = [["Name", name], ...rows]
    return task(
      random,
      "lines",
      "[Write|Make] [one line for each|a card with lines] in the form Key: value. {facts}.",
      all.map(([k, v]) => `${k}: ${v}`).join("\n"),
      { facts: all.map(([k, v]) => `${k} is ${v}`).join(", ") },
    )
  },
  short(random) {
    const q = random.chance(0.6) ? askFact(random, randomFact(random)) : arithmeticQuestion(random)
    return task(
      random,
      "short",
      "{ask} [Answer only with the answer.|Only the answer, please.|Keep it as short as you can.|Give a short answer.|No sentence, just the answer.]",
      q.short,
      { ask: q.ask },
    )
  },
  fact2json(random) {
    const c = random.pick(COUNTRIES)
    const keys = random.sample(["capital", "language", "continent"] as const, random.integer(1, 2))
    return task(
      random,
      "json",
      '[Give me|Write] JSON about {country} with the keys "country" and {keys}.',
      json(Object.fromEntries([["country", c.name], ...keys.map((k) => [k, c[k]])]) as Record<string, string>),
      {
        country: c.name,
        keys: listOf(keys.map((k) => `"${k}"`)),
      },
    )
  },
  animal2json(random) {
    const a = random.pick(ANIMALS)
    return task(
      random,
      "json",
      '[Give me|Write] JSON about the {name} with the keys "animal", "legs" and "food".',
      json({ animal: a.name, legs: a.legs, food: a.food }),
      { name: a.name },
    )
  },
  sentence(random) {
    const w = random.pick([...FRUITS, ...THINGS, ...ANIMALS.map((a) => a.name)])
    const p = random.pick(PEOPLE)
    const s: Slots = { w, name: p.name, his: p.his, colour: random.pick(COLOURS), n: random.integer(2, 9) }
    return task(
      random,
      "sentence",
      '[Write a sentence with the word "{w}".|Make a sentence with {w}.|Use the word {w} in a sentence.]',
      fillTemplate(
        random,
        "[{name} has {a w}.|I can see {a w} on the hill.|The {w} is {colour}.|There are {n} {s w} in the garden.|{name} likes {his} {w}.|Yesterday {name} found {a w}.]",
        s,
      ),
      s,
    )
  },
  blank(random) {
    const fact = randomFact(random, random.pick(["capital", "opposite", "next-day", "colour-of", "next-month"]))
    const key: Record<string, [string, string]> = {
      capital: ["The capital of {country} is ___.", "{city}"],
      opposite: ["The opposite of {word} is ___.", "{other}"],
      "next-day": ["After {item} comes ___.", "{next}"],
      "next-month": ["The month after {item} is ___.", "{next}"],
      "colour-of": ["{^ thing} is ___. (a colour)", "{colour}"],
    }
    const [line, answer] = key[fact.relation.topic] as [string, string]
    return task(
      random,
      "blank",
      `[Fill the gap|Complete the sentence|Fill in the missing word]: ${line}`,
      fillTemplate(random, answer, fact.row),
      fact.row,
    )
  },
  replaceWord(random) {
    const name = random.pick(NAMES)
    const [a, b] = random.sample(COLOURS, 2) as [string, string]
    const thing = random.pick(THINGS)
    const tail = random.pick(["in the park", "at school", "on the table", "every day", "in the morning", "at home"])
    return task(
      random,
      "replace",
      "[Replace|Change] {a} [by|with|to] {b}: {name} has {art} {thing} {tail}.",
      `${name} has ${withArticle(b)} ${thing} ${tail}.`,
      { a, b, name, art: withArticle(a), thing, tail },
    )
  },
}

const KINDS = Object.keys(MAKERS)
const WEIGHTS: Readonly<Record<string, number>> = {
  category: 4,
  jsonPerson: 3,
  short: 3,
  keyValue: 2,
  bullets: 2,
  upper: 2,
}
const TABLE: Readonly<Record<string, number>> = Object.fromEntries(KINDS.map((k) => [k, WEIGHTS[k] ?? 1]))

/** One task that asks for a certain form of the answer. */
export function formatTask(random: Random, kind?: string): FormatTask {
  const make = MAKERS[kind ?? random.weighted(TABLE)]
  if (make === undefined) throw new RangeError(`no format task ${kind}`)
  return make(random)
}

/** The kinds of format tasks. */
export const FORMAT_KINDS: readonly string[] = KINDS
