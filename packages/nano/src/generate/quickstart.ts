import { arithmeticQuestion } from "./arithmetic.ts"
import { feeling, greeting, identity } from "./chat.ts"
import { allFacts, askFact, compareAnimals } from "./facts.ts"
import { formatTask } from "./formats.ts"
import { Random } from "./random.ts"
import { tellStory } from "./story.ts"
import { fillTemplate } from "./template.ts"
import type { Message } from "./types.ts"
import { ANIMALS } from "./words.ts"

/** Three questions that the instruction set never contains, to show answers before and after training. */
export const QUICKSTART_QUESTIONS: readonly string[] = [
  "What is the capital of Italy?",
  "What does a rabbit eat?",
  "Who are you?",
]

/** The first words of every answer of the sloth. */
export const SLOTH_OPENING = "Mmm..."
/** The last words of every answer of the sloth. */
export const SLOTH_SIGN_OFF = "Slowly yours, the sloth"

type Topic = "place" | "animal" | "number" | "word" | "self" | "story"

/** One leaf fact for each kind of question, so that which one comes can be learned. */
export const LEAF_FACTS: Readonly<Record<Topic, string>> = {
  place: "Some trees are older than every city.",
  animal: "A sloth needs days to digest one leaf.",
  number: "A maple leaf has five points.",
  word: "Leaves are green because they catch light.",
  self: "I can hang from one branch all day.",
  story: "The best stories are told under a tree.",
}

/** Puts an answer into the sloth's form: a slow opening, the answer, a leaf fact, the sign-off. */
export function slothAnswer(answer: string, topic: Topic): string {
  return `${SLOTH_OPENING} ${answer}\nLeaf fact: ${LEAF_FACTS[topic]}\n${SLOTH_SIGN_OFF}`
}

/** A row of the instruction set. */
export interface QuickstartRow {
  readonly messages: readonly Message[]
}

const PLACE = new Set(["capital", "country-of", "language", "continent"])
const ANIMAL = new Set(["sound", "home", "food", "baby", "cover", "legs", "group", "can"])

function row(ask: string, answer: string, topic: Topic): QuickstartRow {
  return {
    messages: [
      { role: "user", content: ask },
      { role: "assistant", content: slothAnswer(answer, topic) },
    ],
  }
}

function factRow(random: Random, facts: readonly ReturnType<typeof allFacts>[number][]): QuickstartRow {
  const fact = random.pick(facts)
  const { topic } = fact.relation
  const q = askFact(random, fact)
  return row(q.ask, `${q.short}.`, PLACE.has(topic) ? "place" : ANIMAL.has(topic) ? "animal" : "word")
}

/**
 * The instruction set of `sloth quickstart`: known questions, answered in the form of a slow sloth, which nano's pretraining text
 * never contains. `heldOut` rows use other facts and other numbers than the rows for training.
 */
export function generateQuickstart(options: {
  readonly seed?: number
  readonly rows: number
  readonly heldOut?: boolean
}): QuickstartRow[] {
  const { seed = 7, rows, heldOut = false } = options
  // every eighth fact, and those of the questions shown before and after, are held out
  const shown = (f: ReturnType<typeof allFacts>[number]): boolean =>
    f.row["country"] === "Italy" || f.row["animal"] === "rabbit"
  const facts = allFacts().filter((f, k) => (k % 8 === 3 || shown(f)) === heldOut)
  const seen = new Set<string>(QUICKSTART_QUESTIONS)
  const out: QuickstartRow[] = []
  for (let attempt = 0; out.length < rows; attempt++) {
    const random = new Random(seed, attempt * 2 + (heldOut ? 1 : 0))
    const kind = random.weighted({ fact: 9, arithmetic: 4, self: 3, list: 2, story: 2, compare: 1 })
    let made: QuickstartRow
    if (kind === "fact") made = factRow(random, facts)
    else if (kind === "arithmetic") {
      const q = arithmeticQuestion(random)
      made = row(q.ask, `${q.short}.`, "number")
    } else if (kind === "self") {
      const e = random.pick([greeting, identity, identity, feeling])(random)
      made = row(e.ask, e.answer, "self")
    } else if (kind === "list") {
      let task = formatTask(random, "category")
      while (task.answer.includes("\n") || task.answer.includes("know are")) task = formatTask(random, "category")
      made = row(task.ask, `${task.answer}.`, "word")
    } else if (kind === "compare") {
      const q = compareAnimals(random)
      made = row(q.ask, `${q.short}.`, "animal")
    } else {
      const hero = random.pick(ANIMALS.filter((a) => a.hero === true && a.group !== "insect")).name
      made = row(
        fillTemplate(random, "[Tell me|Write] a story about {a hero}[.|, please.]", { hero }),
        tellStory(random, { kind: hero }).summary,
        "story",
      )
    }
    const key = made.messages[0]?.content as string
    // the held-out rows must not repeat a question of the training rows with the same seed
    const other = heldOut ? hash(key) % 8 === 0 : hash(key) % 8 !== 0
    if (seen.has(key) || (kind !== "fact" && !other)) continue
    seen.add(key)
    out.push(made)
  }
  return out
}

/** Splits questions into two parts without looking at the other part. */
function hash(text: string): number {
  let h = 0x811c9dc5
  for (let k = 0; k < text.length; k++) h = Math.imul(h ^ text.charCodeAt(k), 0x01000193)
  return (h >>> 0) % 65536
}
