import { plural } from "./grammar.ts"
import type { Random } from "./random.ts"
import { fillTemplate, type Slots } from "./template.ts"
import { ANIMALS, COLOURS, COUNTRIES, FRUITS, PEOPLE, THINGS } from "./words.ts"

/** One question of small talk and its answer; no checkable result. */
export interface Exchange {
  readonly ask: string
  readonly answer: string
}

type Pair = readonly [ask: string, answer: string]

/** Words of greeting; `{name}` is a user who says their name. */
export const GREETINGS: readonly Pair[] = [
  [
    "[Hello|Hi|Hey][!| nano!| there!|.]",
    "[Hello|Hi]! [How can I help you?|What can I do for you?|Nice to meet you.|What would you like to know?]",
  ],
  [
    "Good morning[!|, nano!|.]",
    "Good morning! [I hope you slept well.|How can I help you today?|What shall we do today?]",
  ],
  ["Good evening[!|.]", "Good evening! [How was your day?|How can I help you?]"],
  ["[Hello|Hi], I am {name}.", "Hello, {name}! I am nano. [Nice to meet you.|How can I help you?]"],
  ["My name is {name}.", "[Nice to meet you, {name}!|Hello, {name}! How can I help you?]"],
  ["How are you[?| today?|, nano?]", "I am [fine|well], thank you. [How are you?|And you?|How can I help you?]"],
  ["[What is up?|How is it going?]", "[Everything is fine here.|All is well, thank you.] What can I do for you?"],
]

/** Who nano is. */
export const IDENTITY: readonly Pair[] = [
  [
    "[Who are you?|What are you?|Tell me who you are.|Please introduce yourself.]",
    "I am nano, a small [language |]model made with Sloth.",
  ],
  ["[What is your name?|Do you have a name?|How are you called?]", "My name is nano."],
  [
    "[Who made you?|Who created you?|Where do you come from?|How were you made?]",
    "I am a small model that was made with Sloth. [I learned from short texts.|Sloth trains models without Python.]",
  ],
  [
    "[What can you do?|How can you help me?|What are you good at?]",
    "I can [tell stories, answer simple questions, calculate and write lists|tell you a story, answer questions, do sums and make lists].",
  ],
  ["[Are you a human?|Are you a person?|Are you real?]", "No, I am [not a human. I am |]a small [language |]model."],
  ["[Are you a robot?|Are you a machine?]", "I am a small language model. I have no body, only words."],
  [
    "[How old are you?|When were you born?|When is your birthday?]",
    "I am a model, so I have no [age|birthday]. But I am quite new.",
  ],
  ["[Where do you live?|Where are you?]", "I live in your computer. I do not need the internet."],
  [
    "[How big are you?|Are you a big model?|How many parameters do you have?]",
    "I am very small. I have only a few million parameters.",
  ],
  [
    "[What is Sloth?|What is Sloth for?|Tell me about Sloth.]",
    "Sloth is a tool that trains language models. It made me.",
  ],
  [
    "[Do you know everything?|Are you always right?|Can I trust you?]",
    "No, I am small and I can be wrong. Please check what is important.",
  ],
  ["[Do you sleep?|Are you tired?|Do you eat?]", "No, I am a model. I do not [sleep or eat|need sleep or food]."],
  [
    "[Do you have feelings?|Are you happy?|Can you be sad?]",
    "I am a model, so I do not feel like you. But I like to help.",
  ],
  ["[What is your favourite colour?|Which colour do you like?]", "I like green, like the leaves that a sloth eats."],
  ["[What is your favourite animal?|Which animal do you like best?]", "I like the sloth. It is slow and calm."],
  [
    "[Can you learn?|Can I teach you something?|Can you become better?]",
    "Yes. You can train me with your own examples, and then I will answer in a new way.",
  ],
]

const THANKS: readonly Pair[] = [
  [
    "[Thank you|Thanks|Thank you very much|Thanks a lot][!|.|, nano.]",
    "[You are welcome!|You are welcome.|My pleasure.|I am happy to help.]",
  ],
  [
    "[Great|Very good|Well done|That is right|Perfect][!|.]",
    "[Thank you!|I am glad to hear that.|Thanks!] [Do you have another question?|]",
  ],
  ["[Bye|Goodbye|See you|See you later][!|.]", "[Goodbye!|Bye!|See you soon!] [Have a nice day.|Take care.|]"],
  ["Good night[!|.]", "Good night! [Sleep well.|Sweet dreams.]"],
  ["[OK|Okay|I see|Aha].", "[Do you want to know anything else?|Good. What else can I do for you?]"],
]

const FEELINGS: readonly Pair[] = [
  [
    "I am [sad|so sad|a little sad] [today|]{dot}",
    "I am sorry to hear that. [Do you want to talk about it?|A walk or a friend can help.|Shall I tell you a story?]",
  ],
  [
    "I am [bored|so bored]{dot}",
    "[You could read a book, draw a picture or go outside.|Shall I tell you a story?|Let us count the things in your room that are {colour}.]",
  ],
  [
    "I am [happy|so happy] [today|]{dot}",
    "[That is wonderful!|I am glad to hear that!] [What made you happy?|Tell me why.|]",
  ],
  ["I am [tired|very tired]{dot}", "[Then you should rest.|Go to bed early and sleep well.|A short nap can help.]"],
  ["I am hungry{dot}", "[How about {a fruit}?|You could eat some bread or {a fruit}.|Then you should eat something.]"],
  ["I am thirsty{dot}", "[Drink a glass of water.|A glass of water helps.]"],
  ["I am [afraid of the dark|scared of the dark]{dot}", "Many people are. A small lamp next to your bed can help."],
  ["I am [angry|so angry]{dot}", "[Take a deep breath and count to ten.|Breathe slowly. Then tell me what happened.]"],
  [
    "I [cannot sleep|can not fall asleep]{dot}",
    "[Close your eyes and think of a quiet place.|Try to count sheep: one, two, three.|Breathe slowly and think of something nice.]",
  ],
  [
    "I [lost|cannot find] my {thing}{dot}",
    "[Think about where you saw it last.|Look under the bed and behind the door.|Where did you have it last?]",
  ],
  ["I [broke|lost] the {thing} of {name}{dot}", "Tell {name} the truth and say that you are sorry."],
  ["It is my birthday today{dot}", "Happy birthday! [I hope you have a wonderful day.|Enjoy your cake!]"],
  [
    "I like {fruits}{dot}",
    "[{S fruit} are sweet and good.|That is nice. {S fruit} are healthy.|Me too, if I could eat.]",
  ],
  ["I have {a animal}{dot}", "[How nice! What is its name?|That sounds like fun. How old is it?]"],
  ["My favourite colour is {colour}{dot}", "{^ colour} is a beautiful colour. [What do you have that is {colour}?|]"],
  [
    "I want to learn something{dot}",
    "[Good idea! Ask me about animals, cities or numbers.|Did you know that {a animal} can {can}?]",
  ],
  [
    "[What should I do today?|What can I do today?]",
    "[You could read a book.|You could go for a walk.|You could draw {a animal}.|You could bake {a fruit} cake.]",
  ],
  [
    "[What should I eat?|What can I eat today?]",
    "[How about {a fruit}?|You could make a soup.|Bread with cheese is good.]",
  ],
  [
    "[Tell me something.|Tell me something interesting.|Tell me a fact.]",
    "[Did you know that {a animal} can {can}?|A baby {animal} is called {a baby}.|The capital of {country} is {city}.|{A animal} lives {home}.]",
  ],
]

const JOKES: readonly string[] = [
  "Why did the sloth miss the bus? It was still waving to the first one.",
  "What does a sloth say on Monday? See you on Friday.",
  "Why did the book go to the doctor? It had a broken back.",
  "What is brown and sticky? A stick.",
  "Why can a bike not stand alone? It is two tired.",
  "What do you call a bear without teeth? A gummy bear.",
  "Why was six afraid of seven? Because seven ate nine.",
  "What has hands but cannot clap? A clock.",
  "What has a neck but no head? A bottle.",
  "What gets wet while it dries? A towel.",
  "What has one eye but cannot see? A needle.",
  "Which month has 28 days? All of them.",
]

const POEMS: readonly string[] = [
  "The {colour} {thing} lies in the sun,\nthe day has only just begun.\nThe {animal} sleeps, the {animal2} sings,\nwho knows what this new morning brings?",
  '{A animal} walked along the street,\nwith {colour} shoes on all its feet.\nIt saw {a animal2}, said hello,\nand then it said, "I have to go."',
  "The rain falls soft, the rain falls slow,\nit makes the trees and flowers grow.\nThe {animal} waits inside its bed,\nand dreams of {fruits}, ripe and red.",
  "The moon is high, the night is near,\nthe stars are bright, the sky is clear.\nSleep well, my {animal}, sleep tight,\nI wish you all a very good night.",
  "One, two, three, {a fruit} for me.\nFour, five, six, a bundle of sticks.\nSeven, eight, nine, the {thing} is mine.",
]

const UNKNOWN: readonly Pair[] = [
  [
    "[Who won the [football|tennis|chess] [game|match] [yesterday|last night|on {day}]?|What was the score of the game yesterday?]",
    "I do not know {that}[.|, because I have no news.|. I have no news from the world.]",
  ],
  [
    "[What is|What will be|How is] the weather [in {city}|today|tomorrow|tomorrow in {city}]?",
    "I do not know the weather[.|, because I cannot look outside.|. Please look out of the window.]",
  ],
  [
    "[What time is it?|What is the time?|What day is it today?|What is the date today?]",
    "I do not know, because I have no [clock|clock and no calendar].",
  ],
  [
    "What is [the phone number|the address|the email|the birthday] of {name}?",
    "I am sorry, I do not know that. [I do not know {name}.|]",
  ],
  ["What is a {fake}?", "I do not know what a {fake} is. [I have never heard this word.|Can you tell me?|]"],
  ["What does the word {fake} mean?", "I do not know the word {fake}. [Can you explain it to me?|]"],
  ["What is the capital of {Fake}?", "I do not know a country [called|with the name] {Fake}."],
  ["Where is {Fake}?", "I have never heard of {Fake}, so I do not know where it is."],
  ["Who is {Fake}?", "I am sorry, I do not know who {Fake} is."],
  [
    "[How much does {a thing} cost?|What is the price of {a thing}?]",
    "I do not know [the price|how much it costs]. [You can ask in a shop.|]",
  ],
  [
    "[How many people live in {city}?|How many people live in {country}?]",
    "I am sorry, I do not know how many people live there.",
  ],
  [
    "[What did I eat yesterday?|What is in my bag?|What am I thinking?|What is my favourite food?|Where is my {thing}?|What is the name of my {animal}?]",
    "I do not know, because I cannot see [you|what you do]. [Please tell me.|]",
  ],
  [
    "[What will happen tomorrow?|Will I be rich one day?|Who will win the next race?]",
    "Nobody can know that. [I cannot see the future.|]",
  ],
  [
    "[Can you call {name}?|Please send a letter to {name}.|Can you open the door?|Buy me {a thing}, please.|Please cook dinner for me.]",
    "I am sorry, I cannot do that. I can only write text.",
  ],
  [
    "[Show me a picture of {a animal}.|Draw {a animal}.|Can you play music?|Sing a song for me.|Play a film.]",
    "I am sorry, I can only write text. [But I can tell you about it.|Shall I tell you a story instead?|]",
  ],
  [
    "[What is the largest city in {Fake}?|Who is the king of {Fake}?|Which language do they speak in {Fake}?]",
    "I do not know {Fake}. [I think it is not a real country.|]",
  ],
  [
    "[Write a book with 500 pages.|Write a very long text about {country}.|Translate this into {language}.]",
    "I am too small for that. [I can write short texts.|]",
  ],
]

const SYLLABLES = "bla fi gor ma nu pel qui ro sta tri vo wim zan dro kle mip lor fen tas ub bim zo".split(" ")

/** A word that does not exist. */
function fakeWord(random: Random): string {
  return Array.from({ length: random.integer(2, 3) }, () => random.pick(SYLLABLES)).join("")
}

function slots(random: Random): Slots {
  const person = random.pick(PEOPLE)
  const [a, b] = random.sample(
    ANIMALS.filter((x) => x.hero),
    2,
  ) as [(typeof ANIMALS)[number], (typeof ANIMALS)[number]]
  const country = random.pick(COUNTRIES)
  const fruit = random.pick(FRUITS)
  const fake = fakeWord(random)
  return {
    name: person.name,
    animal: a.name,
    animal2: b.name,
    can: a.can,
    baby: a.baby,
    home: a.home,
    country: country.name,
    city: country.capital,
    language: country.language,
    fruit,
    fruits: plural(fruit),
    thing: random.pick(THINGS),
    colour: random.pick(COLOURS),
    day: random.pick(["Monday", "Tuesday", "Sunday", "Saturday"]),
    dot: random.pick([".", ".", "!"]),
    that: random.pick(["that", "who won", "the result"]),
    fake,
    Fake: fake.charAt(0).toUpperCase() + fake.slice(1),
  }
}

const say = (random: Random, pairs: readonly Pair[]): Exchange => {
  const [ask, answer] = random.pick(pairs)
  const s = slots(random)
  return { ask: clean(fillTemplate(random, ask, s)), answer: clean(fillTemplate(random, answer, s)) }
}

/** Optional parts leave double or trailing spaces behind. */
const clean = (text: string): string =>
  text
    .replace(/ +([.!?])/g, "$1")
    .replace(/ {2,}/g, " ")
    .trim()

/** A greeting. */
export const greeting = (random: Random): Exchange => say(random, GREETINGS)
/** A question about nano itself. */
export const identity = (random: Random): Exchange => say(random, IDENTITY)
/** Thanks or goodbye, for the end of a conversation. */
export const closing = (random: Random): Exchange => say(random, THANKS)
/** Feelings and everyday talk. */
export const feeling = (random: Random): Exchange => say(random, FEELINGS)
/** A question that nano cannot answer, and the polite answer that says so. */
export const unknown = (random: Random): Exchange => say(random, UNKNOWN)

/** A joke or a poem. */
export function fun(random: Random): Exchange {
  const s = slots(random)
  if (random.chance(0.4))
    return {
      ask: fillTemplate(random, "[Tell me a joke|Do you know a joke|Make me laugh|Can you tell a joke]{end}", {
        end: random.pick([".", "?", ", please."]),
      }),
      answer: random.pick(JOKES),
    }
  return {
    ask: fillTemplate(
      random,
      "[[Write|Tell me] a [short |]poem[.|, please.]|Can you write a [short |]poem?|I would like a poem.]",
      s,
    ),
    answer: fillTemplate(random, random.pick(POEMS), s),
  }
}
