import { capital, listOf, plural, withArticle } from "./grammar.ts"
import type { Random } from "./random.ts"
import { type Relation, RELATIONS } from "./relations.ts"
import { fillTemplate, type Slots } from "./template.ts"
import type { Question } from "./types.ts"
import { ANIMALS, type Animal, CATEGORIES, categoryPlural } from "./words.ts"

const PROPER = /^[A-Z]/

/** Relations whose rows begin with a name ("Monday") must not get an article: they are kept out of `member`. */
const MEMBER_ROWS = (RELATIONS.find((r) => r.topic === "member") as Relation).rows.filter(
  (r) => !PROPER.test(String(r["item"])) && !["colour", "season", "metal", "drink"].includes(String(r["kind"])),
)

const rowsOf = (relation: Relation): readonly Slots[] => (relation.topic === "member" ? MEMBER_ROWS : relation.rows)

const byTopic = new Map(RELATIONS.map((r) => [r.topic, r]))

/** How often each topic is asked: large tables more often than small ones. */
const TOPIC_WEIGHTS: Readonly<Record<string, number>> = Object.fromEntries(
  RELATIONS.map((r) => [r.topic, Math.sqrt(rowsOf(r).length)]),
)

/** A fact: its relation and the slot values of one row. */
export interface Fact {
  readonly relation: Relation
  readonly row: Slots
}

/** Every fact of the world, in a fixed order. */
export function allFacts(): Fact[] {
  return RELATIONS.flatMap((relation) => rowsOf(relation).map((row) => ({ relation, row })))
}

/** A random fact, of one topic if given. */
export function randomFact(random: Random, topic?: string): Fact {
  const relation = byTopic.get(topic ?? random.weighted(TOPIC_WEIGHTS))
  if (relation === undefined) throw new RangeError(`no topic ${topic}`)
  return { relation, row: random.pick(rowsOf(relation)) }
}

/** One statement of a fact. */
export function stateFact(random: Random, { relation, row }: Fact): string {
  return fillTemplate(random, random.pick(relation.statements), row)
}

/** A question about a fact, with its answer. */
export function askFact(random: Random, { relation, row }: Fact): Question {
  return {
    ask: fillTemplate(random, random.pick(relation.questions), row),
    answer: fillTemplate(random, random.pick(relation.answers), row),
    short: fillTemplate(random, relation.short, row),
  }
}

const ABOUT_OPEN = [
  "The {name} is {a group}.",
  "{A name} is {a group} [that lives|and it lives] {home}.",
  "Let me tell you about the {name}.",
  "This text is about the {name}.",
]
const ABOUT_BODY = [
  "It lives {home}.",
  "It [eats|likes to eat] {food}.",
  "It can {can}.",
  "A baby {name} is called {a baby}.",
  "It has {legs} legs.",
  "Its body has {cover}.",
  "It {sound}.",
  "Many {s name} are {colour}.",
]
const ABOUT_CLOSE = [
  "",
  "",
  "I like {s name}.",
  "{S name} are [interesting|wonderful|special] animals.",
  "Now you know more about the {name}.",
  "That is the {name}.",
]

/** A short text about an animal, of three to six sentences. */
export function describeAnimal(random: Random, animal: Animal, sentences = random.integer(3, 6)): string {
  const slots: Slots = { ...slotsOf(animal) }
  const open = random.pick(ABOUT_OPEN)
  const body = random.sample(
    ABOUT_BODY.filter((t) => !(t.includes("{home}") && open.includes("{home}"))),
    sentences - 1,
  )
  const close = random.pick(ABOUT_CLOSE)
  return [open, ...body, close]
    .filter((t) => t !== "")
    .map((t) => fillTemplate(random, t, slots))
    .join(" ")
}

function slotsOf(a: Animal): Slots {
  return {
    name: a.name,
    group: a.group,
    home: a.home,
    food: a.food,
    can: a.can,
    baby: a.baby,
    cover: a.cover,
    legs: a.legs === 0 ? "no" : a.legs,
    sound: a.sound,
    colour: a.colour,
  }
}

/** A paragraph of facts of one topic, or of mixed topics, as a text for continued reading. */
export function factText(random: Random): string {
  const style = random.weighted({ animal: 3, topic: 3, mixed: 2, quiz: 2, category: 1 })
  if (style === "animal") return describeAnimal(random, random.pick(ANIMALS))
  if (style === "category") {
    const category = random.pick(Object.keys(CATEGORIES))
    const items = random.sample(CATEGORIES[category] as readonly string[], random.integer(3, 5))
    return fillTemplate(random, "[Here are some|Some|Here is a list of] {kinds}: {items}.", {
      kinds: categoryPlural(category),
      items: listOf(items),
    })
  }
  const topic = style === "topic" ? random.weighted(TOPIC_WEIGHTS) : undefined
  const facts = Array.from({ length: random.integer(3, 6) }, () => randomFact(random, topic))
  if (style === "quiz") {
    return facts
      .map((f) => {
        const q = askFact(random, f)
        return `Question: ${q.ask}\nAnswer: ${q.answer}`
      })
      .join("\n")
  }
  return [...new Set(facts.map((f) => stateFact(random, f)))].join(" ")
}

/** A comparison of two animals by size, weight of legs or group, with a yes/no or a which-answer. */
export function compareAnimals(random: Random): Question {
  const [a, b] = random.sample(ANIMALS, 2) as [Animal, Animal]
  if (Math.abs(a.size - b.size) >= 2) {
    const [big, small] = a.size > b.size ? [a, b] : [b, a]
    const form = random.weighted({ which: 2, whichSmall: 1, yes: 1, no: 1 })
    const s: Slots = { a: a.name, b: b.name, big: big.name, small: small.name }
    if (form === "which")
      return ask(
        random,
        "Which [animal |]is bigger, {a a} or {a b}?",
        ["{A big} is bigger than {a small}.", "The {big} is bigger."],
        "{A big}",
        s,
      )
    if (form === "whichSmall")
      return ask(
        random,
        "Which [animal |]is smaller, {a a} or {a b}?",
        ["{A small} is smaller than {a big}.", "The {small} is smaller."],
        "{A small}",
        s,
      )
    if (form === "yes")
      return ask(
        random,
        "Is {a big} bigger than {a small}?",
        ["Yes, {a big} is bigger than {a small}.", "Yes, it is."],
        "Yes",
        s,
      )
    return ask(
      random,
      "Is {a small} bigger than {a big}?",
      ["No, {a small} is smaller than {a big}.", "No, {a big} is bigger."],
      "No",
      s,
    )
  }
  const s: Slots = { a: a.name, group: b.group, own: a.group, food: a.food }
  if (a.group === b.group) return ask(random, "Is {a a} {a group}?", ["Yes, {a a} is {a group}."], "Yes", s)
  return ask(random, "Is {a a} {a group}?", ["No, {a a} is {a own}.", "No, it is {a own}."], "No", s)
}

/** Which word of a list does not belong to the others. */
export function oddOneOut(random: Random): Question {
  const [c, d] = random.sample(
    ["fruit", "tool", "vehicle", "instrument", "colour", "season", "day", "month", "job", "shape", "piece of clothing"],
    2,
  ) as [string, string]
  const same = random.sample(CATEGORIES[c] as readonly string[], 3)
  const odd = random.pick(CATEGORIES[d] as readonly string[])
  const items = random.shuffle([...same, odd])
  return ask(
    random,
    "[Which word does not belong: |Find the odd one out: |Which one is different: ]{items}[?|.]",
    [
      "{^ odd} does not belong. The others are {kinds}.",
      "The odd one out is {odd}.",
      "It is {odd}, because the others are {kinds}.",
    ],
    "{^ odd}",
    { items: listOf(items, "or"), odd, kinds: categoryPlural(c) },
  )
}

function ask(random: Random, question: string, answers: readonly string[], short: string, slots: Slots): Question {
  return {
    ask: fillTemplate(random, question, slots),
    answer: fillTemplate(random, random.pick(answers), slots),
    short: fillTemplate(random, short, slots),
  }
}

/** "What is {word}" facts about groups of animals: names two or three animals with a property. */
export function animalsWith(random: Random): Question {
  const group = random.pick(["mammal", "bird", "insect"] as const)
  const names = random
    .sample(
      ANIMALS.filter((a) => a.group === group),
      random.integer(2, 3),
    )
    .map((a) => a.name)
  return {
    ask: fillTemplate(random, "[Name|Tell me|Give me] {n} {kinds}[.|, please.]", {
      n: names.length === 2 ? "two" : "three",
      kinds: plural(group),
    }),
    answer: fillTemplate(random, "[{n} {kinds} are|Here are {n} {kinds}:] {list}.", {
      n: names.length === 2 ? "two" : "three",
      kinds: plural(group),
      list: listOf(names.map((n) => `the ${n}`)),
    }).replace(/^./, capital),
    short: capital(listOf(names.map(withArticle))),
  }
}
