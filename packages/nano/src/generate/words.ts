/** Everything nano knows about one animal. */
export interface Animal {
  readonly name: string
  readonly sound: string
  readonly home: string
  readonly food: string
  readonly baby: string
  readonly cover: string
  readonly legs: number
  readonly group: "mammal" | "bird" | "insect" | "reptile" | "amphibian" | "fish"
  readonly can: string
  readonly colour: string
  /** Rank by size, 1 (ant) to 10 (whale). */
  readonly size: number
  /** May be the hero of a story. */
  readonly hero?: boolean
}

const animal = (
  name: string,
  sound: string,
  home: string,
  food: string,
  baby: string,
  cover: string,
  legs: number,
  group: Animal["group"],
  can: string,
  colour: string,
  size: number,
  hero = true,
): Animal => ({ name, sound, home, food, baby, cover, legs, group, can, colour, size, hero })

/** The animals of nano's world. */
export const ANIMALS: readonly Animal[] = [
  animal("dog", "barks", "in a house", "meat", "puppy", "fur", 4, "mammal", "run fast", "brown", 5),
  animal("cat", "meows", "in a house", "fish", "kitten", "fur", 4, "mammal", "climb trees", "grey", 4),
  animal("cow", "moos", "on a farm", "grass", "calf", "hair", 4, "mammal", "give milk", "white", 8),
  animal("horse", "neighs", "in a stable", "hay", "foal", "hair", 4, "mammal", "pull a cart", "brown", 8),
  animal("sheep", "bleats", "on a farm", "grass", "lamb", "wool", 4, "mammal", "give wool", "white", 6),
  animal("goat", "bleats", "in the mountains", "leaves", "kid", "hair", 4, "mammal", "climb rocks", "white", 6),
  animal("pig", "oinks", "on a farm", "corn", "piglet", "skin", 4, "mammal", "dig in the mud", "pink", 6),
  animal("duck", "quacks", "on a pond", "seeds", "duckling", "feathers", 2, "bird", "swim", "white", 4),
  animal("hen", "clucks", "on a farm", "corn", "chick", "feathers", 2, "bird", "lay eggs", "brown", 4),
  animal("owl", "hoots", "in a tree", "mice", "owlet", "feathers", 2, "bird", "see in the dark", "brown", 4),
  animal("goose", "honks", "on a lake", "grass", "gosling", "feathers", 2, "bird", "swim", "white", 4),
  animal("crow", "caws", "in a tree", "seeds", "chick", "feathers", 2, "bird", "fly", "black", 4),
  animal("parrot", "talks", "in the jungle", "fruit", "chick", "feathers", 2, "bird", "repeat words", "green", 3),
  animal("penguin", "honks", "on the ice", "fish", "chick", "feathers", 2, "bird", "swim", "black", 5),
  animal("eagle", "screams", "in the mountains", "fish", "eaglet", "feathers", 2, "bird", "fly high", "brown", 5),
  animal("fox", "barks", "in a den", "mice", "cub", "fur", 4, "mammal", "run fast", "red", 5),
  animal("wolf", "howls", "in the forest", "meat", "pup", "fur", 4, "mammal", "hunt at night", "grey", 6),
  animal("bear", "growls", "in a cave", "honey", "cub", "fur", 4, "mammal", "climb trees", "brown", 8),
  animal("lion", "roars", "in the grassland", "meat", "cub", "fur", 4, "mammal", "run fast", "yellow", 7),
  animal("tiger", "roars", "in the jungle", "meat", "cub", "fur", 4, "mammal", "swim", "orange", 7),
  animal("elephant", "trumpets", "in the grassland", "leaves", "calf", "skin", 4, "mammal", "carry trees", "grey", 9),
  animal("monkey", "chatters", "in the jungle", "fruit", "infant", "fur", 4, "mammal", "swing from trees", "brown", 5),
  animal("mouse", "squeaks", "in a hole", "cheese", "pup", "fur", 4, "mammal", "hide in small holes", "grey", 2),
  animal("rabbit", "squeaks", "in a burrow", "carrots", "kit", "fur", 4, "mammal", "hop", "white", 4),
  animal("squirrel", "chatters", "in a tree", "nuts", "kit", "fur", 4, "mammal", "climb trees", "red", 3),
  animal(
    "hedgehog",
    "snuffles",
    "in the garden",
    "beetles",
    "hoglet",
    "spines",
    4,
    "mammal",
    "roll into a ball",
    "brown",
    3,
  ),
  animal("beaver", "whines", "by the river", "bark", "kit", "fur", 4, "mammal", "build dams", "brown", 5),
  animal("deer", "bleats", "in the forest", "grass", "fawn", "fur", 4, "mammal", "jump far", "brown", 7),
  animal("sloth", "sighs", "in the jungle", "leaves", "pup", "fur", 4, "mammal", "hang from trees", "brown", 5),
  animal(
    "camel",
    "grunts",
    "in the desert",
    "dry plants",
    "calf",
    "hair",
    4,
    "mammal",
    "live without water for days",
    "brown",
    8,
  ),
  animal(
    "whale",
    "sings",
    "in the sea",
    "tiny sea animals",
    "calf",
    "skin",
    0,
    "mammal",
    "dive deep",
    "blue",
    10,
    false,
  ),
  animal("dolphin", "clicks", "in the sea", "fish", "calf", "skin", 0, "mammal", "jump out of the water", "grey", 7),
  animal("bat", "squeaks", "in a cave", "insects", "pup", "fur", 2, "mammal", "fly at night", "black", 2),
  animal("frog", "croaks", "by a pond", "flies", "tadpole", "skin", 4, "amphibian", "jump far", "green", 2),
  animal(
    "turtle",
    "hisses",
    "by the sea",
    "plants",
    "hatchling",
    "a shell",
    4,
    "reptile",
    "hide in its shell",
    "green",
    4,
  ),
  animal(
    "snake",
    "hisses",
    "in the grass",
    "mice",
    "snakelet",
    "scales",
    0,
    "reptile",
    "move without legs",
    "green",
    4,
    false,
  ),
  animal("crocodile", "growls", "in a river", "meat", "hatchling", "scales", 4, "reptile", "swim", "green", 8, false),
  animal(
    "lizard",
    "hisses",
    "under a stone",
    "insects",
    "hatchling",
    "scales",
    4,
    "reptile",
    "climb walls",
    "green",
    2,
  ),
  animal("bee", "buzzes", "in a hive", "nectar", "larva", "hair", 6, "insect", "make honey", "yellow", 1),
  animal(
    "ant",
    "makes no sound",
    "in a nest",
    "crumbs",
    "larva",
    "a hard skin",
    6,
    "insect",
    "carry heavy things",
    "black",
    1,
  ),
  animal(
    "butterfly",
    "makes no sound",
    "in the garden",
    "nectar",
    "caterpillar",
    "scales",
    6,
    "insect",
    "fly",
    "yellow",
    1,
  ),
  animal("shark", "makes no sound", "in the sea", "fish", "pup", "scales", 0, "fish", "swim fast", "grey", 8, false),
]

/** A child's name with its pronouns. */
export interface Person {
  readonly name: string
  readonly kind: string
  readonly he: string
  readonly him: string
  readonly his: string
}

const GIRLS =
  "Mia Anna Lily Ella Nora Zoe Ruby Ivy Maya Clara Rosa Lena Emma Tara Sara Amy Kate Lucy Jane Ada Hana Nina Eva Olga Mara Suki Vera Wendy Yara Leila".split(
    " ",
  )
const BOYS =
  "Tom Ben Max Leo Sam Finn Jack Noah Omar Paul Tim Hugo Ravi Oscar Adam Luca Ivan Kofi Nick Pete Carl Jonas Felix Emil Theo Dan Ali Bruno Milo Otto".split(
    " ",
  )
const PETS =
  "Rusty Pip Coco Bella Dot Nibbles Fern Biscuit Hazel Bramble Juniper Pepper Moss Tiny Bubbles Snowy Sunny Patch Clover Ginger Maple Button Willow Acorn".split(
    " ",
  )

/** People with their pronouns. */
export const PEOPLE: readonly Person[] = [
  ...GIRLS.map((name) => ({ name, kind: "girl", he: "she", him: "her", his: "her" })),
  ...BOYS.map((name) => ({ name, kind: "boy", he: "he", him: "him", his: "his" })),
]

/** Names for animals in stories. */
export const PET_NAMES: readonly string[] = PETS

/** A place: how one is there, how one goes there, and where things hide there. */
export interface Place {
  readonly name: string
  readonly at: string
  readonly spots: readonly string[]
}

const place = (at: string, ...spots: string[]): Place => ({ at, name: at.slice(at.indexOf(" ") + 1), spots })

/** The places of nano's world. */
export const PLACES: readonly Place[] = [
  place("in the park", "under a bench", "behind a tree", "next to the pond", "on the swing"),
  place("in the forest", "under a bush", "behind a rock", "in a hollow tree", "between the roots"),
  place("in the garden", "under the apple tree", "behind the shed", "among the flowers", "next to the fence"),
  place("at the beach", "in the sand", "behind a rock", "under a towel", "next to the boat"),
  place("on the farm", "in the barn", "behind the tractor", "under the hay", "next to the well"),
  place("at school", "under a desk", "behind the door", "on a shelf", "in the playground"),
  place("in the library", "between two books", "under a table", "behind a shelf", "on a chair"),
  place("at the market", "under a stall", "behind a basket", "next to the fountain", "on a cart"),
  place("by the river", "under the bridge", "on a flat stone", "in the reeds", "behind a log"),
  place("on the hill", "in the tall grass", "behind a stone", "under the old oak", "beside the path"),
  place("in the kitchen", "under the table", "in the cupboard", "behind the oven", "on the window sill"),
  place("by the lake", "next to the pier", "under a boat", "behind the reeds", "on a rock"),
  place("in the village", "next to the church", "behind the bakery", "under the big tree", "on the bridge"),
  place("in the meadow", "among the flowers", "behind a fence", "under a leaf", "in the long grass"),
]

/** Things that a child can own, lose and find. */
export const THINGS: readonly string[] =
  "ball kite hat scarf book bag cup key drum boat bell doll blanket lamp box coat ring umbrella basket flute stone shell map puzzle ribbon whistle spoon feather pencil mitten button coin toy train".split(
    " ",
  )

/** Colours. */
export const COLOURS: readonly string[] = [
  "red",
  "blue",
  "green",
  "yellow",
  "white",
  "black",
  "brown",
  "pink",
  "purple",
  "orange",
  "grey",
]

/** Fruit. */
export const FRUITS: readonly string[] = [
  "apple",
  "pear",
  "plum",
  "cherry",
  "banana",
  "orange",
  "lemon",
  "peach",
  "grape",
  "melon",
  "mango",
  "strawberry",
]

/** Vegetables. */
export const VEGETABLES: readonly string[] = [
  "carrot",
  "potato",
  "onion",
  "tomato",
  "bean",
  "pea",
  "cabbage",
  "pumpkin",
  "cucumber",
  "pepper",
  "beet",
  "radish",
]

/** Members of categories, for lists and for "which one is". */
export const CATEGORIES: Readonly<Record<string, readonly string[]>> = {
  fruit: FRUITS,
  vegetable: VEGETABLES,
  colour: COLOURS,
  animal: ["dog", "cat", "cow", "horse", "fox", "bear", "lion", "rabbit", "mouse", "wolf", "frog", "sheep"],
  bird: ["duck", "hen", "owl", "goose", "crow", "parrot", "penguin", "eagle"],
  insect: ["bee", "ant", "butterfly", "fly", "beetle", "mosquito"],
  tool: ["hammer", "saw", "drill", "shovel", "rake", "brush", "ladder", "axe"],
  toy: ["ball", "doll", "kite", "puzzle", "train", "top", "teddy bear", "drum"],
  vehicle: ["car", "bus", "train", "boat", "plane", "bike", "truck", "tram"],
  "piece of furniture": ["table", "chair", "bed", "shelf", "desk", "sofa", "cupboard", "bench"],
  instrument: ["drum", "flute", "piano", "guitar", "violin", "trumpet", "harp", "bell"],
  drink: ["water", "milk", "tea", "juice", "coffee", "lemonade"],
  flower: ["rose", "tulip", "daisy", "lily", "sunflower", "violet"],
  tree: ["oak", "pine", "birch", "maple", "willow", "palm"],
  "piece of clothing": ["hat", "coat", "shirt", "scarf", "sock", "shoe", "glove", "dress"],
  "part of the body": ["hand", "foot", "arm", "leg", "nose", "ear", "eye", "mouth"],
  job: ["baker", "teacher", "doctor", "farmer", "pilot", "painter", "singer", "sailor"],
  metal: ["iron", "gold", "silver", "copper", "tin"],
  planet: ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"],
  season: ["spring", "summer", "autumn", "winter"],
  day: ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"],
  month: [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
  ],
  shape: ["circle", "square", "triangle", "star", "rectangle", "heart"],
}

/** The plural that a category is asked by. */
export function categoryPlural(category: string): string {
  if (category === "fruit") return "fruits"
  if (category.startsWith("piece of")) return category.replace("piece", "pieces")
  if (category.startsWith("part of")) return category.replace("part", "parts")
  if (category === "country") return "countries"
  return `${category}s`
}

/** Days of the week in order. */
export const DAYS: readonly string[] = CATEGORIES["day"] as readonly string[]
/** Months in order. */
export const MONTHS: readonly string[] = CATEGORIES["month"] as readonly string[]
/** Seasons in order. */
export const SEASONS: readonly string[] = CATEGORIES["season"] as readonly string[]

/** Pairs of opposites. */
export const OPPOSITES: readonly (readonly [string, string])[] = [
  ["big", "small"],
  ["hot", "cold"],
  ["fast", "slow"],
  ["happy", "sad"],
  ["old", "young"],
  ["light", "heavy"],
  ["high", "low"],
  ["open", "closed"],
  ["wet", "dry"],
  ["full", "empty"],
  ["hard", "soft"],
  ["loud", "quiet"],
  ["early", "late"],
  ["near", "far"],
  ["long", "short"],
  ["good", "bad"],
  ["clean", "dirty"],
  ["strong", "weak"],
  ["rich", "poor"],
  ["thick", "thin"],
  ["up", "down"],
  ["left", "right"],
  ["day", "night"],
  ["summer", "winter"],
  ["first", "last"],
  ["begin", "end"],
  ["give", "take"],
  ["push", "pull"],
  ["love", "hate"],
  ["win", "lose"],
  ["buy", "sell"],
  ["come", "go"],
  ["laugh", "cry"],
  ["inside", "outside"],
  ["above", "below"],
  ["brave", "afraid"],
  ["easy", "difficult"],
  ["sweet", "sour"],
  ["wide", "narrow"],
  ["deep", "shallow"],
  ["true", "false"],
  ["always", "never"],
  ["many", "few"],
  ["friend", "enemy"],
  ["question", "answer"],
  ["awake", "asleep"],
]

/** Countries with capital, language and continent. */
export const COUNTRIES: readonly {
  readonly name: string
  readonly capital: string
  readonly language: string
  readonly continent: string
}[] = [
  ["France", "Paris", "French", "Europe"],
  ["Germany", "Berlin", "German", "Europe"],
  ["Italy", "Rome", "Italian", "Europe"],
  ["Spain", "Madrid", "Spanish", "Europe"],
  ["Portugal", "Lisbon", "Portuguese", "Europe"],
  ["Greece", "Athens", "Greek", "Europe"],
  ["Poland", "Warsaw", "Polish", "Europe"],
  ["Austria", "Vienna", "German", "Europe"],
  ["Norway", "Oslo", "Norwegian", "Europe"],
  ["Sweden", "Stockholm", "Swedish", "Europe"],
  ["Denmark", "Copenhagen", "Danish", "Europe"],
  ["Hungary", "Budapest", "Hungarian", "Europe"],
  ["England", "London", "English", "Europe"],
  ["Ireland", "Dublin", "English", "Europe"],
  ["Russia", "Moscow", "Russian", "Europe"],
  ["Japan", "Tokyo", "Japanese", "Asia"],
  ["China", "Beijing", "Chinese", "Asia"],
  ["Thailand", "Bangkok", "Thai", "Asia"],
  ["Turkey", "Ankara", "Turkish", "Asia"],
  ["Egypt", "Cairo", "Arabic", "Africa"],
  ["Kenya", "Nairobi", "Swahili", "Africa"],
  ["Ghana", "Accra", "English", "Africa"],
  ["Morocco", "Rabat", "Arabic", "Africa"],
  ["Mexico", "Mexico City", "Spanish", "North America"],
  ["Cuba", "Havana", "Spanish", "North America"],
  ["Peru", "Lima", "Spanish", "South America"],
  ["Chile", "Santiago", "Spanish", "South America"],
  ["Brazil", "Brasilia", "Portuguese", "South America"],
].map(([name, capital, language, continent]) => ({
  name: name as string,
  capital: capital as string,
  language: language as string,
  continent: continent as string,
}))
