/** Where a command writes: results to stdout, everything else to stderr, in colour and with moving lines only where a person looks. */
export interface Terminal {
  /** Width of lines, in columns. */
  readonly width: number
  /** True when stdout may be coloured. */
  readonly color: boolean
  /** True when stderr is a terminal that lines can be rewritten on. */
  readonly live: boolean
  readonly style: Style
  /** Style for stderr. */
  readonly errorStyle: Style
  /** A line of a result on stdout. */
  print(line?: string): void
  /** Text of a result on stdout, as it is. */
  write(text: string): void
  /** A line for people on stderr. */
  say(line?: string): void
  /** Text on stderr, as it is. */
  sayRaw(text: string): void
}

/** Marks text; every function returns it unchanged where there is no colour. */
export interface Style {
  readonly bold: (text: string) => string
  readonly dim: (text: string) => string
  readonly red: (text: string) => string
  readonly green: (text: string) => string
  readonly yellow: (text: string) => string
  readonly cyan: (text: string) => string
  /** Text on a coloured ground, for scored tokens. */
  readonly mark: (text: string) => string
}

const wrap = (open: string, close: string, on: boolean) => (text: string) =>
  on && text !== "" ? `\u001b[${open}m${text}\u001b[${close}m` : text

/** The marks for a stream with or without colour. */
export const styleOf = (on: boolean): Style => ({
  bold: wrap("1", "22", on),
  dim: wrap("2", "22", on),
  red: wrap("31", "39", on),
  green: wrap("32", "39", on),
  yellow: wrap("33", "39", on),
  cyan: wrap("36", "39", on),
  mark: wrap("30;42", "39;49", on),
})

/** Whether a stream gets colour: NO_COLOR and FORCE_COLOR decide (no-color.org), then whether it is a terminal. */
export const wantsColor = (isTTY: boolean, env: Readonly<Record<string, string | undefined>>): boolean => {
  if (env["NO_COLOR"] !== undefined && env["NO_COLOR"] !== "") return false
  const force = env["FORCE_COLOR"]
  if (force !== undefined) return force !== "0" && force !== "false"
  return isTTY && env["TERM"] !== "dumb"
}

/** The terminal of this process. */
export const processTerminal = (): Terminal => {
  const { stdout, stderr, env } = process
  const out = stdout.isTTY === true
  const err = stderr.isTTY === true
  const width = Number(env["COLUMNS"]) || (out ? stdout.columns : err ? stderr.columns : undefined) || 80
  const color = wantsColor(out, env)
  return {
    width: Math.max(40, width),
    color,
    live: err && env["TERM"] !== "dumb" && env["CI"] === undefined,
    style: styleOf(color),
    errorStyle: styleOf(wantsColor(err, env)),
    print: (line = "") => void stdout.write(`${line}\n`),
    write: (text) => void stdout.write(text),
    say: (line = "") => void stderr.write(`${line}\n`),
    sayRaw: (text) => void stderr.write(text),
  }
}
