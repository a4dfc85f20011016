/** A list of a row, also one written as JSON text (tables have no other way to hold one); undefined for anything else. */
export const listValue = (value: unknown): readonly unknown[] | undefined => {
  if (Array.isArray(value)) return value
  if (typeof value !== "string" || !value.trimStart().startsWith("[")) return undefined
  try {
    const parsed: unknown = JSON.parse(value)
    return Array.isArray(parsed) ? parsed : undefined
  } catch {
    return undefined
  }
}
