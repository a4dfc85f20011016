const IRREGULAR: Readonly<Record<string, string>> = {
  mouse: "mice",
  goose: "geese",
  sheep: "sheep",
  fish: "fish",
  deer: "deer",
  wolf: "wolves",
  leaf: "leaves",
  loaf: "loaves",
  knife: "knives",
  shelf: "shelves",
  child: "children",
  foot: "feet",
  tooth: "teeth",
  man: "men",
  woman: "women",
  bread: "bread",
  rice: "rice",
  scissors: "scissors",
  person: "people",
  calf: "calves",
  potato: "potatoes",
  tomato: "tomatoes",
  mango: "mangoes",
}

/** The plural of a noun of the word lists. */
export function plural(noun: string): string {
  const space = noun.lastIndexOf(" ")
  if (space >= 0) return noun.slice(0, space + 1) + plural(noun.slice(space + 1))
  const known = IRREGULAR[noun]
  if (known !== undefined) return known
  if (/[^aeiou]y$/.test(noun)) return `${noun.slice(0, -1)}ies`
  if (/(s|x|z|ch|sh)$/.test(noun)) return `${noun}es`
  return `${noun}s`
}

/** `count` and its noun: "1 apple", "3 apples". */
export function countOf(count: number, noun: string): string {
  return `${count} ${count === 1 ? noun : plural(noun)}`
}

/** "a" or "an" and the word, by its first letter ("an hour" and "a uniform" do not occur in the word lists). */
export function withArticle(word: string): string {
  return `${/^[aeiou]/i.test(word) && !/^(uni|one\b|use)/i.test(word) ? "an" : "a"} ${word}`
}

/** The text with a capital first letter. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** "a", "a and b", "a, b and c". */
export function listOf(items: readonly string[], word = "and"): string {
  if (items.length <= 1) return items.join("")
  return `${items.slice(0, -1).join(", ")} ${word} ${items[items.length - 1]}`
}

const ONES = [
  "zero",
  "one",
  "two",
  "three",
  "four",
  "five",
  "six",
  "seven",
  "eight",
  "nine",
  "ten",
  "eleven",
  "twelve",
  "thirteen",
  "fourteen",
  "fifteen",
  "sixteen",
  "seventeen",
  "eighteen",
  "nineteen",
]
const TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]

/** A number from 0 to 100 in words. */
export function numberWord(n: number): string {
  if (n === 100) return "one hundred"
  const small = ONES[n]
  if (small !== undefined) return small
  const tens = TENS[Math.floor(n / 10)]
  if (tens === undefined) throw new RangeError(`no word for ${n}`)
  return n % 10 === 0 ? tens : `${tens}-${ONES[n % 10]}`
}

/** "1st", "2nd", "3rd", "4th" as words: "first" to "tenth". */
export function ordinalWord(n: number): string {
  const words = ["", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
  const word = words[n]
  if (word === undefined || word === "") throw new RangeError(`no ordinal word for ${n}`)
  return word
}
