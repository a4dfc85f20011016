import * as Schema from "effect/Schema"
import * as Result from "effect/Result"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaParser from "effect/SchemaParser"
import { SlothError } from "./errors.ts"

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))
const Seconds = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)).annotate({ unit: "seconds" })
const Tokens = Count.annotate({ unit: "tokens" })
const Bytes = Count.annotate({ unit: "bytes" })
const Text = Schema.String
const Json = Schema.Record(Schema.String, Schema.Unknown)
const Metrics = Schema.Record(Schema.String, Schema.Finite)
/** When the event happened: ISO 8601. */
const time = { time: Schema.optionalKey(Text) }

/** The first event of a run and of each resumption. */
const RunStart = Schema.Struct({
  type: Schema.Literal("run-start"),
  ...time,
  run: Text,
  version: Text,
  command: Schema.optionalKey(Text),
  seed: Schema.optionalKey(Schema.Int),
  config: Schema.optionalKey(Json),
  resumedFromStep: Schema.optionalKey(Count),
})

/** What the planner decided, before step 1. */
const Plan = Schema.Struct({ type: Schema.Literal("plan"), ...time, plan: Json })

/** One optimizer step; `loss` is the mean in nats over all scored tokens of the step. */
const Step = Schema.Struct({
  type: Schema.Literal("step"),
  step: Count,
  loss: Schema.Finite,
  gradNorm: Schema.Finite,
  learningRate: Schema.Finite,
  tokens: Tokens,
  scoredTokens: Tokens,
  seconds: Seconds,
  tokensPerSecond: Schema.Finite,
  peakRssBytes: Bytes,
  epoch: Schema.optionalKey(Schema.Finite),
  metrics: Schema.optionalKey(Metrics),
})

/** An evaluation; `loss` in nats per scored token. */
const Eval = Schema.Struct({
  type: Schema.Literal("eval"),
  ...time,
  step: Count,
  name: Schema.optionalKey(Text),
  loss: Schema.Finite,
  perplexity: Schema.optionalKey(Schema.Finite),
  scoredTokens: Schema.optionalKey(Tokens),
  seconds: Schema.optionalKey(Seconds),
  best: Schema.optionalKey(Schema.Boolean),
  metrics: Schema.optionalKey(Metrics),
})

/** An answer of the model to a fixed prompt. */
const Sample = Schema.Struct({
  type: Schema.Literal("sample"),
  ...time,
  step: Count,
  phase: Schema.optionalKey(Schema.Literals(["before", "during", "after"])),
  prompt: Text,
  completion: Text,
  reward: Schema.optionalKey(Schema.Finite),
})

/** A checkpoint that is complete on disk; `path` is relative to the run. */
const Checkpoint = Schema.Struct({
  type: Schema.Literal("checkpoint"),
  ...time,
  step: Count,
  path: Text,
  bytes: Schema.optionalKey(Bytes),
  seconds: Schema.optionalKey(Seconds),
  best: Schema.optionalKey(Schema.Boolean),
})

/** Something the user should know. */
const Warning = Schema.Struct({
  type: Schema.Literal("warning"),
  ...time,
  step: Schema.optionalKey(Count),
  code: Text,
  message: Text,
  fields: Schema.optionalKey(Json),
})

/** A file written for other programs. */
const Export = Schema.Struct({
  type: Schema.Literal("export"),
  ...time,
  format: Text,
  path: Text,
  bytes: Schema.optionalKey(Bytes),
  seconds: Schema.optionalKey(Seconds),
  verified: Schema.Boolean,
  maxLogprobDifference: Schema.optionalKey(Schema.Finite.annotate({ unit: "nats" })),
})

/** The last event of a run that ended in an orderly way. */
const RunEnd = Schema.Struct({
  type: Schema.Literal("run-end"),
  ...time,
  step: Count,
  reason: Schema.Literals(["completed", "interrupted", "stopped", "failed"]),
  message: Schema.optionalKey(Text),
  seconds: Schema.optionalKey(Seconds),
  tokens: Schema.optionalKey(Tokens),
  loss: Schema.optionalKey(Schema.Finite),
})

/** A failure, as its coded error. */
const RunError = Schema.Struct({
  type: Schema.Literal("error"),
  ...time,
  step: Schema.optionalKey(Count),
  code: Text,
  message: Text,
  fields: Schema.optionalKey(Json),
})

/** Schema of one line of `events.jsonl`, told apart by `type`. */
export const RunEventSchema = Schema.Union([
  RunStart,
  Plan,
  Step,
  Eval,
  Sample,
  Checkpoint,
  Warning,
  Export,
  RunEnd,
  RunError,
])

/** One event of a run: the single source for the terminal, trackers, reports and the studio. */
export type RunEvent = typeof RunEventSchema.Type

/** Names of the event types. */
export type RunEventType = RunEvent["type"]

/** The event of one type: `RunEventOf<"step">`. */
export type RunEventOf<T extends RunEventType> = Extract<RunEvent, { readonly type: T }>

/** One optimizer step as it stands in `events.jsonl`. */
export type StepEvent = RunEventOf<"step">

const members = { RunStart, Plan, Step, Eval, Sample, Checkpoint, Warning, Export, RunEnd, RunError }
interface Checker {
  readonly decode: (input: unknown) => Result.Result<unknown, SchemaIssue.Issue>
  readonly keys: readonly string[]
}

const checkers = new Map<string, Checker>()

// made on first use: most programs that import this package write no events
const checkerOf = (type: unknown): Checker | undefined => {
  const made = checkers.get(String(type))
  if (made !== undefined) return made
  const member = Object.values(members).find((candidate) => candidate.fields.type.literal === type)
  if (member === undefined) return undefined
  const decode = SchemaParser.decodeUnknownResult(member as Schema.ConstraintDecoder<unknown>, {
    errors: "all",
    onExcessProperty: "error",
    reportInput: true,
  })
  const checker: Checker = { decode, keys: Object.keys(member.fields) }
  checkers.set(String(type), checker)
  return checker
}

/**
 * Checks that a value is a {@link RunEvent}, unknown keys refused; returns it with its keys in the documented order.
 * Errors: SLOTH_EVENT_INVALID.
 */
export const checkEvent = (value: unknown): RunEvent => {
  const type = (value as { readonly type?: unknown } | null | undefined)?.type
  const checker = checkerOf(type)
  if (checker === undefined) {
    throw new SlothError("SLOTH_EVENT_INVALID", {
      what: `${JSON.stringify(type) ?? "nothing"} is not a type of run event.`,
      why: `The types are ${Object.values(members)
        .map((member) => member.fields.type.literal)
        .join(", ")}.`,
      fields: { type },
    })
  }
  // a key that is present but undefined is absent in JSON
  const present = Object.fromEntries(Object.entries(value as object).filter(([, inner]) => inner !== undefined))
  const result = checker.decode(present)
  if (Result.isFailure(result)) {
    throw new SlothError("SLOTH_EVENT_INVALID", {
      what: `A "${String(type)}" event is malformed.`,
      why: SchemaIssue.makeFormatterDefault()(result.failure).replaceAll("\n", " ").replace(/ +/g, " "),
      fields: { type, event: value },
    })
  }
  const ordered: Record<string, unknown> = {}
  for (const key of checker.keys) {
    const inner = present[key] as unknown
    if (inner !== undefined) ordered[key] = inner
  }
  return ordered as unknown as RunEvent
}
