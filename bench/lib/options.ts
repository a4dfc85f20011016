/** True when this process was started with `--name`. */
export const flag = (name: string): boolean => process.argv.includes(`--${name}`)

/** Text option `--name value` of this process, or undefined. */
export const text = (name: string): string | undefined => {
  const at = process.argv.indexOf(`--${name}`)
  return at < 0 ? undefined : process.argv[at + 1]
}

/** Numeric option `--name value` of this process, or its default. */
export const number = (name: string, fallback: number): number => {
  const value = text(name)
  const n = value === undefined ? fallback : Number(value)
  if (!Number.isFinite(n)) {
    console.error(`--${name} takes a number, not ${value}`)
    process.exit(2)
  }
  return n
}

/** One of several words, or the first of them. */
export const choice = <const T extends string>(name: string, words: readonly [T, ...T[]]): T => {
  const value = text(name) ?? words[0]
  const found = words.find((w) => w === value)
  if (found === undefined) {
    console.error(`--${name} is one of ${words.join(", ")}, not ${value}`)
    process.exit(2)
  }
  return found
}

/** The options of this process as one would type them, without where its results go. */
export const typed = (): string =>
  process.argv
    .slice(2)
    .filter((word, i, all) => ![word, all[i - 1]].some((w) => w === "--json" || w === "--html"))
    .map((word) => (/^[\w./,=-]+$/.test(word) ? word : JSON.stringify(word)))
    .join(" ")
