import { createHash } from "node:crypto"
import { SlothError } from "@sloth/core"
import { createSandbox, type Sandbox, type SandboxLanguage } from "@sloth/sandbox"
import { checkImports, codeBlock } from "./code-text.ts"
import { readAsserts, readTests, type CodeTest } from "./code-tests.ts"
import { defineReward, type DefinedReward, type RewardContext, type SampleOf } from "./define-reward.ts"
import { sameValue } from "./same-value.ts"

/** What the rewards for programs have in common. */
export interface CodeOptions {
  readonly name?: string
  readonly weight?: number
  readonly language: SandboxLanguage
  /** Where programs run; one with the default limits when absent, which all such rewards of a language share. */
  readonly sandbox?: Sandbox
  /** Finds the program; {@link codeBlock} when absent. */
  readonly find?: (completion: string) => string | undefined
  /** Modules that a program may name; it earns nothing, or `refused`, with another. Not checked when absent. */
  readonly imports?: readonly string[] | "standard"
  /** Score of a program with an import that is not allowed; 0 when absent. */
  readonly refused?: number
}

const shared = new Map<SandboxLanguage, Sandbox>()

const sandboxOf = ({ sandbox, language }: CodeOptions): Sandbox => {
  if (sandbox === undefined) {
    let found = shared.get(language)
    if (found === undefined) shared.set(language, (found = createSandbox({ language })))
    return found
  }
  if (sandbox.language === language) return sandbox
  throw new SlothError("SLOTH_REWARD_SANDBOX", {
    what: `The reward is for ${language}, its sandbox runs ${sandbox.language}.`,
    next: "Give a sandbox of the same language.",
    fields: { language, sandbox: sandbox.language },
  })
}

/** Options of {@link unitTests}. */
export interface UnitTestsOptions extends CodeOptions {
  /** Column of the tests; "tests" when absent. */
  readonly column?: string
  /** Column of the function's name; "entry_point" when absent. A row may lack it where its tests name the function. */
  readonly entryColumn?: string
  /** The share of tests that pass (the default), or 1 only where all do. */
  readonly score?: "fraction" | "all"
  /** Relative tolerance for numbers that are no integers; 1e-9 when absent. */
  readonly tolerance?: number
  /** Python: call the function without the program's globals; see `SandboxCall.locked`. */
  readonly locked?: boolean
  /**
   * Further tests, made for each completion from random numbers that depend on its text, so that no program can have the answers in it. `random` gives
   * numbers from 0 to 1.
   */
  readonly fresh?: (row: Readonly<Record<string, unknown>>, random: () => number) => readonly CodeTest[]
}

/**
 * Scores programs by the tests of their row. Only arguments go into the sandbox and only values come out; they are compared outside, so a program that changes
 * `assert`, `==` or the clock gains nothing. A row without a readable test has null. Errors: SLOTH_REWARD_TESTS, SLOTH_REWARD_SANDBOX.
 */
export const unitTests = (options: UnitTestsOptions): DefinedReward => {
  const { name = "unit_tests", weight, column = "tests", entryColumn = "entry_point" } = options
  const sandbox = sandboxOf(options)
  const asserts = new Map<string, ReturnType<typeof readAsserts>>()
  return defineReward({
    name,
    weight,
    columns: options.fresh === undefined ? [column] : [],
    each: async (sample, context) => {
      const { row } = sample
      const entry = typeof row[entryColumn] === "string" ? row[entryColumn] : undefined
      const tests: CodeTest[] = []
      if (row[column] !== undefined && row[column] !== null) {
        const read = readTests(row[column])
        if (read.kind === "cases") tests.push(...read.cases)
        else {
          const key = `${entry ?? ""}\n${read.text}`
          // The completions of a group share their row.
          if (asserts.size > 256) asserts.clear()
          if (!asserts.has(key))
            asserts.set(
              key,
              readAsserts(
                options.language === "python" ? sandbox : sandboxOf({ language: "python" }),
                read.text,
                entry,
              ),
            )
          const { cases, unread } = await asserts.get(key)!
          context.metric("unread_tests", unread)
          tests.push(...cases)
        }
      }
      if (options.fresh !== undefined) tests.push(...options.fresh(row, randomOf(`${name}\n${sample.completion}`)))
      if (tests.length === 0) return null
      const program = programOf(sample, options)
      if (typeof program === "number") return program
      const passed = await passedTests(sandbox, program, tests, entry, options, context)
      context.metric("tests_passed", passed / tests.length)
      return options.score === "all" ? (passed === tests.length ? 1 : 0) : passed / tests.length
    },
  })
}

/** The program of a completion, or the score of one that has none or imports what it must not. */
const programOf = (sample: SampleOf<unknown>, options: CodeOptions): string | number => {
  const program = (options.find ?? ((text) => codeBlock(text, options.language)))(sample.completion)
  if (program === undefined) return 0
  if (options.imports !== undefined && !checkImports(program, options.language, options.imports).ok)
    return options.refused ?? 0
  return program
}

const passedTests = async (
  sandbox: Sandbox,
  program: string,
  tests: readonly CodeTest[],
  entry: string | undefined,
  options: UnitTestsOptions,
  context: RewardContext,
): Promise<number> => {
  const { signal } = context
  let passed = 0
  const calls = tests.flatMap((test) => ("args" in test ? [test] : []))
  if (calls.length > 0) {
    const missing = calls.find((test) => test.function === undefined)
    if (missing !== undefined && entry === undefined)
      throw new SlothError("SLOTH_REWARD_TESTS", {
        what: "A row does not name the function that its tests call.",
        next: `Name it in the column "${options.entryColumn ?? "entry_point"}", or in each test as "function".`,
      })
    const { calls: outcomes } = await sandbox.runCalls(
      program,
      calls.map((test) => ({ function: test.function ?? entry!, args: test.args, locked: options.locked })),
      { signal },
    )
    for (const [i, outcome] of outcomes.entries())
      if (outcome.status === "ok" && sameValue(outcome.value, calls[i]!.expected, options.tolerance)) passed++
    const fatal = outcomes.findLast((outcome) => outcome.status !== "ok" && outcome.status !== "error")
    if (fatal !== undefined) context.metric(`killed/${fatal.status}`, 1)
  }
  // Each input meets a fresh interpreter: what one run has seen, the next must not know.
  for (const test of tests)
    if ("stdin" in test) {
      const outcome = await sandbox.run(program, { stdin: test.stdin, signal })
      if (outcome.status === "ok" && samePrint(outcome.stdout, test.stdout)) passed++
      else if (outcome.status !== "ok" && outcome.status !== "error") {
        context.metric(`killed/${outcome.status}`, 1)
        // It would be killed again for each of the others.
        if (outcome.status === "timeout") break
      }
    }
  return passed
}

/** Lines without spaces at their ends, and no empty lines at the end. */
const samePrint = (a: string, b: string): boolean => {
  const plain = (text: string): string =>
    text
      .split("\n")
      .map((line) => line.trimEnd())
      .join("\n")
      .trimEnd()
  return plain(a) === plain(b)
}

/** Numbers from 0 to 1 that depend on a text. */
const randomOf = (text: string): (() => number) => {
  let block = createHash("sha256").update(text).digest()
  let at = 0
  return () => {
    if (at + 4 > block.length) {
      block = createHash("sha256").update(block).digest()
      at = 0
    }
    const value = block.readUInt32LE(at) / 2 ** 32
    at += 4
    return value
  }
}

/** Scores 1 where the program runs to its end and, if the row names a function, defines it; 0 otherwise. Errors: SLOTH_REWARD_SANDBOX. */
export const codeRuns = (
  options: CodeOptions & {
    readonly entryColumn?: string
    readonly right?: number
    readonly wrong?: number
  },
): DefinedReward => {
  const { name = "code_runs", weight, entryColumn = "entry_point", right = 1, wrong = 0 } = options
  const sandbox = sandboxOf(options)
  return defineReward({
    name,
    weight,
    each: async (sample, { signal }) => {
      const program = (options.find ?? ((text) => codeBlock(text, options.language)))(sample.completion)
      if (program === undefined) return wrong
      if (options.imports !== undefined && !checkImports(program, options.language, options.imports).ok)
        return options.refused ?? wrong
      const entry = sample.row[entryColumn]
      const outcome = await sandbox.run(program + probe(options.language, entry), { signal })
      return outcome.status === "ok" ? right : wrong
    },
  })
}

/** Fails where a function is missing. */
const probe = (language: SandboxLanguage, entry: unknown): string => {
  if (typeof entry !== "string" || !/^[A-Za-z_]\w*$/.test(entry)) return ""
  return language === "python"
    ? `\nif not callable(globals().get("${entry}")): raise NameError("${entry}")\n`
    : `\nif (typeof ${entry} !== "function") throw new ReferenceError("${entry}")\n`
}

/** Scores programs by what they import alone: `right` where all is allowed, `wrong` where not (the seed of this rule takes -20), `missing` without a program. */
export const allowedImports = (
  options: Omit<CodeOptions, "imports" | "refused" | "sandbox"> & {
    readonly allowed?: readonly string[] | "standard"
    readonly right?: number
    readonly wrong?: number
    readonly missing?: number
  },
): DefinedReward => {
  const { name = "allowed_imports", weight, language, allowed, right = 1, wrong = -20, missing = -1 } = options
  return defineReward({
    name,
    weight,
    each: ({ completion }) => {
      const program = (options.find ?? ((text) => codeBlock(text, language)))(completion)
      if (program === undefined) return missing
      return checkImports(program, language, allowed).ok ? right : wrong
    },
  })
}
