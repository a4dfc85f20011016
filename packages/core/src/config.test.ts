import { describe, expect, test } from "bun:test"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import {
  camelToKebab,
  configJsonSchema,
  decodeConfig,
  describeConfig,
  field,
  flagToKey,
  isSlothError,
  kebabToCamel,
  keyToFlag,
  parseFlag,
  parseFlags,
  withDefault,
} from "./index.ts"
import type { ConfigIssue } from "./index.ts"

const Train = Schema.Struct({
  data: field.text({ description: "Rows to train on." }),
  rank: field.int({ description: "Rank of the adapter.", min: 1, max: 1024, aka: ["lora_r"] }).pipe(withDefault(16)),
  learningRate: field.number({ description: "Step size.", above: 0, aka: ["lr"] }).pipe(withDefault(2e-4)),
  batch: field
    .int({ description: "Rows of a step.", unit: "rows", min: 1, aka: ["per_device_train_batch_size"] })
    .pipe(withDefault(8)),
  schedule: field
    .choice(["linear", "cosine", "constant"], { description: "Shape of the rate." })
    .pipe(withDefault("linear")),
  targets: Schema.Union([Schema.Literal("all-linear"), Schema.Array(Schema.String)])
    .annotate({ description: "Modules that get an adapter." })
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed("all-linear" as const))),
  shuffle: field.boolean({ description: "Reorder rows." }).pipe(withDefault(true)),
  clip: Schema.NullOr(Schema.Finite.check(Schema.isGreaterThan(0)))
    .annotate({ description: "Gradient norm limit." })
    .pipe(Schema.optionalKey),
  stop: field.list(Schema.String, { description: "Stop strings." }).pipe(Schema.optionalKey),
  weights: Schema.Record(Schema.String, Schema.Finite).pipe(Schema.optionalKey),
  lora: Schema.Struct({
    alpha: field.number({ description: "Scale.", above: 0 }).pipe(withDefault(32)),
    dropout: field.number({ description: "Dropout.", min: 0, max: 1 }).pipe(withDefault(0)),
  }).pipe(Schema.optionalKey),
})

const issuesOf = (run: () => unknown): readonly ConfigIssue[] => {
  try {
    run()
  } catch (error) {
    if (!isSlothError(error)) throw error
    expect(error.code).toBe("SLOTH_CONFIG_INVALID")
    return error.fields["issues"] as readonly ConfigIssue[]
  }
  throw new Error("nothing was refused")
}
const decode = (input: unknown): unknown => decodeConfig(Train, input, { name: "train" })

describe("decodeConfig", () => {
  test("fills in defaults and treats undefined as absent", () => {
    expect(decode({ data: "rows.jsonl", rank: undefined, lora: { alpha: undefined } })).toEqual({
      data: "rows.jsonl",
      rank: 16,
      learningRate: 2e-4,
      batch: 8,
      schedule: "linear",
      targets: "all-linear",
      shuffle: true,
      lora: { alpha: 32, dropout: 0 },
    })
  })

  test("reports every wrong field at once", () => {
    const issues = issuesOf(() =>
      decode({
        rank: 0,
        learningRte: 1,
        per_device_train_batch_size: 4,
        batch: 1.5,
        schedule: "cosin",
        targets: 4,
        clip: "x",
        stop: ["a", 5],
        weights: { a: "heavy" },
        xyzzy: 1,
        lora: { alpha: -1, dropout: 2, drop: 1 },
      }),
    )
    expect(Object.fromEntries(issues.map((i) => [i.key, i.message]))).toEqual({
      data: "data: missing; expected text (Rows to train on)",
      rank: "rank: expected an integer between 1 and 1024, received 0",
      learningRte: 'learningRte: unknown key; did you mean "learningRate"?',
      xyzzy:
        "xyzzy: unknown key; known keys: data, rank, learningRate, batch, schedule, targets, shuffle, clip, stop, weights, lora",
      per_device_train_batch_size: 'per_device_train_batch_size: unknown key; did you mean "batch"?',
      batch: "batch: expected an integer at least 1 (rows), received 1.5",
      schedule: 'schedule: expected one of "linear", "cosine", "constant", received "cosin"',
      targets: 'targets: expected "all-linear" or a list, each text, received 4',
      clip: 'clip: expected a number greater than 0 or null, received "x"',
      "stop[1]": "stop[1]: expected text, received 5",
      "weights.a": 'weights.a: expected a number, received "heavy"',
      "lora.alpha": "lora.alpha: expected a number greater than 0, received -1",
      "lora.dropout": "lora.dropout: expected a number between 0 and 1, received 2",
      "lora.drop": 'lora.drop: unknown key; did you mean "dropout"?',
    })
  })

  test("refuses NaN and infinity, an array, null and a function for the whole", () => {
    expect(issuesOf(() => decode({ data: "x", learningRate: Number.NaN })).map((i) => i.key)).toEqual(["learningRate"])
    for (const input of [null, [], "text", 3, () => 1]) expect(issuesOf(() => decode(input)).length).toBeGreaterThan(0)
  })

  test("a rule over several keys keeps its own message", () => {
    const Range = Schema.Struct({ from: Schema.Int, to: Schema.Int }).check(
      Schema.makeFilter((value: { from: number; to: number }) =>
        value.from <= value.to ? undefined : "from must not be after to",
      ),
    )
    const [issue] = issuesOf(() => decodeConfig(Range, { from: 3, to: 1 }, { name: "range" }))
    expect(issue?.message).toBe("from must not be after to")
    expect(issue?.problem).toBe("rule")
  })

  test("looks inside a nullable object", () => {
    const Outer = Schema.Struct({ inner: Schema.NullOr(Schema.Struct({ count: Schema.Int })) })
    expect(issuesOf(() => decodeConfig(Outer, { inner: { count: "a" } }, { name: "o" }))[0]?.key).toBe("inner.count")
  })

  test("does not show secrets", () => {
    const Login = Schema.Struct({ apiKey: Schema.String.check(Schema.isMinLength(20)) })
    const [issue] = issuesOf(() => decodeConfig(Login, { apiKey: "hf_short" }, { name: "hub" }))
    expect(issue?.message).not.toContain("hf_short")
  })

  test("a key named __proto__ is an unknown key and changes no prototype", () => {
    expect(issuesOf(() => decode(JSON.parse('{"data":"x","__proto__":{"rank":3}}')))[0]?.problem).toBe("unknown")
    expect(({} as { rank?: number }).rank).toBeUndefined()
  })
})

describe("describeConfig", () => {
  const fields = describeConfig(Train)
  const of = (key: string) => fields.find((f) => f.key === key)

  test("lists keys in order with flags, nested ones dotted", () => {
    expect(fields.map((f) => f.flag)).toEqual([
      "--data",
      "--rank",
      "--learning-rate",
      "--batch",
      "--schedule",
      "--targets",
      "--shuffle",
      "--clip",
      "--stop",
      "--weights",
      "--lora.alpha",
      "--lora.dropout",
    ])
  })

  test("carries type, range, unit, default and choices", () => {
    expect(of("rank")).toMatchObject({
      type: "integer",
      min: 1,
      max: 1024,
      default: 16,
      required: false,
      description: "Rank of the adapter.",
    })
    expect(of("batch")).toMatchObject({ unit: "rows", min: 1, expected: "an integer at least 1 (rows)" })
    expect(of("batch")?.max).toBeUndefined()
    expect(of("learningRate")).toMatchObject({ type: "number", above: 0, aka: ["lr"] })
    expect(of("schedule")).toMatchObject({
      type: "choice",
      choices: ["linear", "cosine", "constant"],
      default: "linear",
    })
    expect(of("targets")).toMatchObject({ type: "union", default: "all-linear" })
    expect(of("clip")).toMatchObject({ type: "number", nullable: true, required: false, above: 0 })
    expect(of("data")).toMatchObject({ type: "text", required: true })
    expect(of("stop")?.type).toBe("list")
    expect(of("weights")?.type).toBe("record")
    expect(of("lora.alpha")).toMatchObject({ required: false, default: 32 })
  })
})

describe("flags", () => {
  test("names convert both ways", () => {
    for (const key of ["learningRate", "rank", "lora.alpha", "adamBeta1", "evalEverySteps", "optim.weightDecay"]) {
      expect(flagToKey(keyToFlag(key))).toBe(key)
    }
    expect(camelToKebab("maxLength")).toBe("max-length")
    expect(kebabToCamel("max_length")).toBe("maxLength")
  })

  test("text is read as the type of the field", () => {
    expect(
      parseFlags(
        Train,
        {
          "--data": "rows.jsonl",
          "learning-rate": "2e-4",
          batch: "1_000",
          shuffle: "off",
          clip: "none",
          targets: "q_proj,v_proj",
          stop: ["</s>", "END"],
          weights: "a=1,b=2.5",
          "lora.alpha": "64",
        },
        { name: "train" },
      ),
    ).toEqual({
      data: "rows.jsonl",
      learningRate: 2e-4,
      batch: 1000,
      shuffle: false,
      clip: null,
      targets: ["q_proj", "v_proj"],
      stop: ["</s>", "END"],
      weights: { a: 1, b: 2.5 },
      lora: { alpha: 64 },
    })
    expect(parseFlag(Train, "targets", "all-linear")).toBe("all-linear")
    expect(parseFlag(Train, "targets", "q_proj")).toEqual(["q_proj"])
    expect(parseFlag(Train, "stop", '["a,b"]')).toEqual(["a,b"])
    expect(parseFlag(Train, "shuffle", true)).toBe(true)
    expect(parseFlags(Train, { "no-shuffle": true }, { name: "train" })).toEqual({ shuffle: false })
  })

  test("all wrong flags are reported at once", () => {
    const issues = issuesOf(() =>
      parseFlags(
        Train,
        { rank: "abc", "learnin-rate": "1", data: true, schedule: "step", batch: "0x10", "no-rank": true },
        { name: "sloth train" },
      ),
    )
    expect(issues.map((i) => i.message)).toEqual([
      '--rank: expected an integer between 1 and 1024, received "abc"',
      "--learnin-rate: no such flag; did you mean --learning-rate?",
      "--data: a value is missing; expected text",
      '--schedule: expected one of "linear", "cosine", "constant", received "step"',
      '--batch: expected an integer at least 1 (rows), received "0x10"',
      "--no-rank: no such flag; did you mean --rank?",
    ])
  })
})

test("JSON Schema refuses unknown keys and carries defaults, ranges and units", () => {
  const json = configJsonSchema(Train, { title: "train" }) as {
    additionalProperties: unknown
    required: string[]
    properties: Record<string, Record<string, unknown>>
  }
  expect(json.additionalProperties).toBe(false)
  expect(json.required).toEqual(["data"])
  expect(json.properties["rank"]).toMatchObject({ type: "integer", minimum: 1, maximum: 1024, default: 16 })
  expect(json.properties["batch"]?.["description"]).toBe("Rows of a step. Unit: rows.")
  expect(json.properties["lora"]?.["additionalProperties"]).toBe(false)
  expect(json.properties["weights"]?.["additionalProperties"]).not.toBe(false)
})
