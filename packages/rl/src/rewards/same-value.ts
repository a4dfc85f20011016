import type { SandboxValue } from "@sloth/sandbox"

/**
 * True if two values from a sandbox are the same: numbers that are no integers within a relative `tolerance`, texts and integers exactly, lists in order, records by
 * their keys in any order. A tuple is a list; true is not 1.
 */
export const sameValue = (a: SandboxValue, b: SandboxValue, tolerance = 1e-9): boolean => {
  if (typeof a === "number" && typeof b === "number")
    return (
      a === b ||
      (!(Number.isInteger(a) && Number.isInteger(b)) &&
        Math.abs(a - b) <= tolerance * Math.max(1, Math.abs(a), Math.abs(b)))
    )
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return a === b
  if (Array.isArray(a) || Array.isArray(b)) {
    if (!Array.isArray(a) || !Array.isArray(b) || a.length !== b.length) return false
    const [left, right]: readonly (readonly SandboxValue[])[] = [a, b]
    return left!.every((value, i) => sameValue(value, right![i]!, tolerance))
  }
  const left = a as Readonly<Record<string, SandboxValue>>
  const right = b as Readonly<Record<string, SandboxValue>>
  const keys = Object.keys(left)
  if (keys.length !== Object.keys(right).length) return false
  // The pairs of a map have no order.
  if (keys.length === 1 && keys[0] === "$map" && Array.isArray(left["$map"]) && Array.isArray(right["$map"])) {
    const pairs = (list: SandboxValue) =>
      (list as readonly SandboxValue[]).map((pair) => [JSON.stringify(pair), pair] as const).toSorted(byText)
    const [l, r] = [pairs(left["$map"]), pairs(right["$map"])]
    return l.length === r.length && l.every(([, pair], i) => sameValue(pair, r[i]![1], tolerance))
  }
  return keys.every((key) => Object.hasOwn(right, key) && sameValue(left[key]!, right[key]!, tolerance))
}

const byText = ([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number =>
  a < b ? -1 : a > b ? 1 : 0
