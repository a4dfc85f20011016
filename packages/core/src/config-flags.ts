import type { ConfigSchema } from "./config-fields.ts"
import { camelToKebab, flagToKey, keyToFlag } from "./config-keys.ts"
import { describeConfig, fieldShape } from "./config-describe.ts"
import type { FieldDescription } from "./config-describe.ts"
import type { ConfigIssue } from "./config-decode.ts"
import { configError } from "./config-decode.ts"
import { showValue, suggest } from "./internal/suggest.ts"
import { parseText } from "./internal/json-shape.ts"

/** What a command line gives for a flag: text, or true when nothing follows it, or several texts when it is repeated. */
export type FlagValue = string | boolean | readonly string[]

type Read = { readonly value: unknown } | { readonly issue: ConfigIssue }

const readField = (schema: ConfigSchema, described: FieldDescription, given: FlagValue): Read => {
  const wrong = (received: unknown): Read => ({
    issue: {
      path: described.path,
      key: described.flag,
      problem: "type",
      expected: described.expected,
      received,
      message: `${described.flag}: expected ${described.expected}, received ${showValue(received, described.key)}`,
    },
  })
  const shape = fieldShape(schema, described.path)
  if (shape === undefined) return wrong(given)
  if (typeof given === "boolean") {
    const text = parseText(String(given), shape.root, shape.definitions)
    // a bare `--name` on a field of text is a value forgotten, not the text "true"
    return text.ok && typeof text.value === "boolean"
      ? { value: text.value }
      : {
          issue: {
            path: described.path,
            key: described.flag,
            problem: "missing",
            expected: described.expected,
            received: undefined,
            message: `${described.flag}: a value is missing; expected ${described.expected}`,
          },
        }
  }
  // a repeated flag is a list; each part is read by itself, so a comma inside a part still separates
  const texts = typeof given === "string" ? [given] : given
  if (texts.length === 1) {
    const parsed = parseText(texts[0] ?? "", shape.root, shape.definitions)
    return parsed.ok ? { value: parsed.value } : wrong(texts[0])
  }
  const values: unknown[] = []
  for (const text of texts) {
    const parsed = parseText(text, shape.root, shape.definitions)
    if (!parsed.ok) return wrong(text)
    if (Array.isArray(parsed.value)) values.push(...(parsed.value as unknown[]))
    else values.push(parsed.value)
  }
  return { value: values }
}

const setAt = (target: Record<string, unknown>, path: readonly string[], value: unknown): void => {
  let node = target
  for (const key of path.slice(0, -1)) {
    const next = node[key]
    if (typeof next === "object" && next !== null) node = next as Record<string, unknown>
    else {
      const made: Record<string, unknown> = {}
      node[key] = made
      node = made
    }
  }
  node[path.at(-1) ?? ""] = value
}

/**
 * Reads one flag's text as the type that the schema wants at `key` (dotted, camelCase); ranges are checked by `decodeConfig`.
 * Errors: SLOTH_CONFIG_INVALID for text that cannot be such a value and for a key that does not exist.
 */
export const parseFlag = (schema: ConfigSchema, key: string, given: FlagValue, name = "command line"): unknown => {
  const result = parseFlags(schema, { [key]: given }, { name })
  let node: unknown = result
  for (const part of flagToKey(key).split(".")) node = (node as Record<string, unknown>)[part]
  return node
}

/**
 * Turns flags (kebab-case or camelCase, dotted for nested keys) into the input of `decodeConfig`; all wrong flags are reported at once.
 * Errors: SLOTH_CONFIG_INVALID.
 */
export const parseFlags = (
  schema: ConfigSchema,
  flags: Readonly<Record<string, FlagValue | undefined>>,
  options: { readonly name: string },
): Record<string, unknown> => {
  const fields = describeConfig(schema)
  const out: Record<string, unknown> = {}
  const issues: ConfigIssue[] = []
  for (const [flag, given] of Object.entries(flags)) {
    if (given === undefined) continue
    const key = flagToKey(flag)
    const positive =
      key.startsWith("no") && /^no[A-Z]/.test(key) ? `${key.charAt(2).toLowerCase()}${key.slice(3)}` : key
    const described = fields.find((candidate) => candidate.key === key)
    const negated = described === undefined && given === true && positive !== key
    const target = described ?? (negated ? fields.find((f) => f.key === positive && f.type === "boolean") : undefined)
    if (target === undefined) {
      const near = suggest(
        key,
        fields.map((f) => ({ name: f.key, aka: f.aka })),
      )
      const shown = `--${camelToKebab(key)}`
      issues.push({
        path: key.split("."),
        key: shown,
        problem: "unknown",
        expected: undefined,
        received: given,
        ...(near === undefined ? {} : { suggestion: keyToFlag(near) }),
        message: `${shown}: no such flag${near === undefined ? "" : `; did you mean ${keyToFlag(near)}?`}`,
      })
      continue
    }
    const read = readField(schema, target, negated ? false : given)
    if ("issue" in read) issues.push(read.issue)
    else setAt(out, target.path, read.value)
  }
  if (issues.length > 0) throw configError(options.name, issues)
  return out
}
