import { distance } from "fastest-levenshtein"

/** A name that could have been meant, with the names other tools use for it. */
export interface Candidate {
  readonly name: string
  readonly aka?: readonly string[] | undefined
}

const plain = (name: string): string => name.replace(/[-_\s]/g, "").toLowerCase()

const letters = (name: string): string => [...name].sort().join("")

/** Edits between two names; letters in another order are one, however many edits that takes. */
const farOf = (a: string, b: string): number => {
  const far = distance(a, b)
  return far > 1 && letters(a) === letters(b) ? 1 : far
}

/** The candidate that a mistyped name most likely means, or undefined when nothing is near. */
export const suggest = (typed: string, candidates: readonly Candidate[]): string | undefined => {
  const wanted = plain(typed)
  let best: string | undefined
  let bestDistance = Infinity
  for (const candidate of candidates) {
    for (const name of [candidate.name, ...(candidate.aka ?? [])]) {
      const far = farOf(wanted, plain(name))
      // about a third of the letters may be wrong, two where letters are swapped: beyond that a suggestion misleads
      const length = Math.max(wanted.length, plain(name).length)
      const limit = length < 4 ? 1 : Math.max(2, Math.floor(length / 3))
      if (far <= limit && far < bestDistance) {
        best = candidate.name
        bestDistance = far
      }
    }
  }
  if (best !== undefined || wanted.length < 3) return best
  const longer = candidates.filter((candidate) => plain(candidate.name).startsWith(wanted))
  return longer.length === 1 ? longer[0]?.name : undefined
}

const secret = /(secret|password|api[-_]?key|token|credential)$/i

/** A received value, short and on one line; text under a key that sounds secret is not shown. */
export const showValue = (value: unknown, key = ""): string => {
  if (typeof value === "string" && secret.test(key)) return "(hidden)"
  if (value === undefined) return "nothing"
  if (typeof value === "function") return "a function"
  if (typeof value === "number" || typeof value === "bigint" || typeof value === "symbol") return String(value)
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch {
    text = undefined
  }
  if (text === undefined) return `a ${typeof value}`
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}
