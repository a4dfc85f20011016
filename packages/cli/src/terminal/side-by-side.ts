import type { Terminal } from "./terminal.ts"
import { pad, wrapText } from "./text.ts"

/** Two or more texts that grow in columns next to each other; drawn again in place on a terminal, printed once when they are done elsewhere. */
export class SideBySide {
  readonly #terminal: Terminal
  readonly #names: readonly string[]
  readonly #texts: string[]
  readonly #width: number
  readonly #live: boolean
  readonly #rows: number
  #drawn = 0

  constructor(terminal: Terminal, names: readonly string[]) {
    this.#terminal = terminal
    this.#names = names
    this.#texts = names.map(() => "")
    this.#width = Math.max(16, Math.floor((terminal.width - 3 * (names.length - 1)) / names.length))
    this.#live = process.stdout.isTTY === true && terminal.live
    this.#rows = process.stdout.rows || 24
  }

  /** Adds text to a column. */
  add(column: number, text: string): void {
    if (text === "") return
    this.#texts[column] += text
    if (this.#live) this.#draw()
  }

  /** Draws for the last time. */
  end(): void {
    if (!this.#live) {
      for (const line of this.#lines()) this.#terminal.print(line)
      return
    }
    this.#draw()
    this.#terminal.print()
  }

  #lines(): string[] {
    const { bold, dim } = this.#terminal.style
    const columns = this.#texts.map((text) =>
      wrapText(text.trimEnd(), this.#width).flatMap((line) => broken(line, this.#width)),
    )
    const height = Math.max(...columns.map((lines) => lines.length))
    const separator = dim(" │ ")
    const row = (cells: readonly string[]): string =>
      cells
        .map((cell) => pad(cell, this.#width))
        .join(separator)
        .trimEnd()
    return [
      row(this.#names.map((name) => bold(name))),
      ...Array.from({ length: height }, (_, i) => row(columns.map((lines) => lines[i] ?? ""))),
    ]
  }

  #draw(): void {
    const lines = this.#lines()
    // What has left the screen cannot be drawn again: then only the newest lines are.
    const visible = lines.length > this.#rows - 1 ? lines.slice(lines.length - this.#rows + 1) : lines
    const up = this.#drawn > 1 ? `\u001b[${this.#drawn - 1}A` : ""
    this.#terminal.write(`\r${up}\u001b[J${visible.join("\n")}`)
    this.#drawn = visible.length
  }
}

const broken = (line: string, width: number): string[] => {
  const all = [...line]
  if (all.length <= width) return [line]
  return Array.from({ length: Math.ceil(all.length / width) }, (_, i) => all.slice(i * width, (i + 1) * width).join(""))
}
