/**
 * The keys of the outermost object of a JSON text, repeats included: `JSON.parse` keeps the last of two equal keys silently.
 * The text must already have parsed.
 */
export const topLevelKeys = (text: string): string[] => {
  const keys: string[] = []
  let depth = 0
  let expectKey = false
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (c === 0x22) {
      const start = i
      for (i++; text.charCodeAt(i) !== 0x22; i++) if (text.charCodeAt(i) === 0x5c) i++
      if (depth === 1 && expectKey) {
        keys.push(JSON.parse(text.slice(start, i + 1)) as string)
        expectKey = false
      }
    } else if (c === 0x7b || c === 0x5b) {
      depth++
      if (depth === 1) expectKey = true
    } else if (c === 0x7d || c === 0x5d) depth--
    else if (c === 0x2c && depth === 1) expectKey = true
  }
  return keys
}
