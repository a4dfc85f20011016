import * as Result from "effect/Result"
import * as SchemaAST from "effect/SchemaAST"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import type { ConfigSchema } from "./config-fields.ts"
import { expectedText } from "./config-describe.ts"
import { SlothError } from "./errors.ts"
import { showValue, suggest } from "./internal/suggest.ts"

/** One wrong field of a configuration. */
export interface ConfigIssue {
  /** Keys and list positions from the root. */
  readonly path: readonly (string | number)[]
  /** The path as shown: `lora.rank`, `stop[0]`, `--learning-rate`. */
  readonly key: string
  readonly problem: "unknown" | "missing" | "type" | "range" | "rule"
  /** What a value must be, in words, with unit. */
  readonly expected: string | undefined
  readonly received: unknown
  /** The key that was probably meant. */
  readonly suggestion?: string
  /** One line for a person. */
  readonly message: string
}

/** The error of a configuration: every wrong field in one message and in `fields.issues`. */
export const configError = (name: string, issues: readonly ConfigIssue[], next?: string): SlothError => {
  const lines = issues.map((issue) => `  ${issue.message}`).join("\n")
  return new SlothError("SLOTH_CONFIG_INVALID", {
    what: `${name}: ${issues.length === 1 ? "one field is" : `${issues.length} fields are`} wrong.\n${lines}${next === undefined ? "" : "\n"}`,
    ...(next === undefined ? {} : { next }),
    fields: { name, issues },
  })
}

const keyText = (path: readonly (string | number)[]): string => {
  let text = ""
  for (const part of path) text += typeof part === "number" ? `[${part}]` : text === "" ? part : `.${part}`
  return text
}

/** Absent and `undefined` mean the same in a configuration object. */
const withoutUndefined = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(withoutUndefined)
  if (typeof value !== "object" || value === null) return value
  const prototype = Object.getPrototypeOf(value) as unknown
  if (prototype !== Object.prototype && prototype !== null) return value
  const out: Record<string, unknown> = {}
  for (const [key, inner] of Object.entries(value)) {
    if (inner !== undefined) {
      Object.defineProperty(out, key, {
        value: withoutUndefined(inner),
        enumerable: true,
        writable: true,
        configurable: true,
      })
    }
  }
  return out
}

/** The schema node of a key inside a node; undefined where the key is not declared. */
const childOf = (ast: SchemaAST.AST, key: PropertyKey): SchemaAST.AST | undefined => {
  if (SchemaAST.isSuspend(ast)) return childOf(ast.thunk(), key)
  if (SchemaAST.isObjects(ast)) {
    return ast.propertySignatures.find((p) => p.name === key)?.type ?? ast.indexSignatures[0]?.type
  }
  if (SchemaAST.isArrays(ast)) return ast.elements[Number(key)] ?? ast.rest[0]
  if (SchemaAST.isUnion(ast)) {
    for (const option of ast.types) {
      const found = childOf(option, key)
      if (found !== undefined) return found
    }
  }
  return undefined
}

const nodeAt = (root: SchemaAST.AST, path: readonly PropertyKey[]): SchemaAST.AST | undefined =>
  path.reduce<SchemaAST.AST | undefined>((node, key) => (node === undefined ? undefined : childOf(node, key)), root)

const wordsOf = (ast: SchemaAST.AST | undefined): string | undefined => {
  if (ast === undefined) return undefined
  try {
    return expectedText(ast)
  } catch {
    // a node without a JSON form (a class instance, say) has no words; its own issue text is used instead
    return undefined
  }
}

const leafText = (issue: SchemaIssue.Issue): string => {
  const format = SchemaIssue.makeFormatterDefault()
  return (format(issue).split("\n")[0] ?? "").replace(/^Expected /, "expected ")
}

const isBuiltIn = (filter: SchemaAST.Filter<unknown> | SchemaAST.FilterGroup<unknown>): boolean => {
  const id = (filter.annotations?.["representation"] as { readonly id?: unknown } | undefined)?.id
  const message = filter.annotations?.["message"]
  return typeof id === "string" && id.startsWith("effect/schema/") && message === undefined
}

interface Found {
  readonly path: readonly (string | number)[]
  readonly issue: ConfigIssue
}

const collect = (root: SchemaAST.AST, issue: SchemaIssue.Issue, input: unknown): ConfigIssue[] => {
  const found: Found[] = []

  const valueAt = (path: readonly (string | number)[]): unknown =>
    path.reduce<unknown>(
      (value, key) =>
        typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined,
      input,
    )

  const add = (path: readonly (string | number)[], part: Omit<ConfigIssue, "path" | "key">): void => {
    found.push({ path, issue: { path, key: keyText(path), ...part } })
  }

  const wrong = (path: readonly (string | number)[], problem: "type" | "range", fallback: SchemaIssue.Issue): void => {
    const expected = wordsOf(nodeAt(root, path))
    const received = valueAt(path)
    const key = keyText(path)
    const text =
      expected === undefined
        ? leafText(fallback)
        : `expected ${expected}, received ${showValue(received, String(path.at(-1) ?? ""))}`
    add(path, { problem, expected, received, message: key === "" ? text : `${key}: ${text}` })
  }

  const unknownKey = (path: readonly (string | number)[]): void => {
    const parent = path.slice(0, -1)
    const typed = String(path.at(-1))
    const node = nodeAt(root, parent)
    const objects =
      node === undefined
        ? []
        : SchemaAST.isObjects(node)
          ? [node]
          : SchemaAST.isUnion(node)
            ? node.types.filter(SchemaAST.isObjects)
            : []
    const candidates = objects.flatMap((object) =>
      object.propertySignatures.map((property) => ({
        name: String(property.name),
        aka: (SchemaAST.resolve(property.type) as { aka?: readonly string[] } | undefined)?.aka,
      })),
    )
    const near = suggest(typed, candidates)
    const names = candidates.map((candidate) => candidate.name)
    const help =
      near !== undefined
        ? `did you mean "${near}"?`
        : names.length === 0
          ? "no keys are allowed here"
          : names.length > 40
            ? `${names.length} keys are known here, none like it`
            : `known keys: ${names.join(", ")}`
    add(path, {
      problem: "unknown",
      expected: undefined,
      received: valueAt(path),
      ...(near === undefined ? {} : { suggestion: near }),
      message: `${keyText(path)}: unknown key; ${help}`,
    })
  }

  const missing = (path: readonly (string | number)[]): void => {
    const node = nodeAt(root, path)
    const expected = wordsOf(node)
    const description = node === undefined ? undefined : SchemaAST.resolveDescription(node)
    const about = description === undefined ? "" : ` (${description.replace(/\.$/, "")})`
    add(path, {
      problem: "missing",
      expected,
      received: undefined,
      message: `${keyText(path)}: missing; expected ${expected ?? "a value"}${about}`,
    })
  }

  const walk = (current: SchemaIssue.Issue, path: readonly (string | number)[]): void => {
    switch (current._tag) {
      case "Pointer":
        return walk(current.issue, [...path, ...current.path.map((k) => (typeof k === "number" ? k : String(k)))])
      case "Composite":
        for (const inner of current.issues) walk(inner, path)
        return
      case "Encoding":
        return walk(current.issue, path)
      case "MissingKey":
        return missing(path)
      case "UnexpectedKey":
        return unknownKey(path)
      case "Filter": {
        if (isBuiltIn(current.filter)) return wrong(path, "range", current)
        const own = leafText(current)
        const key = keyText(path)
        add(path, {
          problem: "rule",
          expected: current.filter.annotations?.["expected"] as string | undefined,
          received: valueAt(path),
          message: key === "" ? own : `${key}: ${own}`,
        })
        return
      }
      case "AnyOf": {
        // one structured alternative that was nearly met says more than the list of alternatives
        const inner = current.issues.length === 1 ? current.issues[0] : undefined
        if (inner?._tag === "Composite" && !SchemaAST.isNumber(inner.ast) && !SchemaAST.isString(inner.ast)) {
          return walk(inner, path)
        }
        return wrong(path, "type", current)
      }
      default:
        return wrong(path, "type", current)
    }
  }
  walk(issue, [])

  // two failed checks of one number (not an integer, out of range) are one wrong field with one expectation
  const seen = new Set<string>()
  return found
    .map((entry) => entry.issue)
    .filter((entry) => !seen.has(entry.message) && seen.add(entry.message) !== undefined)
}

/**
 * Decodes plain data to a configuration; defaults are filled in and every wrong field, unknown keys included, is reported at once.
 * Keys whose value is `undefined` count as absent. Errors: SLOTH_CONFIG_INVALID with `fields.issues` ({@link ConfigIssue}).
 */
export const decodeConfig = <S extends ConfigSchema>(
  schema: S,
  input: unknown,
  options: {
    /** What is being configured, the start of the message: "train", "plugin @acme/foo". */
    readonly name: string
    /** One sentence on where to read about the keys. */
    readonly help?: string
  },
): S["Type"] => {
  const plain = withoutUndefined(input)
  const result = SchemaParser.decodeUnknownResult(schema, {
    errors: "all",
    onExcessProperty: "error",
    reportInput: false,
  })(plain)
  if (Result.isSuccess(result)) return result.success
  throw configError(options.name, collect(schema.ast, result.failure, plain), options.help)
}
