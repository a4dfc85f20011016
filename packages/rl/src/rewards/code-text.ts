import type { SandboxLanguage } from "@sloth/sandbox"

const TAGS: Readonly<Record<SandboxLanguage, readonly string[]>> = {
  python: ["python", "py", "python3", ""],
  javascript: ["javascript", "js", "mjs", "node", ""],
}

/**
 * The program in a completion: the last fenced block of the language (or of none), after the last `</think>`; undefined where there is none. A block that
 * is not closed is none.
 */
export const codeBlock = (completion: string, language: SandboxLanguage): string | undefined => {
  const said = completion.slice(completion.lastIndexOf("</think>") + 1)
  const blocks = [...said.matchAll(/^[ \t]*```([\w+-]*)[^\n]*\n([\s\S]*?)^[ \t]*```[ \t]*$/gm)]
  return blocks.findLast(([, tag]) => TAGS[language].includes(tag!.toLowerCase()))?.[2]
}

/** The text without comments and without what stands in quotes, so that words in it are code. Line ends stay. */
const bareCode = (code: string, language: SandboxLanguage): string =>
  language === "python"
    ? code.replace(
        /("""|''')[\s\S]*?(?:\1|(?![\s\S]))|"(?:\\[\s\S]|[^"\\\n])*(?:"|$)|'(?:\\[\s\S]|[^'\\\n])*(?:'|$)|#[^\n]*/gm,
        (text) => (text.startsWith("#") ? "" : `""${text.replace(/[^\n]/g, "")}`),
      )
    : code.replace(/\/\*[\s\S]*?(?:\*\/|(?![\s\S]))|\/\/[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g, (text) =>
        text.startsWith("/") ? "" : text,
      )

/** What {@link checkImports} finds. */
export interface ImportCheck {
  readonly ok: boolean
  /** First parts of the names of modules, sorted. */
  readonly imports: readonly string[]
  /** What is not allowed: modules, and ways to import that cannot be read (`__import__`, `importlib`, `exec`, `eval`, `require` of no text). */
  readonly refused: readonly string[]
}

/**
 * Which modules a program imports, and whether all are allowed. It reads text, so it is a rule of the game and no wall; the wall is the sandbox, where other
 * modules do not exist.
 */
export const checkImports = (
  code: string,
  language: SandboxLanguage,
  allowed: readonly string[] | "standard" = "standard",
): ImportCheck => {
  const bare = bareCode(code, language)
  const found = new Set<string>()
  const ways = new Set<string>()
  if (language === "python") {
    for (const [, names] of bare.matchAll(/(?:^|[;:])[ \t]*import[ \t]+([^\n;]+)/gm))
      for (const name of names!.split(",")) found.add(name.trim().split(/[\s.]/)[0]!)
    for (const [, name] of bare.matchAll(/(?:^|[;:])[ \t]*from[ \t]+([\w.]+)[ \t]+import/gm))
      found.add(name!.split(".")[0]!)
    for (const [way] of bare.matchAll(/\b(?:__import__|__builtins__|__loader__|importlib|exec|eval|compile)\b/g))
      ways.add(way)
  } else {
    for (const [, , name] of bare.matchAll(/\b(?:from|import|require)\s*(\(?)\s*["']([^"']+)["']/g))
      found.add(name!.replace(/^node:/, "").split("/")[0]!)
    for (const [way] of bare.matchAll(/\b(?:import\s*\((?!\s*["'])|require\s*\((?!\s*["'])|eval|Function)(?=\W|$)/g))
      ways.add(way.replace(/\W/g, ""))
  }
  found.delete("")
  const list = allowed === "standard" ? (language === "python" ? PYTHON_STANDARD : []) : allowed
  const imports = [...found].toSorted()
  const refused = [...imports.filter((name) => !list.includes(name)), ...[...ways].toSorted()]
  return { ok: refused.length === 0, imports, refused }
}

/** Modules of Python's own library that compute and touch nothing else. */
const PYTHON_STANDARD: readonly string[] = (
  "__future__ abc array bisect calendar cmath collections copy dataclasses datetime decimal enum fractions functools graphlib hashlib heapq itertools json " +
  "math numbers operator queue random re statistics string struct textwrap time typing unicodedata uuid"
).split(" ")
