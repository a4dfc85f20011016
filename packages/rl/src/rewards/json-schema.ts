import { createRequire } from "node:module"
import { SlothError } from "@sloth/core"
import type { ValidateFunction } from "ajv"
import type { AnswerFinder } from "./answers.ts"
import { defineReward, type DefinedReward } from "./define-reward.ts"
import type { FormatOptions } from "./format.ts"

/** The text of the only fenced code block, or the whole text where there is none. */
export const fencedOrWhole: AnswerFinder = (completion) => {
  const blocks = [...completion.matchAll(/```[a-zA-Z]*\n([\s\S]*?)```/g)]
  return blocks.length === 0 ? completion.trim() : blocks.length === 1 ? blocks[0]![1]!.trim() : undefined
}

const compile = (name: string, schema: object): ValidateFunction => {
  try {
    // Loaded when the first such reward is made: most runs have none.
    const load = createRequire(import.meta.url)
    const dialect = String((schema as { $schema?: unknown }).$schema ?? "")
    const { default: Ajv } = load(dialect.includes("2020-12") ? "ajv/dist/2020.js" : "ajv") as typeof import("ajv")
    return new Ajv({ strict: false }).compile(schema)
  } catch (cause) {
    throw new SlothError("SLOTH_REWARD_SCHEMA", {
      what: `The JSON schema of the reward "${name}" cannot be used: ${cause instanceof Error ? cause.message : String(cause)}`,
      next: "Correct the schema (draft 7, or 2020-12 where $schema says so).",
      fields: { name },
      cause,
    })
  }
}

/** Scores completions that are JSON of a schema; text that is JSON of another form has `parses`. Errors: SLOTH_REWARD_SCHEMA. */
export const jsonSchema = (
  schema: object,
  options: FormatOptions & {
    /** Finds the JSON; the fenced block or the whole text when absent. */
    readonly find?: AnswerFinder
    /** Score of valid JSON that does not fit the schema; `wrong` when absent. */
    readonly parses?: number
  } = {},
): DefinedReward => {
  const { name = "json_schema", weight, right = 1, wrong = 0, find = fencedOrWhole } = options
  const parses = options.parses ?? wrong
  const validate = compile(name, schema)
  return defineReward({
    name,
    weight,
    each: ({ completion }) => {
      const text = find(completion)
      if (text === undefined) return wrong
      let value: unknown
      try {
        value = JSON.parse(text)
      } catch {
        return wrong
      }
      return validate(value) ? right : parses
    },
  })
}
