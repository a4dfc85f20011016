import { createRequire } from "node:module"
import { isSlothError, SlothError, type Awaitable } from "@sloth/core"
import type { ChatMessage } from "@sloth/data"
import type { ValidateFunction } from "ajv"
import { callWithin } from "../internal/environment-guard.ts"
import type { ToolCall } from "./tool-calls.ts"

/** A message of an episode. Contents are texts; parts of other kinds (images) fit in further keys, which templates see. */
export type EpisodeMessage = ChatMessage

/** What an environment may use while it works. */
export interface EnvironmentContext {
  /** Aborted when the turn takes too long or the run stops. */
  readonly signal: AbortSignal
  /** Notes a figure; the mean of all that were noted under a name goes into the metrics. */
  metric(name: string, value: number): void
}

/** A function that the model may call. */
export interface Tool<State = unknown> {
  readonly name: string
  readonly description: string
  /** JSON schema of its arguments, an object. */
  readonly parameters: object
  /** What it says: a text, or anything that JSON can hold. Throwing says the message to the model and lets the episode go on. */
  run(args: Readonly<Record<string, unknown>>, state: State, context: EnvironmentContext): Awaitable<unknown>
}

/** What a tool said to a call. */
export interface ToolResult {
  readonly call: ToolCall
  readonly content: string
  /** True where the tool does not exist, its arguments do not fit, or it threw. */
  readonly failed: boolean
}

/** What the model has said in a turn. */
export interface AssistantTurn {
  /** Number of the turn, from 0. */
  readonly turn: number
  /** All that it said. */
  readonly text: string
  /** Without tool calls. */
  readonly content: string
  readonly calls: readonly ToolCall[]
  readonly results: readonly ToolResult[]
  readonly malformed: readonly string[]
  readonly finishReason: "stop" | "length"
}

/** How an environment answers a turn. */
export interface EnvironmentStep {
  /** What is said to the model, after the results of tools. */
  readonly messages?: readonly EpisodeMessage[]
  /** Reward of this turn; none when absent. */
  readonly reward?: number
  /** True ends the episode. When absent it ends unless there is something to say to the model: messages or results of tools. */
  readonly done?: boolean
}

/** A task that is played in turns. */
export interface Environment<Row = Readonly<Record<string, unknown>>, State = unknown> {
  readonly name: string
  readonly tools?: readonly Tool<State>[]
  /** Most turns of the model; 8 when absent. */
  readonly maxTurns?: number
  /** What is played where no data are named: empty rows, one an episode's group, where episodes differ by their seed alone. */
  readonly rows?: readonly Row[]
  /** Called once before a run that plays it: the place to fail when something is missing (an interpreter, a service). */
  ready?(): Awaitable<void>
  /** Begins an episode: what the model is told first, and a state that is this episode's own. The same row and seed begin the same episode. */
  reset(
    row: Row,
    seed: number,
    context: EnvironmentContext,
  ): Awaitable<{ readonly messages: readonly EpisodeMessage[]; readonly state: State }>
  /** Answers a turn. Without it an episode ends with the first turn that calls no tool. */
  step?(state: State, turn: AssistantTurn, context: EnvironmentContext): Awaitable<EnvironmentStep>
  /** Lets go of what the state holds, at the end of the episode, whatever the end. */
  close?(state: State): Awaitable<void>
}

/** An environment of any rows and any state: for those who hand it on without looking inside. */
export type AnyEnvironment = Omit<Environment<never, unknown>, "rows"> & {
  readonly rows?: readonly Readonly<Record<string, unknown>>[]
}

/** Defines an environment, and checks its tools. Errors: SLOTH_ENVIRONMENT_DEFINITION. */
export const defineEnvironment = <Row, State>(environment: Environment<Row, State>): Environment<Row, State> => {
  const { name, tools = [], maxTurns = 8 } = environment
  const fault = (what: string, next: string): SlothError =>
    new SlothError("SLOTH_ENVIRONMENT_DEFINITION", { what, next, fields: { environment: name } })
  if (typeof name !== "string" || name === "") throw fault("An environment has no name.", "Give it one.")
  if (typeof environment.reset !== "function")
    throw fault(
      `The environment "${name}" has no function reset.`,
      "Let reset(row, seed) return { messages, state }: what the model is told first.",
    )
  if (!Number.isInteger(maxTurns) || maxTurns < 1)
    throw fault(`The environment "${name}" has ${maxTurns} turns.`, "Give maxTurns a whole number from 1.")
  const twice = tools.find((tool, i) => tools.findIndex((other) => other.name === tool.name) !== i)
  if (twice !== undefined) throw fault(`The environment "${name}" has two tools named "${twice.name}".`, "Rename one.")
  for (const tool of tools) validatorOf(tool)
  return Object.freeze({ ...environment })
}

const validators = new WeakMap<object, ValidateFunction>()

const validatorOf = (tool: Tool<never>): ValidateFunction => {
  let found = validators.get(tool)
  if (found === undefined) {
    try {
      // Loaded with the first tool: most runs have none.
      const { default: Ajv } = createRequire(import.meta.url)("ajv") as typeof import("ajv")
      found = new Ajv({ strict: false }).compile(tool.parameters)
    } catch (cause) {
      throw new SlothError("SLOTH_ENVIRONMENT_DEFINITION", {
        what: `The parameters of the tool "${tool.name}" are no JSON schema: ${cause instanceof Error ? cause.message : String(cause)}`,
        next: "Correct them (draft 7).",
        fields: { tool: tool.name },
        cause,
      })
    }
    validators.set(tool, found)
  }
  return found
}

/** Runs the calls of a turn in order. What goes wrong is said to the model. */
export const callTools = async <State>(
  tools: readonly Tool<State>[],
  calls: readonly ToolCall[],
  state: State,
  context: EnvironmentContext,
): Promise<ToolResult[]> => {
  const results: ToolResult[] = []
  for (const call of calls) {
    context.signal.throwIfAborted()
    const tool = tools.find(({ name }) => name === call.name)
    if (tool === undefined) {
      const known = tools.map(({ name }) => name).join(", ")
      results.push({ call, content: `There is no tool "${call.name}". There are: ${known}.`, failed: true })
      continue
    }
    const validate = validatorOf(tool)
    if (!validate(call.arguments)) {
      const why = (validate.errors ?? []).map(
        (e) => `${e.instancePath === "" ? "arguments" : e.instancePath} ${e.message}`,
      )
      results.push({ call, content: `The arguments of "${call.name}" do not fit: ${why.join("; ")}.`, failed: true })
      continue
    }
    try {
      const value = await callWithin(context, () => tool.run(call.arguments, state, context))
      results.push({ call, content: typeof value === "string" ? value : (JSON.stringify(value) ?? ""), failed: false })
    } catch (error) {
      if (context.signal.aborted || (isSlothError(error) && error.code === "SLOTH_ENVIRONMENT_TIMEOUT")) throw error
      results.push({
        call,
        content: `The tool failed: ${error instanceof Error ? error.message : String(error)}`,
        failed: true,
      })
    }
  }
  return results
}

/** Tools as chat templates take them. */
export const toolDefinitions = (tools: readonly Tool<never>[]): readonly unknown[] =>
  tools.map(({ name, description, parameters }) => ({ type: "function", function: { name, description, parameters } }))
