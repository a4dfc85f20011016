/**
 * Writes nano's pretraining rows, tokenised.
 *
 *   bun packages/nano/scripts/pretrain-data.ts --rows 200000 --seed 1 --out .cache/nano/train.jsonl
 *   bun packages/nano/scripts/pretrain-data.ts --rows 1000 --seed 2 --out .cache/nano/valid.jsonl
 *
 * `--format tokens` (default): jsonl of {"tokens":[...]}, which every command reads (without a mask, all tokens are scored).
 * `--format rows`: jsonl of {"text"} and {"messages"}. `--format binary`: a folder with tokens.u16 and starts.u32 (little endian;
 * row k is tokens[starts[k] .. starts[k + 1])). `--text-only` and `--chat-only` write one kind of document.
 */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from "node:fs"
import { dirname, join } from "node:path"
import { parseArgs } from "node:util"
import { generateCorpus, nanoTokenizer, tokenRows } from "./token-rows.ts"

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "130000" },
    seed: { type: "string", default: "1" },
    out: { type: "string", default: ".cache/nano/train.jsonl" },
    format: { type: "string", default: "tokens" },
    "max-length": { type: "string", default: "512" },
    "text-only": { type: "boolean", default: false },
    "chat-only": { type: "boolean", default: false },
  },
})
const { out, format } = values
if (!["tokens", "rows", "binary"].includes(format))
  throw new RangeError(`--format is tokens, rows or binary, not ${format}`)
const textShare = values["text-only"] ? 1 : values["chat-only"] ? 0 : undefined
const corpus = generateCorpus({
  seed: Number(values.seed),
  rows: Number(values.rows),
  ...(textShare === undefined ? {} : { textShare }),
})
const started = performance.now()
const dropped = { count: 0 }
let rows = 0
let total = 0

function writeLines(lines: Iterable<string>): void {
  mkdirSync(dirname(out), { recursive: true })
  const file = openSync(out, "w")
  let buffer: string[] = []
  for (const line of lines) {
    buffer.push(line, "\n")
    if (buffer.length > 4000) {
      writeSync(file, buffer.join(""))
      buffer = []
    }
  }
  writeSync(file, buffer.join(""))
  closeSync(file)
}

if (format === "rows") {
  writeLines(
    (function* () {
      for (const d of corpus) {
        rows++
        yield JSON.stringify("text" in d ? { text: d.text } : { messages: d.messages })
      }
    })(),
  )
} else {
  const tokenised = tokenRows(corpus, nanoTokenizer(), Number(values["max-length"]), dropped)
  if (format === "tokens")
    writeLines(
      (function* () {
        for (const { tokens } of tokenised) {
          rows++
          total += tokens.length
          yield JSON.stringify({ tokens })
        }
      })(),
    )
  else {
    const ids: number[] = []
    const starts = [0]
    for (const { tokens } of tokenised) {
      for (const t of tokens) ids.push(t)
      starts.push(ids.length)
      rows++
    }
    total = ids.length
    mkdirSync(out, { recursive: true })
    writeFileSync(join(out, "tokens.u16"), new Uint8Array(Uint16Array.from(ids).buffer))
    writeFileSync(join(out, "starts.u32"), new Uint8Array(Uint32Array.from(starts).buffer))
  }
}
console.log(
  JSON.stringify({
    out,
    format,
    rows,
    tokens: total,
    dropped: dropped.count,
    seconds: Math.round((performance.now() - started) / 100) / 10,
  }),
)
