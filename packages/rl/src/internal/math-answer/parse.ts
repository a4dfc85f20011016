import type { MathJsonExpression } from "@cortex-js/compute-engine/latex-syntax"
import { unitOf } from "./units.ts"

/** An expression: a number, a symbol, or a list of a function's name and its arguments. */
export type Node = number | string | readonly Node[]

/** A function with its arguments. */
export type Call = readonly [name: string, ...args: Node[]]

/** True for a function of one of these names. */
export const isCall = (node: Node | undefined, ...names: string[]): node is Call =>
  Array.isArray(node) && names.includes(node[0] as string)

/** A parsed answer. */
export interface MathAnswer {
  /** The value without its unit. */
  readonly node: Node
  readonly unit: { readonly kind: string; readonly size: number } | undefined
  /** The exact text of a whole number, where the answer is just that: doubles cannot tell large ones apart. */
  readonly integer: bigint | undefined
  /** The whole equation, where the answer is the value of one symbol: of "x = 3" the value is 3. */
  readonly equation: Call | undefined
}

/** An answer longer than this is no answer. */
const LONGEST = 400
/** The same of one that has to be parsed. */
const LONGEST_PARSED = 200
const MOST_NODES = 400
const DEEPEST = 8
const MOST_BARS = 4

/**
 * True for text that the parser deals with in no time. It tries several readings of bars, of brackets that are never closed and of operators without operands, each within
 * the other, which a model that is rewarded for answers will sooner or later write.
 */
const isTame = (latex: string): boolean => {
  if (latex.length > LONGEST_PARSED) return false
  const bars = latex.match(/\||\\(?:[lr]?[vV]ert|mid|parallel)(?![a-zA-Z])|[\u2016']|\\prime/g)
  if ((bars?.length ?? 0) > MOST_BARS) return false
  let depth = 0
  for (const piece of latex.match(/\\[a-zA-Z]+|\\.|[{}()[\]]/g) ?? []) {
    // Round and square brackets may close each other: half-open intervals.
    if (piece === "{" || piece === "(" || piece === "[" || piece === "\\{" || piece === "\\lbrace") depth++
    else if (piece === "}" || piece === ")" || piece === "]" || piece === "\\}" || piece === "\\rbrace") depth--
    if (depth < 0 || depth > DEEPEST) return false
  }
  if (depth !== 0) return false
  const begins = latex.match(/\\begin(?![a-zA-Z])/g)?.length ?? 0
  if (begins > 1 || begins !== (latex.match(/\\end(?![a-zA-Z])/g)?.length ?? 0)) return false
  // The same sign three times over is no mathematics.
  return !/([^\w\s{}()[\]\\])\s*\1\s*\1/.test(latex.replace(/\.\.\./g, "")) && !/(\\[a-zA-Z]+)\s*\1\s*\1/.test(latex)
}

type Parse = (latex: string) => MathJsonExpression | null
let loading: Promise<Parse> | undefined

/** Loads the parser once; it is needed by one reward only. */
export const loadParser = (): Promise<Parse> =>
  (loading ??= import("@cortex-js/compute-engine/latex-syntax").then(({ LatexSyntax }) => {
    const syntax = new LatexSyntax({})
    return (latex) => syntax.parse(latex, { strict: false })
  }))

/** Brings the ways in which people write an answer into LaTeX that a parser reads as they mean it. */
const cleaned = (text: string): string => {
  let t = text.trim()
  t = /^\$+([^$]+)\$+$/.exec(t)?.[1] ?? t
  t = /^\\\((.*)\\\)$/s.exec(t)?.[1] ?? /^\\\[(.*)\\\]$/s.exec(t)?.[1] ?? t
  t = /^\\boxed\{(.*)\}$/s.exec(t.trim())?.[1] ?? t
  return t
    .trim()
    .replace(/(?<![\d.])\.$/, "")
    .replace(/(?<=\d)\.$/, "")
    .replace(/\\(?:left|right|big|Big|bigg|Bigg|displaystyle)(?![a-zA-Z])\s*/g, "")
    .replace(/\\[,;:!]|\\quad|\\qquad|~/g, " ")
    .replace(/\\(?:mathrm|textrm|textbf|mathbf|mbox)(?=\s*\{)/g, "\\text")
    .replace(/^\s*\\?[$€£]\s*/, "")
    .replace(/(?<!\\)%/g, "\\%")
    .replace(/−/g, "-")
    .replace(/^([-+]?)(?:infinity|inf|oo)$/i, "$1\\infty")
    .replace(/\\(?:dfrac|tfrac|cfrac)(?![a-zA-Z])/g, "\\frac")
    .replace(/(?<=\d)\{,\}(?=\d{3})/g, "")
    .replace(/(?<![\d,(])(-?\d{1,3}(?:,\d{3})+)(?![\d,]*\d)(?!\s*[,)])/g, (m) => m.replaceAll(",", ""))
    .replace(/^(-?)(\d+)\s+(\d+)\/(\d+)$/, "$1($2+\\frac{$3}{$4})")
    .replace(/^(-?)(\d+)\s*\\frac\s*\{(\d+)\}\s*\{(\d+)\}$/, "$1($2+\\frac{$3}{$4})")
    .replace(/\^\{?\\circ\}?|°|\\degree(?![a-zA-Z])/g, "\\text{deg}")
    .trim()
}

class Unreadable extends Error {}

/** Reads a decimal, with a repeating part in brackets. */
const numberOf = (text: string): number => {
  const repeating = /^([-+]?)(\d*)\.(\d*)\((\d+)\)(e[-+]?\d+)?$/i.exec(text)
  if (repeating === null) {
    const value = Number(text.replace(/n$/, ""))
    if (Number.isNaN(value)) throw new Unreadable(text)
    return value
  }
  const [, sign, whole, fixed, period, exponent] = repeating as unknown as string[]
  const value =
    Number(`${whole === "" ? "0" : whole}.${fixed}`) + Number(period) / (10 ** period!.length - 1) / 10 ** fixed!.length
  return (sign === "-" ? -1 : 1) * value * Number(`1${exponent ?? ""}`)
}

/** MathJSON as nodes; anything the parser marked as an error makes the answer unreadable. */
const nodeOf = (json: MathJsonExpression, budget: { left: number }): Node => {
  if (--budget.left < 0) throw new Unreadable("too large")
  if (typeof json === "number") return json
  if (typeof json === "string") return json
  if (Array.isArray(json)) {
    const [head, ...args] = json as [unknown, ...MathJsonExpression[]]
    if (typeof head !== "string" || head === "Error" || head === "HorizontalSpacing") throw new Unreadable(String(head))
    return [head, ...args.map((arg) => nodeOf(arg, budget))]
  }
  if (typeof json !== "object" || json === null) throw new Unreadable(String(json))
  if ("num" in json) return numberOf(json.num)
  if ("sym" in json) return json.sym
  if ("str" in json) return `'${json.str}'`
  if ("fn" in json) return nodeOf(json.fn as MathJsonExpression, budget)
  throw new Unreadable(JSON.stringify(json))
}

const wordOf = (node: Node | undefined): string | undefined => {
  if (typeof node === "string" && node.startsWith("'")) return node.slice(1, -1).trim()
  if (isCall(node, "__unit__") && typeof node[1] === "string") return node[1].replace(/^'|'$/g, "").trim()
  return undefined
}

/** Takes a unit off the end of a product; words that are no unit ("apples") go too. */
const withoutUnit = (node: Node): { node: Node; unit: MathAnswer["unit"] } => {
  if (!isCall(node, "InvisibleOperator", "Multiply", "Tuple", "Sequence") || node.length < 3)
    return { node, unit: undefined }
  const last = node.at(-1) as Node
  const word = wordOf(last) ?? (isCall(last, "Power") ? wordOf(last[1]) : undefined)
  if (word === undefined) return { node, unit: undefined }
  const rest = node.slice(1, -1) as Node[]
  const power = isCall(last, "Power") && typeof last[2] === "number" ? last[2] : 1
  const known = unitOf(word)
  const kept: Node = rest.length === 1 ? rest[0]! : ([node[0], ...rest] as unknown as Node)
  return {
    node: kept,
    unit: known === undefined ? undefined : { kind: `${known.kind}^${power}`, size: known.size ** power },
  }
}

/** Parses an answer; undefined where it is no mathematics that can be read. */
export const parseAnswer = async (text: string): Promise<MathAnswer | undefined> => {
  if (text.length > LONGEST) return undefined
  const latex = cleaned(text)
  if (latex === "") return undefined
  if (/^[-+]?\d+$/.test(latex))
    return { node: Number(latex), unit: undefined, integer: BigInt(latex), equation: undefined }
  // Letters without any operator are words: as a product of letters "listen" would be "silent".
  if (/^[a-zA-Z][a-zA-Z\s,.'-]{3,}$/.test(latex))
    return { node: `'${latex.replace(/\.$/, "")}'`, unit: undefined, integer: undefined, equation: undefined }
  if (!isTame(latex)) return undefined
  const parse = await loadParser()
  const percent = /^(.*\d)\s*\\%$/s.exec(latex)
  let json: MathJsonExpression | null
  try {
    json = parse(percent?.[1] ?? latex)
  } catch {
    // The parser gives up on some texts with an error of its own.
    return undefined
  }
  if (json === null) return undefined
  try {
    let node = nodeOf(json, { left: MOST_NODES })
    if (node === "Nothing") return undefined
    let equation: Call | undefined
    if (
      isCall(node, "Equal") &&
      node.length === 3 &&
      typeof node[1] === "string" &&
      /^[a-zA-Z](_\w+)?$/.test(node[1])
    ) {
      equation = node
      node = node[2]!
    }
    const bare = withoutUnit(node)
    return {
      node: bare.node,
      unit: percent === null ? bare.unit : { kind: "percent", size: 0.01 },
      integer: undefined,
      equation,
    }
  } catch (error) {
    if (error instanceof Unreadable || error instanceof RangeError) return undefined
    throw error
  }
}
