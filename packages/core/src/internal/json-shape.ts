/**
 * The part of JSON Schema that configuration needs, read from what Effect emits for a schema: what a value must be, in words,
 * and how the text of a command-line flag becomes such a value.
 */

/** A JSON Schema node as Effect emits it. */
export interface JsonShape {
  readonly type?: string | readonly string[]
  readonly enum?: readonly (string | number | boolean | null)[]
  readonly const?: string | number | boolean | null
  readonly anyOf?: readonly JsonShape[]
  readonly oneOf?: readonly JsonShape[]
  readonly allOf?: readonly JsonShape[]
  readonly items?: JsonShape | false
  readonly prefixItems?: readonly JsonShape[]
  readonly properties?: Readonly<Record<string, JsonShape>>
  readonly required?: readonly string[]
  readonly additionalProperties?: boolean | JsonShape
  readonly minimum?: number
  readonly maximum?: number
  readonly exclusiveMinimum?: number
  readonly exclusiveMaximum?: number
  readonly description?: string
  readonly default?: unknown
  readonly $ref?: string
}

/** A node with the definitions that its references point into. */
export interface JsonDocument {
  readonly root: JsonShape
  readonly definitions: Readonly<Record<string, JsonShape>>
}

/** Follows a reference and folds `allOf` into one node. */
export const resolveShape = (shape: JsonShape, definitions: JsonDocument["definitions"], depth = 0): JsonShape => {
  if (depth > 32) return {}
  if (shape.$ref !== undefined) {
    const name = shape.$ref.split("/").at(-1) ?? ""
    const target = definitions[name] ?? definitions[decodeURIComponent(name)]
    return target === undefined ? {} : resolveShape(target, definitions, depth + 1)
  }
  if (shape.allOf === undefined) return shape
  const { allOf, ...own } = shape
  return allOf.reduce<JsonShape>(
    (merged, part) => ({ ...merged, ...resolveShape(part, definitions, depth + 1) }),
    own as JsonShape,
  )
}

/** The alternatives of a node: itself when it is not a union. */
export const alternatives = (shape: JsonShape): readonly JsonShape[] => shape.anyOf ?? shape.oneOf ?? [shape]

const safe = (bound: number | undefined): number | undefined =>
  bound === undefined || Math.abs(bound) === Number.MAX_SAFE_INTEGER ? undefined : bound

/** Bounds of a numeric node; the limits of exact integers are not reported as limits. */
export const boundsOf = (shape: JsonShape): { min?: number; max?: number; above?: number; below?: number } => {
  const min = safe(shape.minimum)
  const max = safe(shape.maximum)
  return {
    ...(min === undefined ? {} : { min }),
    ...(max === undefined ? {} : { max }),
    ...(shape.exclusiveMinimum === undefined ? {} : { above: shape.exclusiveMinimum }),
    ...(shape.exclusiveMaximum === undefined ? {} : { below: shape.exclusiveMaximum }),
  }
}

const rangeText = (shape: JsonShape): string => {
  const { min, max, above, below } = boundsOf(shape)
  if (min !== undefined && max !== undefined) return ` between ${min} and ${max}`
  const parts: string[] = []
  if (min !== undefined) parts.push(`at least ${min}`)
  if (above !== undefined) parts.push(`greater than ${above}`)
  if (max !== undefined) parts.push(`at most ${max}`)
  if (below !== undefined) parts.push(`less than ${below}`)
  return parts.length === 0 ? "" : ` ${parts.join(" and ")}`
}

/** The fixed values of a node, when it is a choice. */
export const choicesOf = (shape: JsonShape): readonly (string | number | boolean | null)[] | undefined =>
  shape.enum ?? (shape.const === undefined ? undefined : [shape.const])

/** What a value of this node must be, in words: "an integer between 1 and 64". */
export const shapeText = (shape: JsonShape, definitions: JsonDocument["definitions"], depth = 0): string => {
  if (depth > 8) return "a value"
  const node = resolveShape(shape, definitions)
  const options = alternatives(node)
  if (options.length > 1 || options[0] !== node) {
    return [...new Set(options.map((option) => shapeText(option, definitions, depth + 1)))].join(" or ")
  }
  const choices = choicesOf(node)
  if (choices !== undefined) {
    const shown = choices.map((choice) => JSON.stringify(choice))
    return shown.length === 1 ? (shown[0] ?? "") : `one of ${shown.join(", ")}`
  }
  switch (node.type) {
    case "integer":
      return `an integer${rangeText(node)}`
    case "number":
      return `a number${rangeText(node)}`
    case "boolean":
      return "true or false"
    case "string":
      return "text"
    case "null":
      return "null"
    case "array":
      return node.items === undefined || node.items === false
        ? "a list"
        : `a list, each ${shapeText(node.items, definitions, depth + 1)}`
    case "object":
      return "an object"
    default:
      return "a value"
  }
}

/** Result of reading flag text. */
export type Parsed = { readonly ok: true; readonly value: unknown } | { readonly ok: false }

const fail: Parsed = { ok: false }
const ok = (value: unknown): Parsed => ({ ok: true, value })
const trueWords = new Set(["true", "yes", "on", "1"])
const falseWords = new Set(["false", "no", "off", "0"])

const parseJson = (text: string): Parsed => {
  try {
    return ok(JSON.parse(text))
  } catch {
    return fail
  }
}

const parseNumber = (text: string): Parsed => {
  const plain = text.trim().replace(/(?<=\d)_(?=\d)/g, "")
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(plain)) return fail
  return ok(Number(plain))
}

const parseList = (text: string, items: JsonShape, definitions: JsonDocument["definitions"]): Parsed => {
  if (text.trim().startsWith("[")) return parseJson(text)
  if (text.trim() === "") return ok([])
  const values: unknown[] = []
  for (const part of text.split(",")) {
    const value = parseText(part.trim(), items, definitions)
    if (!value.ok) return fail
    values.push(value.value)
  }
  return ok(values)
}

const parseRecord = (text: string, shape: JsonShape, definitions: JsonDocument["definitions"]): Parsed => {
  if (text.trim().startsWith("{")) return parseJson(text)
  const entries: Record<string, unknown> = {}
  for (const part of text.split(",")) {
    const split = part.indexOf("=")
    if (split <= 0) return fail
    const key = part.slice(0, split).trim()
    const inner =
      shape.properties?.[key] ?? (typeof shape.additionalProperties === "object" ? shape.additionalProperties : {})
    const value = parseText(part.slice(split + 1).trim(), inner, definitions)
    if (!value.ok) return fail
    entries[key] = value.value
  }
  return ok(entries)
}

/** Reads order: the alternative that says most about its text first, plain text last. */
const rank = (shape: JsonShape): number => {
  if (choicesOf(shape) !== undefined) return 0
  switch (shape.type) {
    case "null":
      return 1
    case "boolean":
      return 2
    case "integer":
    case "number":
      return 3
    case "object":
      return 4
    case "array":
      return 5
    default:
      return 6
  }
}

/** The value that `text` means where a value of this node is expected; ranges are left to the schema. */
export const parseText = (text: string, shape: JsonShape, definitions: JsonDocument["definitions"]): Parsed => {
  const node = resolveShape(shape, definitions)
  const options = alternatives(node)
  if (options.length > 1 || options[0] !== node) {
    const ordered = options.map((option) => resolveShape(option, definitions)).sort((a, b) => rank(a) - rank(b))
    const hasText = ordered.some((option) => option.type === "string" && choicesOf(option) === undefined)
    const listLike = text.includes(",") || text.trim().startsWith("[")
    for (const option of ordered) {
      // one plain word is text, not a list of one, where both are allowed
      if (option.type === "array" && hasText && !listLike) continue
      const parsed = parseText(text, option, definitions)
      if (parsed.ok) return parsed
    }
    return fail
  }
  const choices = choicesOf(node)
  if (choices !== undefined) {
    const found = choices.find((choice) => String(choice) === text)
    return found === undefined ? fail : ok(found)
  }
  switch (node.type) {
    case "integer":
    case "number":
      return parseNumber(text)
    case "boolean": {
      const word = text.trim().toLowerCase()
      return trueWords.has(word) ? ok(true) : falseWords.has(word) ? ok(false) : fail
    }
    case "null":
      return text === "null" || text === "none" ? ok(null) : fail
    case "string":
      return ok(text)
    case "array":
      return parseList(text, typeof node.items === "object" ? node.items : {}, definitions)
    case "object":
      return parseRecord(text, node, definitions)
    default: {
      const parsed = parseJson(text)
      return parsed.ok ? parsed : ok(text)
    }
  }
}
