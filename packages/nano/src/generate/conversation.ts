import { arithmeticQuestion } from "./arithmetic.ts"
import { closing, feeling, fun, greeting, identity, unknown } from "./chat.ts"
import { animalsWith, askFact, compareAnimals, describeAnimal, oddOneOut, randomFact } from "./facts.ts"
import { formatTask } from "./formats.ts"
import { capital } from "./grammar.ts"
import type { Random } from "./random.ts"
import { readingQuestion } from "./reading.ts"
import { tellStory } from "./story.ts"
import { fillTemplate } from "./template.ts"
import type { Message, NanoDocument, Question } from "./types.ts"
import { ANIMALS, PEOPLE, THINGS } from "./words.ts"

/** Questions become more natural with a word before or after them. */
function decorate(random: Random, ask: string): string {
  const style = random.unit()
  if (style < 0.06) return `Please answer: ${ask}`
  if (style < 0.1) return `Hello! ${ask}`
  if (style < 0.13) return `I have a question. ${ask}`
  if (style < 0.15) return `nano, ${ask.charAt(0).toLowerCase()}${ask.slice(1)}`
  if (style < 0.18) return ask.endsWith("...") ? ask : ask.replace(/[?.]$/, "")
  return ask
}

/** `nano, what...` must keep names and "I" as they are. */
const mayLower = (ask: string): boolean => /^(What|Which|Where|Who|How|Why|Is|Does|Can|Tell|Name)\b/.test(ask)

const user = (content: string): Message => ({ role: "user", content })
const assistant = (content: string): Message => ({ role: "assistant", content })

const yesNo = (q: Question): boolean => q.short === "Yes" || q.short === "No"

/** A question as a turn: mostly answered in a sentence, sometimes with a system message that asks for another form. */
function questionTurn(random: Random, q: Question): { messages: Message[]; answer: string } {
  const ask = mayLower(q.ask) && !q.ask.includes("\n") ? decorate(random, q.ask) : q.ask
  const style = random.unit()
  if (style < 0.04)
    return {
      messages: [
        {
          role: "system",
          content: random.pick(["Answer as short as possible.", "Give only the answer.", "Short answers only."]),
        },
        user(ask),
        assistant(q.short),
      ],
      answer: q.short,
    }
  if (style < 0.07)
    return {
      messages: [
        {
          role: "system",
          content: random.pick([
            "Answer in one sentence.",
            "You are nano, a small and friendly model.",
            "You are a helpful assistant.",
            "Be kind and short.",
          ]),
        },
        user(ask),
        assistant(q.answer),
      ],
      answer: q.short,
    }
  if (style < 0.09)
    return {
      messages: [
        { role: "system", content: 'Begin every answer with "Answer:".' },
        user(ask),
        assistant(`Answer: ${q.short}`),
      ],
      answer: q.short,
    }
  if (yesNo(q) && style < 0.2)
    return {
      messages: [
        user(`${q.ask} ${random.pick(["Answer yes or no.", "Yes or no?", "Just yes or no."])}`),
        assistant(q.short),
      ],
      answer: q.short,
    }
  return { messages: [user(ask), assistant(q.answer)], answer: q.short }
}

function factQuestion(random: Random): Question {
  const kind = random.weighted({ fact: 12, compare: 3, odd: 1, animals: 1 })
  return kind === "fact"
    ? askFact(random, randomFact(random))
    : kind === "compare"
      ? compareAnimals(random)
      : kind === "odd"
        ? oddOneOut(random)
        : animalsWith(random)
}

const TELL = [
  "[Tell me|Write|Can you tell me|Please tell me|I want to hear] a [short |little |]story[.|, please.]",
  "[Tell me|Write|Please write|I would like] a [short |]story about {hero}[.|, please.]",
  "[Tell me|Write] a story with {hero} and {a thing}.",
]

function storyTurn(random: Random): NanoDocument {
  const style = random.weighted({ any: 2, hero: 4, both: 2 })
  const heroKind = random.chance(0.3)
    ? random.pick(["girl", "boy"])
    : random.pick(ANIMALS.filter((a) => a.hero && a.group !== "insect")).name
  const thing = random.pick(THINGS)
  const story = tellStory(
    random,
    style === "any" ? {} : style === "hero" ? { kind: heroKind } : { kind: heroKind, thing },
  )
  const template = TELL[style === "any" ? 0 : style === "hero" ? 1 : 2] as string
  const ask = fillTemplate(random, template, {
    hero: random.chance(0.7) ? `a ${heroKind}`.replace(/^a (?=[aeiou])/, "an ") : `a little ${heroKind}`,
    thing,
  })
  const messages: Message[] = [
    user(ask),
    assistant(random.chance(0.15) ? `${story.title}\n\n${story.text}` : story.text),
  ]
  for (const q of random.sample(story.questions, random.pick([0, 0, 1, 2])))
    messages.push(user(q.ask), assistant(q.answer))
  return { kind: "story-chat", messages }
}

function storyQuestionTurn(random: Random): NanoDocument {
  const story = tellStory(random)
  const style = random.weighted({ questions: 8, title: 1, summary: 1, short: 2 })
  if (style === "title")
    return {
      kind: "story-title",
      messages: [
        user(`${random.pick(["Give this story a title:", "What is a good title for this story?"])}\n\n${story.text}`),
        assistant(story.title),
      ],
    }
  if (style === "summary")
    return {
      kind: "story-summary",
      messages: [
        user(
          `${random.pick(["Say in one sentence what happens:", "Summarize this story in one sentence:", "What happens in this story? One sentence, please."])}\n\n${story.text}`,
        ),
        assistant(story.summary),
      ],
    }
  const [first, ...more] = random.sample(story.questions, style === "short" ? 1 : random.integer(1, 3)) as [
    Question,
    ...Question[],
  ]
  if (style === "short")
    return {
      kind: "story-question",
      messages: [
        user(
          `${story.text}\n\n${first.ask} ${random.pick(["Short answer.", "Answer only with the answer.", "Give a short answer."])}`,
        ),
        assistant(first.short),
      ],
      answer: first.short,
    }
  const opening = random.chance(0.5)
    ? `${story.text}\n\n${first.ask}`
    : `${random.pick(["Read this story and answer the question.", "Here is a story:", "Please read:"])}\n\n${story.text}\n\n${first.ask}`
  const messages: Message[] = [user(opening), assistant(first.answer)]
  for (const q of more) messages.push(user(q.ask), assistant(q.answer))
  return { kind: "story-question", messages, answer: first.short }
}

function describeTurn(random: Random): NanoDocument {
  const a = random.pick(ANIMALS)
  const n = random.integer(3, 5)
  const ask = fillTemplate(
    random,
    "[Tell me about {name_s}.|What do you know about {name_s}?|Describe {a name}.|Write a [few sentences|short text] about the {name}.|Tell me something about the {name}.]",
    { name: a.name, name_s: `${a.name === "sheep" || a.name === "deer" ? a.name : `the ${a.name}`}` },
  )
  return { kind: "describe", messages: [user(ask), assistant(describeAnimal(random, a, n))] }
}

/** Kinds of conversations and how often each is drawn. */
const KINDS = {
  fact: 16,
  arithmetic: 22,
  format: 22,
  story: 9,
  storyQuestion: 11,
  reading: 6,
  describe: 4,
  chat: 6,
  unknown: 5,
  multi: 9,
} as const

/** One conversation of any kind. */
export function conversation(random: Random): NanoDocument {
  const kind = random.weighted(KINDS)
  switch (kind) {
    case "fact":
    case "reading":
    case "arithmetic": {
      const one = () =>
        kind === "fact"
          ? factQuestion(random)
          : kind === "reading"
            ? readingQuestion(random)
            : arithmeticQuestion(random)
      const { messages, answer } = questionTurn(random, one())
      if (messages[0]?.role !== "system" && random.chance(0.5))
        for (let k = random.integer(1, 3); k > 0; k--) {
          const q = one()
          messages.push(user(q.ask), assistant(q.answer))
        }
      return { kind, messages, answer }
    }
    case "format": {
      const task = formatTask(random)
      const messages = [user(task.ask), assistant(task.answer)]
      if (random.chance(0.35)) {
        const again = formatTask(random)
        messages.push(user(again.ask), assistant(again.answer))
      }
      return { kind: `format-${task.format}`, messages, answer: task.answer }
    }
    case "story":
      return storyTurn(random)
    case "storyQuestion":
      return storyQuestionTurn(random)
    case "describe":
      return describeTurn(random)
    case "chat": {
      const e = random.pick([greeting, identity, identity, feeling, feeling, fun])(random)
      return { kind: "chat", messages: [user(e.ask), assistant(e.answer)] }
    }
    case "unknown": {
      const e = unknown(random)
      return { kind: "unknown", messages: [user(e.ask), assistant(e.answer)] }
    }
    case "multi": {
      const messages: Message[] = []
      const add = (e: { ask: string; answer: string }) => messages.push(user(e.ask), assistant(e.answer))
      const name = random.pick(PEOPLE).name
      const introduced = random.chance(0.3)
      if (introduced)
        add({
          ask: random.pick([`My name is ${name}.`, `Hello, I am ${name}.`, `Hi! I am ${name}.`]),
          answer: random.pick([`Hello, ${name}! How can I help you?`, `Nice to meet you, ${name}!`]),
        })
      else if (random.chance(0.6)) add(greeting(random))
      for (let k = random.integer(1, 3); k > 0; k--) {
        const what = random.weighted({ fact: 5, arithmetic: 3, identity: 2, feeling: 2, unknown: 2, format: 2, fun: 1 })
        if (what === "fact") add(factQuestion(random))
        else if (what === "arithmetic") add(arithmeticQuestion(random))
        else if (what === "identity") add(identity(random))
        else if (what === "feeling") add(feeling(random))
        else if (what === "unknown") add(unknown(random))
        else if (what === "format") add(formatTask(random))
        else add(fun(random))
      }
      if (introduced && random.chance(0.6))
        add({
          ask: random.pick(["What is my name?", "Do you remember my name?", "Who am I?"]),
          answer: random.pick([`Your name is ${name}.`, `You are ${name}.`]),
        })
      if (messages.length < 4 || random.chance(0.5)) add(closing(random))
      return { kind: "multi", messages }
    }
  }
}

/** Raw text made of a story with questions below it, as a book for children would print it. */
export function storyText(random: Random): string {
  const story = tellStory(random)
  const style = random.weighted({ plain: 5, title: 3, quiz: 3 })
  if (style === "plain") return story.text
  if (style === "title") return `${capital(story.title)}\n\n${story.text}`
  const asked = random.sample(story.questions, random.integer(2, 4))
  return `${story.text}\n\n${asked.map((q) => `${q.ask}\n${q.answer}`).join("\n")}`
}
