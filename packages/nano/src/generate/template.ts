import type { Random } from "./random.ts"
import { capital, plural, withArticle } from "./grammar.ts"

/** Values for the slots of a template. */
export type Slots = Readonly<Record<string, string | number>>

type Node =
  | string
  | { readonly slot: string; readonly form: string }
  | { readonly options: readonly (readonly Node[])[] }

const parsed = new Map<string, readonly Node[]>()

function parse(source: string): readonly Node[] {
  let at = 0
  const sequence = (stop: string): Node[] => {
    const out: Node[] = []
    let text = ""
    const flush = () => {
      if (text !== "") out.push(text)
      text = ""
    }
    while (at < source.length && !stop.includes(source[at] as string)) {
      const c = source[at] as string
      at++
      if (c === "[") {
        flush()
        const options: Node[][] = []
        for (;;) {
          options.push(sequence("|]"))
          const closed = source[at++]
          if (closed === "]") break
          if (closed === undefined) throw new SyntaxError(`template without ]: ${source}`)
        }
        out.push({ options })
      } else if (c === "{") {
        flush()
        const end = source.indexOf("}", at)
        if (end < 0) throw new SyntaxError(`template without }: ${source}`)
        const inside = source.slice(at, end)
        at = end + 1
        const space = inside.indexOf(" ")
        out.push(
          space < 0 ? { slot: inside, form: "" } : { slot: inside.slice(space + 1), form: inside.slice(0, space) },
        )
      } else text += c
    }
    flush()
    return out
  }
  const nodes = sequence("")
  return nodes
}

function write(nodes: readonly Node[], random: Random, slots: Slots): string {
  let out = ""
  for (const node of nodes) {
    if (typeof node === "string") out += node
    else if ("options" in node) out += write(random.pick(node.options), random, slots)
    else {
      const value = slots[node.slot]
      if (value === undefined) throw new ReferenceError(`template slot without a value: ${node.slot}`)
      out += shape(String(value), node.form)
    }
  }
  return out
}

function shape(value: string, form: string): string {
  switch (form) {
    case "":
      return value
    case "^":
      return capital(value)
    case "a":
      return withArticle(value)
    case "A":
      return capital(withArticle(value))
    case "s":
      return plural(value)
    case "S":
      return capital(plural(value))
    default:
      throw new SyntaxError(`unknown slot form: ${form}`)
  }
}

/**
 * Writes one text of a template: `[one|two|]` is a choice (may nest), `{slot}` a value; `{^ slot}` starts it with a capital,
 * `{a slot}` and `{A slot}` put "a" or "an" before it, `{s slot}` and `{S slot}` make a plural.
 */
export function fillTemplate(random: Random, template: string, slots: Slots = {}): string {
  let nodes = parsed.get(template)
  if (nodes === undefined) {
    nodes = parse(template)
    parsed.set(template, nodes)
  }
  return write(nodes, random, slots)
}

/** How many different texts a template can write for one set of slot values. */
export function templateVariants(template: string): number {
  const count = (nodes: readonly Node[]): number =>
    nodes.reduce(
      (n, node) =>
        typeof node === "object" && "options" in node ? n * node.options.reduce((s, o) => s + count(o), 0) : n,
      1,
    )
  return count(parse(template))
}
