/** Structured data of a log line. */
export type LogFields = Readonly<Record<string, unknown>>

/** Where Sloth says things; plugins get one that carries their name. */
export interface Logger {
  debug(message: string, fields?: LogFields): void
  info(message: string, fields?: LogFields): void
  /** Something the user should know; each code is said once in the life of a logger and its children. */
  warn(code: `SLOTH_${string}`, message: string, fields?: LogFields): void
  /** A logger whose lines carry a name; it shares the warnings already said. */
  child(name: string): Logger
}

/** Levels of a console logger: `debug` shows all, `info` leaves out debug lines, `warn` shows warnings only. */
export type LogLevel = "debug" | "info" | "warn"

interface Sink {
  write(level: LogLevel, name: string, message: string, fields: LogFields | undefined, code?: string): void
}

const make = (sink: Sink, name: string, said: Set<string>): Logger => ({
  debug: (message, fields) => sink.write("debug", name, message, fields),
  info: (message, fields) => sink.write("info", name, message, fields),
  warn(code, message, fields) {
    if (said.has(code)) return
    said.add(code)
    sink.write("warn", name, message, fields, code)
  },
  child: (inner) => make(sink, name === "" ? inner : `${name}:${inner}`, said),
})

const order: Readonly<Record<LogLevel, number>> = { debug: 0, info: 1, warn: 2 }

const fieldText = (fields: LogFields | undefined): string => {
  if (fields === undefined) return ""
  const parts = Object.entries(fields).map(
    ([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`,
  )
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`
}

/** Lines on stderr, so that stdout stays free for results; `write` replaces stderr, and `json` prints one object a line. */
export const consoleLogger = (
  options: { readonly level?: LogLevel; readonly json?: boolean; readonly write?: (line: string) => void } = {},
): Logger => {
  const least = order[options.level ?? "info"]
  const write = options.write ?? ((line: string) => void process.stderr.write(`${line}\n`))
  return make(
    {
      write(level, name, message, fields, code) {
        if (order[level] < least) return
        if (options.json === true) {
          write(
            JSON.stringify({
              level,
              ...(name === "" ? {} : { name }),
              ...(code === undefined ? {} : { code }),
              message,
              ...(fields === undefined ? {} : { fields }),
            }),
          )
          return
        }
        const prefix = level === "warn" ? `warning ${code ?? ""}: ` : level === "debug" ? "debug: " : ""
        write(`${prefix}${name === "" ? "" : `[${name}] `}${message}${fieldText(fields)}`)
      },
    },
    "",
    new Set(),
  )
}

/** Says nothing. */
export const silentLogger = (): Logger => make({ write: () => undefined }, "", new Set())
