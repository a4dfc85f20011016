import * as Schema from "effect/Schema"
import { decodeConfig, field, SlothError, withDefault, type ConfigSchema, type ProvidedEnvironment } from "@sloth/core"
import type { AnyEnvironment } from "./environment.ts"
import { numberGuess } from "./number-guess.ts"
import { strategy2048 } from "./strategy-2048.ts"

/** Makes environments of one kind by their settings; it fits the `environments` slot of a plugin, and a file given to `--environment` may export one. */
export interface EnvironmentFactory<Settings = never> extends ProvidedEnvironment {
  /** An Effect Schema struct of its settings; none when absent. */
  readonly config?: ConfigSchema
  create(settings: Settings): AnyEnvironment
}

/** Settings of every environment, beside its own. */
const turnFields = {
  turnTokens: field
    .int({
      description:
        "Most tokens of a turn; an equal share of maxCompletionLength for each turn when absent. maxCompletionLength bounds the whole episode after its prompt.",
      unit: "tokens",
      min: 1,
    })
    .pipe(Schema.optionalKey),
  turnSeconds: field
    .number({ description: "Longest time of the environment for a turn.", unit: "seconds", above: 0 })
    .pipe(withDefault(30)),
}

/** Decoded settings that every environment has. */
export interface TurnSettings {
  readonly turnTokens?: number
  readonly turnSeconds: number
}

const fieldsOf = (schema: ConfigSchema | undefined): Schema.Struct.Fields =>
  (schema as { readonly fields?: Schema.Struct.Fields } | undefined)?.fields ?? {}

/** The settings of an environment with those that every environment has: its flags on the command line. */
export const environmentSettingsSchema = (factory: { readonly config?: ConfigSchema }): ConfigSchema =>
  Schema.Struct({ ...fieldsOf(factory.config), ...turnFields }) as unknown as ConfigSchema

/** An environment with the limits of its turns. */
export interface ChosenEnvironment {
  readonly environment: AnyEnvironment
  readonly turns: TurnSettings
}

/**
 * Makes an environment by its factory and settings as they were given. Errors: SLOTH_CONFIG_INVALID, those of the factory; SLOTH_ENVIRONMENT_DEFINITION where it makes none.
 */
export const createEnvironment = (
  factory: Pick<EnvironmentFactory, "name" | "config" | "create">,
  settings: unknown,
): ChosenEnvironment => {
  const decoded = decodeConfig(environmentSettingsSchema(factory), settings ?? {}, {
    name: `the environment ${factory.name}`,
  }) as TurnSettings & Readonly<Record<string, unknown>>
  const { turnTokens, turnSeconds, ...own } = decoded
  const environment = factory.create(own as never)
  if (!isEnvironment(environment))
    throw new SlothError("SLOTH_ENVIRONMENT_DEFINITION", {
      what: `The factory "${factory.name}" made no environment.`,
      next: "Let create(settings) return what defineEnvironment gives.",
      fields: { environment: factory.name },
    })
  return { environment, turns: { turnSeconds, ...(turnTokens === undefined ? {} : { turnTokens }) } }
}

/** True for what `defineEnvironment` takes and gives. */
export const isEnvironment = (value: unknown): value is AnyEnvironment =>
  typeof value === "object" &&
  value !== null &&
  typeof (value as { readonly name?: unknown }).name === "string" &&
  typeof (value as { readonly reset?: unknown }).reset === "function"

/** True for an {@link EnvironmentFactory}. */
export const isEnvironmentFactory = (value: unknown): value is EnvironmentFactory =>
  typeof value === "object" &&
  value !== null &&
  typeof (value as { readonly name?: unknown }).name === "string" &&
  typeof (value as { readonly create?: unknown }).create === "function"

const Game2048Settings = Schema.Struct({
  size: field.int({ description: "Rows and columns of the board.", min: 2, max: 16 }).pipe(withDefault(4)),
  target: field.int({ description: "The tile that wins, a power of two.", min: 8 }).pipe(withDefault(2048)),
  probabilityFours: field
    .number({ description: "How often a new tile is a four.", min: 0, max: 1 })
    .pipe(withDefault(0.1)),
  language: field
    .choice(["python", "javascript"], {
      description: 'What strategies are written in; Python needs the package "pyodide".',
    })
    .pipe(withDefault("python")),
  attempts: field
    .int({ description: "Strategies that the model may write, hearing how each did.", min: 1, max: 64 })
    .pipe(withDefault(1)),
  games: field.int({ description: "Games of each strategy.", min: 1 }).pipe(withDefault(1)),
  maxMoves: field.int({ description: "Most moves of a game.", min: 1 }).pipe(withDefault(5000)),
})

const NumberGuessSettings = Schema.Struct({
  high: field
    .int({ description: 'The number lies between 1 and this; a row\'s column "high" comes first.', min: 2 })
    .pipe(withDefault(100)),
  guesses: field.int({ description: "Most guesses.", min: 1, max: 64 }).pipe(withDefault(8)),
})

/** 2048 by code, by name. */
export const game2048Environment: EnvironmentFactory<typeof Game2048Settings.Type> = {
  name: "2048",
  config: Game2048Settings,
  create: (settings) => strategy2048(settings),
}

/** Finding a number by hints, by name. */
export const numberGuessEnvironment: EnvironmentFactory<typeof NumberGuessSettings.Type> = {
  name: "number-guess",
  config: NumberGuessSettings,
  create: (settings) => numberGuess(settings),
}

/** The environments that come with Sloth, for use by name. */
export const environmentLibrary = [game2048Environment, numberGuessEnvironment] as const
