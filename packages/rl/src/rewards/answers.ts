/** Finds the answer in a completion; undefined where there is none. */
export type AnswerFinder = (completion: string) => string | undefined

/** What the last `\boxed{...}` holds, with braces inside. */
export const boxedAnswer: AnswerFinder = (completion) => {
  const start = completion.lastIndexOf("\\boxed{")
  if (start < 0) return undefined
  const from = start + "\\boxed{".length
  let depth = 1
  for (let i = from; i < completion.length; i++) {
    if (completion[i] === "\\") i++
    else if (completion[i] === "{") depth++
    else if (completion[i] === "}" && --depth === 0) return completion.slice(from, i).trim()
  }
  return undefined
}

/** What stands between `<tag>` and `</tag>`; undefined unless there is exactly one of each, so that offering several answers earns nothing. */
export const taggedAnswer =
  (tag = "answer"): AnswerFinder =>
  (completion) => {
    const [open, close] = [`<${tag}>`, `</${tag}>`]
    const start = completion.indexOf(open)
    const end = completion.indexOf(close)
    if (start < 0 || end < start) return undefined
    if (completion.lastIndexOf(open) !== start || completion.lastIndexOf(close) !== end) return undefined
    return completion.slice(start + open.length, end).trim()
  }

/** What follows the last marker, to the end of its line: GSM8K's answers stand after "####". */
export const markedAnswer =
  (marker = "####"): AnswerFinder =>
  (completion) => {
    const at = completion.lastIndexOf(marker)
    if (at < 0) return undefined
    const line = completion
      .slice(at + marker.length)
      .split("\n")[0]!
      .trim()
    return line === "" ? undefined : line
  }

const numberPattern = /[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?|[-+]?\.\d+/g

/** The last number of the text as it is written. */
export const lastNumber: AnswerFinder = (completion) => completion.match(numberPattern)?.at(-1)

/** The boxed answer; else the tagged one, the one after "####", or the last number. */
export const finalAnswer: AnswerFinder = (completion) =>
  boxedAnswer(completion) ?? taggedAnswer()(completion) ?? markedAnswer()(completion) ?? lastNumber(completion)

/** The whole completion without white space around it. */
export const wholeText: AnswerFinder = (completion) => completion.trim()

/** Reads a number as people write it: "$1,234.50", "12 %", "-3e4", "1/2"; undefined where the text is not just that. */
export const readNumber = (text: string): number | undefined => {
  const bare = text
    .trim()
    .replace(/^\\?[$€£]\s*/, "")
    .replace(/\s*(?:\\?%|\\?[$€£])$/, "")
    .replace(/\.$/, "")
    .replace(/(?<=\d),(?=\d{3}(?:\D|$))/g, "")
    .replace(/−/g, "-")
  const fraction = /^([-+]?\d+)\s*\/\s*(\d+)$/.exec(bare)
  if (fraction !== null) return Number(fraction[2]) === 0 ? undefined : Number(fraction[1]) / Number(fraction[2])
  if (!/^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$/.test(bare)) return undefined
  const value = Number(bare)
  return Number.isFinite(value) ? value : undefined
}
