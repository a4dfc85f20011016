import { capital, countOf, listOf, plural } from "./grammar.ts"
import { PLOTS, type Plot } from "./plots.ts"
import type { Random } from "./random.ts"
import { fillTemplate, type Slots } from "./template.ts"
import type { Question } from "./types.ts"
import { ANIMALS, COLOURS, FRUITS, PEOPLE, PET_NAMES, PLACES, type Person, THINGS, VEGETABLES } from "./words.ts"

/** A finished story with what can be asked about it. */
export interface Story {
  readonly plot: string
  readonly title: string
  readonly hero: string
  /** "girl", "fox", ... */
  readonly heroKind: string
  readonly text: string
  readonly summary: string
  readonly questions: readonly Question[]
}

const HERO_ANIMALS = ANIMALS.filter((a) => a.hero && a.group !== "insect")
const BIRDS = HERO_ANIMALS.filter((a) => a.group === "bird" && a.name !== "penguin")
const ADJECTIVES = [
  "little",
  "small",
  "kind",
  "brave",
  "clever",
  "curious",
  "shy",
  "cheerful",
  "quiet",
  "friendly",
  "young",
  "happy",
  "lively",
  "gentle",
]
const WEATHER = ["sunny", "rainy", "windy", "cold", "warm", "foggy", "cloudy", "hot", "bright", "quiet"]
const TIMES = ["morning", "day", "afternoon", "evening"]

const OPENINGS = [
  "[Once upon a time|Once|Long ago|A long time ago] there was {a adj} {kind} [called|named] {name}.",
  "{name} was {a adj} {kind}.",
  "This is the story of {name}, {a adj} {kind}.",
  "There once was {a adj} {kind} [called|named] {name}.",
  "{A adj} {kind} [called|named] {name} lived [near|not far from] {placeName}.",
  "In a small [village|town|house] lived {a adj} {kind}. {His} name was {name}.",
]
const SETTINGS = [
  "One {weather} {time}, {name} was {place}.",
  "It was a {weather} {time}, and {name} was {place}.",
  "On a {weather} {time} {name} went out. Soon {he} was {place}.",
  "One {time} {name} was {place}. It was {weather}.",
]
const ENDINGS = [
  "It was a [good|wonderful|long|beautiful] day.",
  "That night {name} slept very well.",
  "From that day on, {name} and {friend} were [good|best|close] friends.",
  "{name} [smiled|laughed] all the way home.",
  "And {name} never forgot that day.",
  "At home, {name} told everybody about it.",
  "{name} was very [happy|proud|glad].",
  "The end.",
  "Then they all went home.",
  "",
  "",
]

/** Draws a hero: a child or an animal with a name. */
function character(random: Random, kinds: Plot["hero"], not?: string): Person {
  const bird = kinds === "bird"
  if (bird || (kinds !== "child" && random.chance(kinds === "animal" ? 1 : 0.5))) {
    const she = random.chance(0.5)
    const kind = random.pick(bird ? BIRDS : HERO_ANIMALS).name
    const name = random.pick(PET_NAMES.filter((n) => n !== not))
    return { name, kind, he: she ? "she" : "he", him: she ? "her" : "him", his: she ? "her" : "his" }
  }
  return random.pick(PEOPLE.filter((p) => p.name !== not))
}

/** Everything that the sentences of a plot may name. */
function drawSlots(random: Random, plot: Plot, wish: { kind?: string; thing?: string }): Slots {
  let hero = character(random, plot.hero)
  if (wish.kind !== undefined) {
    const kind = wish.kind
    hero =
      kind === "girl" || kind === "boy"
        ? random.pick(PEOPLE.filter((p) => p.kind === kind))
        : { ...character(random, "animal"), kind }
  }
  let friend = character(random, plot.friend ?? "any", hero.name)
  while (friend.name === hero.name || (friend.kind === hero.kind && friend.kind !== "girl" && friend.kind !== "boy"))
    friend = character(random, plot.friend ?? "any", hero.name)
  const places = random.sample(
    PLACES.filter((p) => (plot.outside ? !["in the kitchen", "in the library", "at school"].includes(p.at) : true)),
    2,
  ) as [(typeof PLACES)[number], (typeof PLACES)[number]]
  const spots = random.sample(places[0].spots, 2) as [string, string]
  const things = random.sample(THINGS, 3)
  const [colour, colour2] = random.sample(COLOURS, 2) as [string, string]
  const [fruit, fruit2, fruit3] = random.sample(FRUITS, 3) as [string, string, string]
  const [veg, veg2, veg3] = random.sample(VEGETABLES, 3) as [string, string, string]
  const each = random.integer(2, 4)
  const friends = random.integer(2, 4)
  const coins = random.integer(6, 20)
  const price = random.integer(2, coins - 1)
  const days = random.integer(3, 9)
  return {
    name: hero.name,
    kind: hero.kind,
    he: hero.he,
    him: hero.him,
    his: hero.his,
    He: capital(hero.he),
    His: capital(hero.his),
    friend: friend.name,
    fkind: friend.kind,
    fhe: friend.he,
    fhim: friend.him,
    fhis: friend.his,
    FHe: capital(friend.he),
    adj: random.pick(ADJECTIVES),
    weather: random.pick(plot.weather ?? WEATHER),
    time: random.pick(TIMES),
    place: places[0].at,
    placeName: places[0].name,
    place2: places[1].at,
    place2Name: places[1].name,
    spot: spots[0],
    spot2: spots[1],
    thing: wish.thing ?? (things[0] as string),
    thing2: things[1] === wish.thing ? (things[2] as string) : (things[1] as string),
    colour,
    colour2,
    fruit,
    fruits: plural(fruit),
    fruit2,
    fruits2: plural(fruit2),
    fruit3,
    veg,
    vegs: plural(veg),
    veg2,
    vegs2: plural(veg2),
    vegs3: plural(veg3),
    all3: listOf([plural(veg), plural(veg2), plural(veg3)]),
    each,
    friends,
    total: each * friends,
    eachFruit: countOf(each, fruit),
    coins,
    price,
    left: coins - price,
    leftCoins: countOf(coins - price, "coin"),
    days,
    count: random.integer(3, 9),
    helper: random.pick([
      "mother",
      "father",
      "grandmother",
      "grandfather",
      "aunt",
      "uncle",
      "sister",
      "brother",
      "teacher",
    ]),
    season: random.pick(["spring", "summer", "autumn"]),
    instrument: random.pick(["flute", "drum", "violin", "guitar", "trumpet", "harp"]),
    flower: random.pick(["rose", "tulip", "daisy", "sunflower", "lily", "violet"]),
    cake: random.pick(["cake", "pie", "tart"]),
    drink: random.pick(["water", "milk", "tea", "juice"]),
    vehicle: random.pick(["bus", "train", "boat", "bike", "car"]),
    animal: random.pick(HERO_ANIMALS.filter((a) => a.name !== hero.kind && a.name !== friend.kind)).name,
  }
}

/** Writes one story. `wish` fixes the hero's kind or the thing that it is about. */
export function tellStory(random: Random, wish: { kind?: string; thing?: string } = {}): Story {
  const fitting = PLOTS.filter(
    (p) =>
      (wish.thing === undefined || p.usesThing === true) &&
      (wish.kind === undefined ||
        p.hero === "any" ||
        (wish.kind === "girl" || wish.kind === "boy" ? p.hero === "child" : p.hero === "animal")),
  )
  const plot = random.pick(fitting)
  const slots = drawSlots(random, plot, wish)
  const write = (t: string) => fillTemplate(random, t, slots)
  const beats: string[] = [write(random.pick(OPENINGS))]
  if (plot.setting !== false) beats.push(write(random.pick(SETTINGS)))
  for (const beat of plot.beats) {
    if (beat.startsWith("?")) {
      if (random.chance(0.5)) beats.push(write(beat.slice(1)))
    } else beats.push(write(beat))
  }
  const ending = write(random.pick(ENDINGS))
  if (ending !== "" && !(ending.includes("friends") && plot.friendless === true)) beats.push(ending)
  const questions: Question[] = plot.questions.map(([ask, answer, short]) => ({
    ask: write(ask),
    answer: write(answer),
    short: write(short),
  }))
  questions.push(
    {
      ask: write("[Who is the story about?|Who is the main person in the story?|Who is the hero of this story?]"),
      answer: write("[The story is about {name}.|It is about {name}, the {kind}.]"),
      short: write("{name}"),
    },
    {
      ask: write("What is the name of the {kind}?"),
      answer: write("[The name of the {kind} is {name}.|The {kind} is called {name}.]"),
      short: write("{name}"),
    },
    {
      ask: write("[What is {name}, {a kind} or {a animal}?|Who is {name}?|What kind of hero is {name}?]"),
      answer: write("{name} is {a adj} {kind}."),
      short: write("{A kind}"),
    },
  )
  if (plot.setting !== false)
    questions.push(
      {
        ask: write("[Where was {name}?|Where does the story happen?|Where was {name} at the start?]"),
        answer: write("{name} was {place}."),
        short: write("{^ place}"),
      },
      {
        ask: write("[How was the weather?|What was the weather like?|What kind of day was it?]"),
        answer: write("It was [a {weather} {time}|{weather}]."),
        short: write("{^ weather}"),
      },
    )
  return {
    plot: plot.id,
    title: write(plot.title),
    hero: slots["name"] as string,
    heroKind: slots["kind"] as string,
    text: beats.join(" ").replace(/ {2,}/g, " "),
    summary: write(plot.summary),
    questions,
  }
}
