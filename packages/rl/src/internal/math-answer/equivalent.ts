import { evaluate, symbolsOf, type Scope } from "./evaluate.ts"
import { isCall, type Call, type MathAnswer, type Node } from "./parse.ts"

/** How answers are compared. */
export interface EquivalenceOptions {
  /** Largest relative difference of numbers that are not both whole. */
  readonly tolerance: number
}

const argsOf = (node: Call): Node[] => node.slice(1) as Node[]

const close = (a: number, b: number, tolerance: number): boolean => {
  if (a === b) return true
  if (!Number.isFinite(a) || !Number.isFinite(b)) return false
  if (Number.isInteger(a) && Number.isInteger(b)) return false
  return Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(a), Math.abs(b))
}

/** Points at which expressions in the same symbols are compared: fixed, irregular, of both signs. */
const points = (symbols: ReadonlySet<string>): Scope[] => {
  const names = [...symbols].sort()
  return Array.from({ length: 12 }, (_, p) => {
    const sign = p < 6 ? 1 : -1
    return new Map(
      names.map((name, k) => [
        name,
        (k % 2 === 0 ? sign : 1) * (0.37 + ((p * 0.7548776662 + k * 0.569840291) % 1) * 2.3),
      ]),
    )
  })
}

const FEWEST_POINTS = 3

/** True where two expressions agree at all points at which they have a value. */
const sameValue = (a: Node, b: Node, { tolerance }: EquivalenceOptions): boolean => {
  const symbols = symbolsOf(a)
  const others = symbolsOf(b)
  if (symbols.size === 0 && others.size === 0) return close(evaluate(a, new Map()), evaluate(b, new Map()), tolerance)
  let agreed = 0
  for (const scope of points(new Set([...symbols, ...others]))) {
    const [x, y] = [evaluate(a, scope), evaluate(b, scope)]
    if (!Number.isFinite(x) && !Number.isFinite(y)) continue
    if (!Number.isFinite(x) || !Number.isFinite(y)) return false
    // Whole values at odd points would be chance; only the relative difference counts here.
    if (Math.abs(x - y) > Math.max(tolerance, 1e-9) * Math.max(1, Math.abs(x), Math.abs(y))) return false
    agreed++
  }
  return agreed >= FEWEST_POINTS
}

/** Equations are the same when the difference of their sides is, up to a factor that is not 0. */
const sameEquation = (a: Call, b: Call, options: EquivalenceOptions): boolean => {
  const [left, right]: [Node, Node] = [
    ["Subtract", a[1]!, a[2]!],
    ["Subtract", b[1]!, b[2]!],
  ]
  let factor: number | undefined
  let agreed = 0
  for (const scope of points(new Set([...symbolsOf(left), ...symbolsOf(right)]))) {
    const ratio = evaluate(left, scope) / evaluate(right, scope)
    if (!Number.isFinite(ratio) || ratio === 0) continue
    factor ??= ratio
    if (Math.abs(ratio - factor) > Math.max(options.tolerance, 1e-9) * Math.abs(factor)) return false
    agreed++
  }
  return agreed >= FEWEST_POINTS
}

type Form =
  | { readonly kind: "value"; readonly node: Node }
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "ordered" | "unordered"; readonly items: readonly Node[] }
  | { readonly kind: "interval"; readonly ends: readonly [Node, Node]; readonly open: readonly [boolean, boolean] }
  | { readonly kind: "equation"; readonly call: Call }
  | { readonly kind: "inequality"; readonly op: string; readonly sides: readonly [Node, Node] }

const flipped: Readonly<Record<string, string>> = { Greater: "Less", GreaterEqual: "LessEqual" }
const strip = (node: Node): Node =>
  isCall(node, "Delimiter") && node.length === 2 && !isCall(node[1], "Sequence") ? strip(node[1]!) : node
const endOf = (node: Node): readonly [Node, boolean] => (isCall(node, "Open") ? [node[1]!, true] : [node, false])

/** What an answer is: a number or expression, a list, a set, an interval, an equation, words. */
const formOf = (given: Node): Form => {
  const node = strip(given)
  if (typeof node === "string" && node.startsWith("'")) return { kind: "text", text: node.slice(1, -1) }
  if (isCall(node, "Delimiter")) {
    const items = isCall(node[1], "Sequence") ? argsOf(node[1]) : [node[1]!]
    const brackets = typeof node[2] === "string" ? node[2].replace(/^'|'$/g, "") : ","
    return { kind: /[([]/.test(brackets[0] ?? ",") || node.length === 2 ? "ordered" : "unordered", items }
  }
  if (isCall(node, "Tuple", "List", "Pair", "Triple")) return { kind: "ordered", items: argsOf(node) }
  if (isCall(node, "Set", "Sequence", "Union")) return { kind: "unordered", items: argsOf(node) }
  if (isCall(node, "Matrix"))
    return { kind: "ordered", items: isCall(node[1], "List") ? argsOf(node[1]) : argsOf(node) }
  if (isCall(node, "Measurement")) {
    const [center, spread] = [node[1]!, node[2]!]
    return {
      kind: "unordered",
      items: [
        ["Add", center, spread],
        ["Subtract", center, spread],
      ],
    }
  }
  if (isCall(node, "Interval") && node.length === 3) {
    const [[low, lowOpen], [high, highOpen]] = [endOf(node[1]!), endOf(node[2]!)]
    return { kind: "interval", ends: [low, high], open: [lowOpen, highOpen] }
  }
  if (isCall(node, "Equal") && node.length === 3) return { kind: "equation", call: node }
  if (isCall(node, "Less", "LessEqual", "Greater", "GreaterEqual") && node.length === 3) {
    const flip = flipped[node[0]]
    return flip === undefined
      ? { kind: "inequality", op: node[0], sides: [node[1]!, node[2]!] }
      : { kind: "inequality", op: flip, sides: [node[2]!, node[1]!] }
  }
  return { kind: "value", node }
}

const same = (a: Node, b: Node, options: EquivalenceOptions): boolean => {
  const [x, y] = [formOf(a), formOf(b)]
  if (x.kind === "value" && y.kind === "value")
    return sameValue(x.node, y.node, options) || (typeof x.node === "string" && x.node === y.node)
  if (x.kind === "text" && y.kind === "text") return x.text.trim().toLowerCase() === y.text.trim().toLowerCase()
  if (x.kind === "ordered" && y.kind === "ordered")
    return x.items.length === y.items.length && x.items.every((item, i) => same(item, y.items[i]!, options))
  if (x.kind === "unordered" && y.kind === "unordered") {
    if (x.items.length !== y.items.length) return false
    const left = [...y.items]
    return x.items.every((item) => {
      const at = left.findIndex((other) => same(item, other, options))
      if (at >= 0) left.splice(at, 1)
      return at >= 0
    })
  }
  if (x.kind === "interval" && y.kind === "interval")
    return (
      x.open[0] === y.open[0] &&
      x.open[1] === y.open[1] &&
      same(x.ends[0], y.ends[0], options) &&
      same(x.ends[1], y.ends[1], options)
    )
  if (x.kind === "equation" && y.kind === "equation") return sameEquation(x.call, y.call, options)
  if (x.kind === "inequality" && y.kind === "inequality")
    return x.op === y.op && same(x.sides[0], y.sides[0], options) && same(x.sides[1], y.sides[1], options)
  return false
}

/** True where an answer says something that can be compared: no part of it is unknown to the evaluator. */
export const isComparable = ({ node }: MathAnswer): boolean => {
  const form = formOf(node)
  return form.kind !== "value" || same(form.node, form.node, { tolerance: 0 })
}

/** True where two answers are the same mathematics. A unit is compared where both have one, and ignored where only one has. */
export const isEquivalent = (a: MathAnswer, b: MathAnswer, options: EquivalenceOptions): boolean => {
  if (a.integer !== undefined && b.integer !== undefined) return a.integer === b.integer
  if (a.equation !== undefined && b.equation !== undefined && a.equation[1] !== b.equation[1]) return false
  for (const [x, y] of [
    [a, b],
    [b, a],
  ] as const)
    if (x.equation !== undefined && isCall(y.node, "Equal")) return same(x.equation, y.node, options)
  if (a.unit !== undefined && b.unit !== undefined) {
    if (a.unit.kind !== b.unit.kind) return false
    return a.unit.size === b.unit.size
      ? same(a.node, b.node, options)
      : same(["Multiply", a.node, a.unit.size], ["Multiply", b.node, b.unit.size], {
          tolerance: Math.max(1e-9, options.tolerance),
        })
  }
  if (same(a.node, b.node, options)) return true
  // 50 % is 0.5 as well as "50" where percent were asked for; an angle may be in degrees or radians.
  const unit = a.unit ?? b.unit
  const [measured, plain] = a.unit === undefined ? [b.node, a.node] : [a.node, b.node]
  if (unit?.kind === "percent") return same(["Multiply", measured, 0.01], plain, options)
  if (unit?.kind === "angle^1") return same(["Degrees", measured], plain, options)
  return false
}
