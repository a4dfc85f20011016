import type { Slots } from "./template.ts"
import { ANIMALS, type Animal, CATEGORIES, COUNTRIES, DAYS, MONTHS, OPPOSITES, SEASONS } from "./words.ts"

/** One kind of fact: rows of slot values and the many ways to state them and to ask for them. */
export interface Relation {
  readonly topic: string
  readonly rows: readonly Slots[]
  readonly statements: readonly string[]
  readonly questions: readonly string[]
  readonly answers: readonly string[]
  /** Template of the shortest answer. */
  readonly short: string
}

const pairs = (key: string, value: string, text: string): Slots[] =>
  text.split(";").map((row) => {
    const [k, v] = row.split(":") as [string, string]
    return { [key]: k.trim(), [value]: v.trim() }
  })

const animalRows = (pick: (a: Animal) => Slots | null): Slots[] =>
  ANIMALS.flatMap((a) => {
    const extra = pick(a)
    return extra === null ? [] : [{ animal: a.name, ...extra }]
  })

const next = (items: readonly string[]): Slots[] =>
  items.map((item, k) => ({
    item,
    next: items[(k + 1) % items.length] as string,
    before: items[(k + items.length - 1) % items.length] as string,
  }))

/** All relations of nano's world. */
export const RELATIONS: readonly Relation[] = [
  {
    topic: "capital",
    rows: COUNTRIES.map(({ name, capital: city }) => ({ country: name, city })),
    statements: [
      "The capital of {country} is {city}.",
      "{city} is the capital of {country}.",
      "{country} has a capital [city |]called {city}.",
    ],
    questions: [
      "What is the capital of {country}?",
      "[Tell me the capital of {country}[.|, please.]|Can you tell me the capital of {country}?|Do you know the capital of {country}?]",
      "Which city is the capital of {country}?",
      "Name the capital of {country}.",
      "capital of {country}?",
    ],
    answers: ["The capital of {country} is {city}.", "{city} is the capital of {country}.", "It is {city}."],
    short: "{city}",
  },
  {
    topic: "country-of",
    rows: COUNTRIES.map(({ name, capital: city }) => ({ country: name, city })),
    statements: ["{city} is a [big |]city in {country}.", "You can find {city} in {country}."],
    questions: ["In which country is {city}?", "Where is {city}?", "Which country has the capital {city}?"],
    answers: ["{city} is in {country}.", "It is in {country}.", "{city} is the capital of {country}."],
    short: "{country}",
  },
  {
    topic: "language",
    rows: COUNTRIES.map(({ name, language }) => ({ country: name, language })),
    statements: ["[Most people|People] in {country} speak {language}.", "The language of {country} is {language}."],
    questions: [
      "Which language do people speak in {country}?",
      "What language is spoken in {country}?",
      "What do people in {country} speak?",
    ],
    answers: ["[Most people|People] in {country} speak {language}.", "They speak {language}."],
    short: "{language}",
  },
  {
    topic: "continent",
    rows: COUNTRIES.map(({ name, continent }) => ({ country: name, continent })),
    statements: ["{country} is in {continent}.", "{country} is a country in {continent}."],
    questions: ["On which continent is {country}?", "Where is {country}?", "Which continent does {country} belong to?"],
    answers: ["{country} is in {continent}.", "{country} is a country in {continent}."],
    short: "{continent}",
  },
  {
    topic: "sound",
    rows: animalRows((a) => (a.sound.includes("no sound") ? null : { sound: a.sound })),
    statements: [
      "{A animal} {sound}.",
      "The {animal} {sound} when it wants something.",
      "When {a animal} talks, it {sound}.",
    ],
    questions: [
      "What sound does {a animal} make?",
      "What does {a animal} do when it talks?",
      "How does {a animal} sound?",
      "What noise does {a animal} make?",
    ],
    answers: ["{A animal} {sound}.", "The {animal} {sound}.", "It {sound}."],
    short: "It {sound}",
  },
  {
    topic: "home",
    rows: animalRows((a) => ({ home: a.home })),
    statements: [
      "{A animal} lives {home}.",
      "[Most {s animal}|{S animal}] live {home}.",
      "The home of {a animal} is {home}.",
    ],
    questions: [
      "Where does {a animal} live?",
      "Where do {s animal} live?",
      "Where can I find {a animal}?",
      "Where is the home of {a animal}?",
    ],
    answers: ["{A animal} lives {home}.", "{S animal} live {home}.", "You can find {a animal} {home}."],
    short: "{^ home}",
  },
  {
    topic: "food",
    rows: animalRows((a) => ({ food: a.food })),
    statements: ["{A animal} eats {food}.", "{S animal} like to eat {food}.", "The {animal} eats {food} every day."],
    questions: [
      "What does {a animal} eat?",
      "What do {s animal} eat?",
      "What is the food of {a animal}?",
      "What should I give {a animal} to eat?",
    ],
    answers: ["{A animal} eats {food}.", "{S animal} eat {food}.", "It eats {food}."],
    short: "{^ food}",
  },
  {
    topic: "baby",
    rows: animalRows((a) => ({ baby: a.baby })),
    statements: ["A baby {animal} is called {a baby}.", "{A baby} is a [young|baby] {animal}."],
    questions: [
      "What is a baby {animal} called?",
      "What do you call a young {animal}?",
      "What is the name for a baby {animal}?",
    ],
    answers: ["A baby {animal} is called {a baby}.", "A young {animal} is called {a baby}.", "It is called {a baby}."],
    short: "{^ baby}",
  },
  {
    topic: "cover",
    rows: animalRows((a) => ({ cover: a.cover })),
    statements: ["{A animal} has {cover}.", "The body of {a animal} has {cover}."],
    questions: [
      "What covers the body of {a animal}?",
      "Does {a animal} have fur, feathers or something else?",
      "What does {a animal} have on its body?",
    ],
    answers: ["{A animal} has {cover}.", "The body of {a animal} has {cover}."],
    short: "{^ cover}",
  },
  {
    topic: "legs",
    rows: animalRows((a) => ({ legs: a.legs === 0 ? "no" : a.legs })),
    statements: ["{A animal} has {legs} legs.", "{S animal} have {legs} legs."],
    questions: [
      "How many legs does {a animal} have?",
      "How many legs do {s animal} have?",
      "Count the legs of {a animal}.",
    ],
    answers: ["{A animal} has {legs} legs.", "{S animal} have {legs} legs."],
    short: "{legs}",
  },
  {
    topic: "group",
    rows: animalRows((a) => ({ group: a.group })),
    statements: ["{A animal} is {a group}.", "The {animal} belongs to the {s group}."],
    questions: [
      "What kind of animal is {a animal}?",
      "Is {a animal} a mammal, a bird or something else?",
      "Which group of animals does the {animal} belong to?",
    ],
    answers: ["{A animal} is {a group}.", "The {animal} is {a group}."],
    short: "{^ group}",
  },
  {
    topic: "can",
    rows: animalRows((a) => ({ can: a.can })),
    statements: ["{A animal} can {can}.", "{S animal} can {can}."],
    questions: ["What can {a animal} do?", "What is {a animal} good at?", "What special thing can {s animal} do?"],
    answers: ["{A animal} can {can}.", "{S animal} can {can}.", "It can {can}."],
    short: "It can {can}",
  },
  {
    topic: "opposite",
    rows: OPPOSITES.flatMap(([a, b]) => [
      { word: a, other: b },
      { word: b, other: a },
    ]),
    statements: [
      'The opposite of "{word}" is "{other}".',
      '"{^ word}" and "{other}" are opposites.',
      "{^ other} is the opposite of {word}.",
    ],
    questions: [
      'What is the opposite of "{word}"?',
      "What is the opposite of {word}?",
      "Tell me the opposite of {word}.",
      'Which word means the opposite of "{word}"?',
      "opposite of {word}?",
    ],
    answers: ['The opposite of "{word}" is "{other}".', "The opposite of {word} is {other}.", "It is {other}."],
    short: "{^ other}",
  },
  {
    topic: "next-day",
    rows: next(DAYS),
    statements: ["{next} comes after {item}.", "The day after {item} is {next}.", "After {item} comes {next}."],
    questions: [
      "Which day comes after {item}?",
      "What day is after {item}?",
      "If today is {item}, what day is tomorrow?",
    ],
    answers: ["{next} comes after {item}.", "The day after {item} is {next}.", "It is {next}."],
    short: "{next}",
  },
  {
    topic: "day-before",
    rows: next(DAYS),
    statements: ["{before} comes before {item}.", "The day before {item} is {before}."],
    questions: [
      "Which day comes before {item}?",
      "What day is before {item}?",
      "If today is {item}, what day was yesterday?",
    ],
    answers: ["{before} comes before {item}.", "The day before {item} is {before}.", "It was {before}."],
    short: "{before}",
  },
  {
    topic: "next-month",
    rows: next(MONTHS),
    statements: ["{next} comes after {item}.", "The month after {item} is {next}."],
    questions: ["Which month comes after {item}?", "What month is after {item}?", "What is the month after {item}?"],
    answers: ["{next} comes after {item}.", "The month after {item} is {next}."],
    short: "{next}",
  },
  {
    topic: "next-season",
    rows: next(SEASONS),
    statements: ["{^ next} comes after {item}.", "After {item} comes {next}."],
    questions: ["Which season comes after {item}?", "What comes after {item}?", "What is the season after {item}?"],
    answers: ["{^ next} comes after {item}.", "After {item} comes {next}."],
    short: "{^ next}",
  },
  {
    topic: "colour-of",
    rows: pairs(
      "thing",
      "colour",
      "grass:green;snow:white;the sun:yellow;the sky:blue;a banana:yellow;a tomato:red;coal:black;a lemon:yellow;milk:white;a carrot:orange;blood:red;chocolate:brown;a cucumber:green;the night:black;salt:white;a plum:purple;a pumpkin:orange;a strawberry:red;a cloud:white;the sea:blue;a leaf:green;a cherry:red;an elephant:grey;a pig:pink;a polar bear:white",
    ),
    statements: ["{^ thing} is {colour}.", "The colour of {thing} is {colour}."],
    questions: ["What colour is {thing}?", "Which colour does {thing} have?", "Tell me the colour of {thing}."],
    answers: ["{^ thing} is {colour}.", "The colour of {thing} is {colour}."],
    short: "{^ colour}",
  },
  {
    topic: "mix",
    rows: [
      { a: "red", b: "yellow", mix: "orange" },
      { a: "blue", b: "yellow", mix: "green" },
      { a: "red", b: "blue", mix: "purple" },
      { a: "red", b: "white", mix: "pink" },
      { a: "black", b: "white", mix: "grey" },
      { a: "red", b: "green", mix: "brown" },
    ],
    statements: [
      "If you mix {a} and {b}, you get {mix}.",
      "{^ a} and {b} make {mix}.",
      "{^ mix} is a mix of {a} and {b}.",
    ],
    questions: [
      "What do you get if you mix {a} and {b}?",
      "Which colour do {a} and {b} make?",
      "I mix {b} and {a}. What colour do I get?",
    ],
    answers: ["If you mix {a} and {b}, you get {mix}.", "{^ a} and {b} make {mix}.", "You get {mix}."],
    short: "{^ mix}",
  },
  {
    topic: "job",
    rows: pairs(
      "job",
      "does",
      "baker:bakes bread;teacher:teaches children;doctor:helps sick people;farmer:grows food;pilot:flies a plane;painter:paints pictures;singer:sings songs;sailor:sails a ship;cook:makes meals;tailor:makes clothes;gardener:takes care of plants;driver:drives a bus;writer:writes books;builder:builds houses;dentist:takes care of teeth;firefighter:puts out fires;fisher:catches fish;vet:helps sick animals;postman:brings letters;hairdresser:cuts hair",
    ),
    statements: [
      "{A job} {does}.",
      "The work of {a job} is easy to explain: {a job} {does}.",
      "A person who {does} is called {a job}.",
    ],
    questions: [
      "What does {a job} do?",
      "What is the job of {a job}?",
      "What does {a job} do all day?",
      "Explain what {a job} does.",
    ],
    answers: ["{A job} {does}.", "{A job} is a person who {does}."],
    short: "{A job} {does}",
  },
  {
    topic: "who-does",
    rows: pairs(
      "job",
      "does",
      "baker:bakes bread;teacher:teaches children;doctor:helps sick people;farmer:grows food;pilot:flies a plane;painter:paints pictures;singer:sings songs;sailor:sails a ship;cook:makes meals;tailor:makes clothes;gardener:takes care of plants;driver:drives a bus;writer:writes books;builder:builds houses;dentist:takes care of teeth;firefighter:puts out fires;fisher:catches fish;vet:helps sick animals;postman:brings letters;hairdresser:cuts hair",
    ),
    statements: ["{A job} is somebody who {does}."],
    questions: ["Who {does}?", "What do you call a person who {does}?", "Which job has a person who {does}?"],
    answers: ["{A job} {does}.", "A person who {does} is called {a job}.", "That is {a job}."],
    short: "{A job}",
  },
  {
    topic: "tool-for",
    rows: pairs(
      "tool",
      "use",
      "knife:cut bread;spoon:eat soup;broom:sweep the floor;key:open a door;pen:write a letter;umbrella:stay dry in the rain;lamp:see in the dark;clock:tell the time;hammer:hit a nail;saw:cut wood;needle:sew clothes;cup:drink tea;ladder:reach high places;map:find the way;comb:comb your hair;towel:dry your hands;oven:bake a cake;bucket:carry water;shovel:dig a hole;scale:weigh things;brush:paint a picture;soap:wash your hands;rope:tie a boat;candle:make a little light",
    ),
    statements: [
      "You use {a tool} to {use}.",
      "With {a tool} you can {use}.",
      "{A tool} is good if you want to {use}.",
    ],
    questions: [
      "What is {a tool} for?",
      "What do you do with {a tool}?",
      "Why do people use {a tool}?",
      "What can I do with {a tool}?",
    ],
    answers: ["You use {a tool} to {use}.", "With {a tool} you can {use}.", "{A tool} helps you to {use}."],
    short: "To {use}",
  },
  {
    topic: "what-for",
    rows: pairs(
      "tool",
      "use",
      "knife:cut bread;spoon:eat soup;broom:sweep the floor;key:open a door;pen:write a letter;umbrella:stay dry in the rain;lamp:see in the dark;clock:tell the time;hammer:hit a nail;saw:cut wood;needle:sew clothes;cup:drink tea;ladder:reach high places;map:find the way;comb:comb your hair;towel:dry your hands;oven:bake a cake;bucket:carry water;shovel:dig a hole;scale:weigh things;brush:paint a picture;soap:wash your hands;rope:tie a boat;candle:make a little light",
    ),
    statements: ["If you want to {use}, take {a tool}."],
    questions: ["What do I need to {use}?", "I want to {use}. What should I take?", "Which thing helps me to {use}?"],
    answers: ["You need {a tool} to {use}.", "Take {a tool}.", "{A tool} helps you to {use}."],
    short: "{A tool}",
  },
  {
    topic: "made-of",
    rows: pairs(
      "thing",
      "stuff",
      "a window:glass;a book:paper;a coin:metal;a candle:wax;a sweater:wool;a shoe:leather;a table:wood;a brick:clay;bread:flour;cheese:milk;a snowman:snow;a tyre:rubber;a ring:gold;butter:milk;wine:grapes;a nail:iron;jam:fruit;a sandcastle:sand;paper:wood;an omelette:eggs",
    ),
    statements: ["{^ thing} is made of {stuff}.", "You need {stuff} to make {thing}."],
    questions: ["What is {thing} made of?", "What do you need to make {thing}?", "Which material is {thing} made of?"],
    answers: ["{^ thing} is made of {stuff}.", "You need {stuff} to make {thing}.", "It is made of {stuff}."],
    short: "{^ stuff}",
  },
  {
    topic: "body",
    rows: pairs(
      "part",
      "use",
      "eyes:see;ears:hear;nose:smell;tongue:taste;legs:walk;hands:hold things;teeth:chew;brain:think;heart:pump blood;lungs:breathe",
    ),
    statements: ["You use your {part} to {use}.", "With your {part} you can {use}."],
    questions: [
      "What do you do with your {part}?",
      "What do people use their {part} for?",
      "Why do we need our {part}?",
    ],
    answers: ["You use your {part} to {use}.", "We use our {part} to {use}."],
    short: "To {use}",
  },
  {
    topic: "why",
    rows: [
      { ask: "Why does it rain", why: "clouds hold small drops of water, and heavy drops fall down" },
      { ask: "Why is the sky dark at night", why: "the sun is on the other side of the Earth" },
      { ask: "Why do leaves fall in autumn", why: "the tree saves water for the cold winter" },
      { ask: "Why do we sleep", why: "our body and our brain need rest" },
      { ask: "Why do birds fly south", why: "it is warmer there in winter" },
      { ask: "Why does ice melt", why: "it gets warm" },
      { ask: "Why do we drink water", why: "our body needs water to work" },
      { ask: "Why do plants need sun", why: "they make food from light" },
      { ask: "Why do bees visit flowers", why: "they collect nectar to make honey" },
      { ask: "Why do we wear coats", why: "coats keep us warm in the cold" },
      { ask: "Why does wood float", why: "it is lighter than water" },
      { ask: "Why do we brush our teeth", why: "clean teeth stay healthy" },
      { ask: "Why do cats have whiskers", why: "whiskers help them to feel their way in the dark" },
      { ask: "Why do sloths move slowly", why: "their food of leaves gives them little energy" },
      { ask: "Why is the sea salty", why: "rivers carry salt from the rocks into the sea" },
      { ask: "Why do people cook food", why: "warm food is soft, tasty and safe" },
      { ask: "Why do owls hunt at night", why: "they can see well in the dark" },
      { ask: "Why do we say thank you", why: "it is kind to show that we are happy about help" },
    ],
    statements: ["{ask}? Because {why}."],
    questions: [
      "{ask}?",
      "Can you explain this to me: {ask}?",
      "{ask}? [Explain it in one sentence.|I want to know.|Please tell me.]",
    ],
    answers: ["Because {why}.", "It is simple: {why}."],
    short: "Because {why}",
  },
  {
    topic: "world",
    rows: [
      { ask: "How many days are in a week", say: "A week has 7 days", short: "7" },
      { ask: "How many months are in a year", say: "A year has 12 months", short: "12" },
      { ask: "How many hours are in a day", say: "A day has 24 hours", short: "24" },
      { ask: "How many minutes are in an hour", say: "An hour has 60 minutes", short: "60" },
      { ask: "How many seconds are in a minute", say: "A minute has 60 seconds", short: "60" },
      { ask: "How many seasons are there", say: "There are 4 seasons", short: "4" },
      { ask: "How many wheels does a bike have", say: "A bike has 2 wheels", short: "2" },
      { ask: "How many wheels does a car have", say: "A car has 4 wheels", short: "4" },
      { ask: "How many sides does a triangle have", say: "A triangle has 3 sides", short: "3" },
      { ask: "How many sides does a square have", say: "A square has 4 sides", short: "4" },
      { ask: "How many fingers are on one hand", say: "One hand has 5 fingers", short: "5" },
      { ask: "What is the largest planet", say: "The largest planet is Jupiter", short: "Jupiter" },
      {
        ask: "What is the planet nearest to the sun",
        say: "The planet nearest to the sun is Mercury",
        short: "Mercury",
      },
      { ask: "On which planet do we live", say: "We live on Earth", short: "Earth" },
      { ask: "Which planet has big rings", say: "Saturn has big rings", short: "Saturn" },
      { ask: "Which planet is red", say: "Mars is the red planet", short: "Mars" },
      { ask: "What is frozen water called", say: "Frozen water is called ice", short: "Ice" },
      { ask: "What is the largest animal", say: "The largest animal is the whale", short: "The whale" },
      { ask: "Which season is the coldest", say: "Winter is the coldest season", short: "Winter" },
      { ask: "Which season is the hottest", say: "Summer is the hottest season", short: "Summer" },
      { ask: "What is the first month of the year", say: "The first month of the year is January", short: "January" },
      { ask: "What is the last month of the year", say: "The last month of the year is December", short: "December" },
      { ask: "What is the first day of the week", say: "The first day of the week is Monday", short: "Monday" },
      { ask: "What do bees make", say: "Bees make honey", short: "Honey" },
      {
        ask: "What do plants need to grow",
        say: "Plants need water, soil and light to grow",
        short: "Water, soil and light",
      },
      { ask: "Where does the sun rise", say: "The sun rises in the east", short: "In the east" },
      { ask: "Where does the sun set", say: "The sun sets in the west", short: "In the west" },
      { ask: "What gives us light in the day", say: "The sun gives us light in the day", short: "The sun" },
      {
        ask: "What is the slowest animal in the trees",
        say: "The slowest animal in the trees is the sloth",
        short: "The sloth",
      },
      { ask: "What is the longest river in Africa", say: "The longest river in Africa is the Nile", short: "The Nile" },
      {
        ask: "What is the highest mountain on Earth",
        say: "The highest mountain on Earth is Mount Everest",
        short: "Mount Everest",
      },
      { ask: "At what temperature does water freeze", say: "Water freezes at 0 degrees", short: "0 degrees" },
      { ask: "At what temperature does water boil", say: "Water boils at 100 degrees", short: "100 degrees" },
    ],
    statements: ["{say}."],
    questions: ["{ask}?", "[Do you know this|Here is a question|Tell me this]: {ask}?", "{ask}? I forgot."],
    answers: ["{say}."],
    short: "{short}",
  },
  {
    topic: "member",
    rows: Object.entries(CATEGORIES).flatMap(([category, items]) => items.map((item) => ({ item, kind: category }))),
    statements: ["{A item} is {a kind}."],
    questions: ["What is {a item}?", "What kind of thing is {a item}?", "Is {a item} {a kind} or a stone?"],
    answers: ["{A item} is {a kind}."],
    short: "{A kind}",
  },
]
