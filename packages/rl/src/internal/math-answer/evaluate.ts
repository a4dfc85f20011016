import type { Node } from "./parse.ts"

/** Values of symbols. */
export type Scope = ReadonlyMap<string, number>

const CONSTANTS: Readonly<Record<string, number>> = {
  Pi: Math.PI,
  ExponentialE: Math.E,
  e: Math.E,
  PositiveInfinity: Number.POSITIVE_INFINITY,
  NegativeInfinity: Number.NEGATIVE_INFINITY,
  GoldenRatio: (1 + Math.sqrt(5)) / 2,
}

const factorial = (n: number): number => {
  if (!Number.isInteger(n) || n < 0) return Number.NaN
  if (n > 170) return Number.POSITIVE_INFINITY
  let product = 1
  for (let k = 2; k <= n; k++) product *= k
  return product
}

const binomial = (n: number, k: number): number => {
  if (!Number.isInteger(n) || !Number.isInteger(k) || k < 0 || k > 1000) return Number.NaN
  let value = 1
  for (let i = 1; i <= k; i++) value = (value * (n - k + i)) / i
  return Math.round(value)
}

/** Real powers; an odd root of a negative number is the real one. */
const power = (base: number, exponent: number): number => {
  if (base >= 0 || Number.isInteger(exponent)) return base ** exponent
  const root = 1 / exponent
  return Math.abs(root - Math.round(root)) < 1e-12 && Math.round(root) % 2 !== 0 ? -((-base) ** exponent) : Number.NaN
}

const one =
  (f: (x: number) => number) =>
  ([x]: readonly number[]): number =>
    f(x!)

const FUNCTIONS: Readonly<Record<string, (args: readonly number[]) => number>> = {
  Add: (xs) => xs.reduce((a, b) => a + b, 0),
  Subtract: (xs) => (xs.length === 1 ? -xs[0]! : xs[0]! - xs[1]!),
  Negate: one((x) => -x),
  Multiply: (xs) => xs.reduce((a, b) => a * b, 1),
  InvisibleOperator: (xs) => xs.reduce((a, b) => a * b, 1),
  Divide: ([a, b]) => a! / b!,
  Rational: ([a, b]) => a! / b!,
  Power: ([a, b]) => power(a!, b!),
  Square: one((x) => x * x),
  Sqrt: one(Math.sqrt),
  Root: ([a, n]) => power(a!, 1 / n!),
  Abs: one(Math.abs),
  Exp: one(Math.exp),
  Ln: ([x, base]) => (base === undefined ? Math.log(x!) : Math.log(x!) / Math.log(base)),
  Log: ([x, base]) => (base === undefined ? Math.log10(x!) : Math.log(x!) / Math.log(base)),
  Lb: one(Math.log2),
  Sin: one(Math.sin),
  Cos: one(Math.cos),
  Tan: one(Math.tan),
  Cot: one((x) => 1 / Math.tan(x)),
  Sec: one((x) => 1 / Math.cos(x)),
  Csc: one((x) => 1 / Math.sin(x)),
  Arcsin: one(Math.asin),
  Arccos: one(Math.acos),
  Arctan: one(Math.atan),
  Sinh: one(Math.sinh),
  Cosh: one(Math.cosh),
  Tanh: one(Math.tanh),
  Floor: one(Math.floor),
  Ceil: one(Math.ceil),
  Factorial: one(factorial),
  Binomial: ([n, k]) => binomial(n!, k!),
  Choose: ([n, k]) => binomial(n!, k!),
  Degrees: one((x) => (x * Math.PI) / 180),
  Delimiter: one((x) => x),
  Min: (xs) => Math.min(...xs),
  Max: (xs) => Math.max(...xs),
}

/**
 * The value of an expression in doubles; NaN where it has none or holds something unknown. Never loops for longer than the expression is, whatever numbers stand in it.
 */
export const evaluate = (node: Node, scope: Scope): number => {
  if (typeof node === "number") return node
  if (typeof node === "string") return scope.get(node) ?? CONSTANTS[node] ?? Number.NaN
  const [head, args] = [String(node[0]), node.slice(1)]
  const f = Object.hasOwn(FUNCTIONS, head) ? FUNCTIONS[head] : undefined
  if (f === undefined) return Number.NaN
  // A bracket with its kind: the text of the kind is no value.
  const values = (head === "Delimiter" ? args.slice(0, 1) : args).map((arg) => evaluate(arg, scope))
  return values.length === 0 ? Number.NaN : f(values)
}

/** Symbols of an expression that are no constants. */
export const symbolsOf = (node: Node, into: Set<string> = new Set()): Set<string> => {
  if (typeof node === "string") {
    if (!node.startsWith("'") && !Object.hasOwn(CONSTANTS, node)) into.add(node)
  } else if (typeof node !== "number") for (const arg of node.slice(1)) symbolsOf(arg, into)
  return into
}
