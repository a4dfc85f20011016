import * as Schema from "effect/Schema"
import { formatBytes, withDefault } from "@sloth/core"
import type { AdapterFacts, DatasetFacts, Facts, ModelFacts, RunFacts, TensorFacts } from "@sloth/sloth"
import { formatReport } from "@sloth/data"
import { defineCommand } from "../command.ts"
import { shortPath } from "../export-lines.ts"
import { jsonField, modelField } from "../session-flags.ts"
import { withSession } from "../session.ts"
import { previewText } from "../terminal/preview.ts"
import type { Terminal } from "../terminal/terminal.ts"
import { columns, count, large } from "../terminal/text.ts"

type Row = readonly [name: string, text: string]

const formatsText = (formats: Readonly<Record<string, number>>): string =>
  Object.entries(formats)
    .sort(([, a], [, b]) => b - a)
    .map(([name, bytes]) => `${name} ${formatBytes(bytes)}`)
    .join(", ")

const modelRows = (facts: ModelFacts): Row[] => {
  const { config, tokenizer } = facts
  return [
    ["model", facts.name],
    ["path", shortPath(facts.path)],
    ["family", `${facts.family}, ${facts.format}`],
    ["parameters", `${large(facts.parameters)}${config.tied ? ", output layer shared with the embeddings" : ""}`],
    ["weights", `${formatBytes(facts.bytes)}: ${formatsText(facts.formats)}`],
    ["shape", `${config.layers} layers, hidden ${count(config.hidden)}, vocabulary ${count(config.vocab)}`],
    ["context", `${count(config.maxPositions)} tokens`],
    [
      "tokenizer",
      `${count(tokenizer.vocab)} tokens, bos ${tokenizer.bos ?? "none"}, eos ${tokenizer.eos ?? "none"}, ends with ${tokenizer.ends.join(" ") || "nothing"}`,
    ],
    ["chat", tokenizer.chatTemplate ? "has a chat template" : "has no chat template: it continues texts"],
    ["targets", `${facts.targets.join(", ")}`],
    ...(facts.unused.length === 0
      ? []
      : ([["unused", `${facts.unused.length} tensors, such as ${facts.unused.slice(0, 3).join(", ")}`]] as Row[])),
    ["sha256", facts.fingerprint],
  ]
}

const tensorRows = (facts: TensorFacts): Row[] => [
  ["file", `${facts.format}, ${shortPath(facts.path)}`],
  ...(facts.architecture === undefined
    ? []
    : ([["architecture", `${facts.architecture} (no loaded family reads it; add a plugin to run it)`]] as Row[])),
  ["parameters", `${large(facts.parameters)} in ${count(facts.tensors.length)} tensors`],
  ["bytes", `${formatBytes(facts.bytes)}: ${formatsText(facts.formats)}`],
  ...Object.entries(facts.metadata).map(([key, value]): Row => [key, value]),
]

const adapterRows = (facts: AdapterFacts): Row[] => [
  ["adapter", shortPath(facts.path)],
  ["base", facts.base ?? "not named"],
  [
    "lora",
    `rank ${facts.rank}, alpha ${facts.alpha}${facts.rankStabilized ? ", rank-stabilized" : ""}${facts.dropout > 0 ? `, dropout ${facts.dropout}` : ""}`,
  ],
  ["targets", typeof facts.targets === "string" ? facts.targets : facts.targets.join(", ")],
  ...(facts.layers === undefined ? [] : ([["layers", facts.layers.join(", ")]] as Row[])),
  ...(facts.modulesToSave.length === 0 ? [] : ([["whole modules", facts.modulesToSave.join(", ")]] as Row[])),
  ["size", `${large(facts.parameters)} parameters in ${count(facts.tensors)} tensors, ${formatBytes(facts.bytes)}`],
]

const datasetRows = (facts: DatasetFacts): Row[] => [
  ["file", `${shortPath(facts.path)}, ${formatBytes(facts.bytes)}`],
  ["rows", count(facts.rows)],
  ["recognised", facts.statement],
  ...(facts.report === undefined ? [] : ([["tokens", formatReport(facts.report)]] as Row[])),
]

const runRows = (facts: RunFacts): Row[] => [
  ["run", `${facts.name}, ${facts.status ?? "broke off or still running"}`],
  ["path", shortPath(facts.path)],
  ["started", facts.createdAt],
  ["model", `${facts.model ?? "given in code"}${facts.method === undefined ? "" : `, method ${facts.method}`}`],
  ["data", facts.data.map(shortPath).join(", ") || "given in code"],
  ["steps", `${facts.step}${facts.steps === undefined ? "" : ` of ${facts.steps}`}`],
  ...(facts.loss === undefined
    ? []
    : ([["loss", `${facts.firstLoss?.toFixed(4) ?? ""} → ${facts.loss.toFixed(4)}`]] as Row[])),
  ...(facts.evaluation === undefined
    ? []
    : ([["evaluation", `${facts.evaluation.loss.toFixed(4)} at step ${facts.evaluation.step}`]] as Row[])),
  ["checkpoints", facts.checkpoints.map((step) => `step ${step}`).join(", ") || "none"],
  ...facts.exports.map(({ format, path, bytes }): Row => [
    "export",
    `${format}: ${path}${bytes === undefined ? "" : ` (${formatBytes(bytes)})`}`,
  ]),
  ...(facts.adapter === undefined
    ? []
    : ([
        ["adapter", `rank ${facts.adapter.rank}, alpha ${facts.adapter.alpha}, ${formatBytes(facts.adapter.bytes)}`],
      ] as Row[])),
]

const rowsOf = (facts: Facts): Row[] => {
  switch (facts.kind) {
    case "model":
      return modelRows(facts)
    case "tensors":
      return tensorRows(facts)
    case "adapter":
      return adapterRows(facts)
    case "dataset":
      return datasetRows(facts)
    case "run":
      return runRows(facts)
  }
}

const show = (facts: Facts, terminal: Terminal, tensors: boolean): void => {
  const { style, width } = terminal
  for (const line of columns(
    rowsOf(facts).map(([name, text]) => [style.cyan(name), text]),
    width,
  ))
    terminal.print(line)
  if (facts.kind === "dataset" && facts.preview !== undefined) {
    terminal.print()
    terminal.print(
      style.dim(
        terminal.color
          ? "first example, scored tokens highlighted:"
          : "first example, scored tokens between [[ and ]]:",
      ),
    )
    terminal.print(previewText(facts.preview, terminal))
  }
  if (tensors && facts.kind === "tensors")
    for (const { name, dtype, shape } of facts.tensors) terminal.print(`  ${name}  ${dtype} [${shape.join(", ")}]`)
}

/** `sloth inspect`. */
export const command = defineCommand({
  name: "inspect",
  summary: "Say what a model, GGUF file, adapter, data file or run is.",
  description:
    "Looks at a thing and says what it is: a model (folder, .gguf, hub id, nano), a file of tensors, an adapter folder, a data file, or a run folder. For a data file, --model counts tokens and shows what would be learnt.",
  session: true,
  aliases: { model: "m" },
  positionals: [{ name: "what", description: "File, folder, hub id or nano.", required: true }],
  options: Schema.Struct({
    model: modelField.pipe(Schema.optionalKey),
    tensors: Schema.Boolean.annotate({ description: "List every tensor of a file that no family reads." }).pipe(
      withDefault(false),
    ),
    json: jsonField.pipe(withDefault(false)),
  }),
  examples: [
    { command: "sloth inspect nano", description: "the embedded model" },
    { command: "sloth inspect model.gguf", description: "a GGUF file" },
    { command: "sloth inspect rows.jsonl --model nano", description: "a data file as this model would see it" },
    { command: "sloth inspect runs/mine --json", description: "a run, for a script" },
  ],
  run: (input) =>
    withSession(input, async ({ sloth }) => {
      const { model, json, tensors } = input.options
      const facts = await sloth.inspect(input.positionals[0]!, model === undefined ? {} : { model })
      if (json) input.terminal.print(JSON.stringify(facts))
      else show(facts, input.terminal, tensors)
    }),
})
