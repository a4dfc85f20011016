/** Prints what the corpus is made of: `bun packages/nano/scripts/stats.ts [rows] [seed]`. */
import { documentKey } from "../src/generate/corpus.ts"
import { PLOTS } from "../src/generate/plots.ts"
import { allFacts } from "../src/generate/facts.ts"
import { RELATIONS } from "../src/generate/relations.ts"
import { templateVariants } from "../src/generate/template.ts"
import { generateCorpus, nanoTokenizer, tokenRows } from "./token-rows.ts"

const rows = Number(process.argv[2] ?? 20_000)
const seed = Number(process.argv[3] ?? 1)
const documents = [...generateCorpus({ seed, rows })]
const keys = new Set(documents.map(documentKey))
const dropped = { count: 0 }
const kinds = new Map<string, { rows: number; tokens: number }>()
const used = new Set<number>()
const lengths: number[] = []
for (const { kind, tokens } of tokenRows(documents, nanoTokenizer(), 1024, dropped)) {
  const k = kinds.get(kind) ?? { rows: 0, tokens: 0 }
  kinds.set(kind, { rows: k.rows + 1, tokens: k.tokens + tokens.length })
  lengths.push(tokens.length)
  for (const t of tokens) used.add(t)
}
lengths.sort((a, b) => a - b)
const total = lengths.reduce((a, b) => a + b, 0)
const characters = documents.reduce((n, d) => n + documentKey(d).length, 0)
const at = (q: number): number => lengths[Math.min(lengths.length - 1, Math.floor(q * lengths.length))] as number
const beats = PLOTS.flatMap((p) => p.beats)
console.log(
  `rows ${documents.length}, different ${keys.size} (${((100 * keys.size) / documents.length).toFixed(1)} %), dropped ${dropped.count}`,
)
console.log(
  `tokens ${total}, a row: median ${at(0.5)}, 90 % ${at(0.9)}, longest ${at(1)}; characters a token ${(characters / total).toFixed(2)}; ids used ${used.size}`,
)
console.log(
  `plots ${PLOTS.length} with ${beats.length} sentences in ${beats.reduce((n, b) => n + templateVariants(b), 0)} wordings; relations ${RELATIONS.length}, facts ${allFacts().length}`,
)
for (const [kind, k] of [...kinds].sort((a, b) => b[1].tokens - a[1].tokens))
  console.log(
    `${kind.padEnd(20)} ${String(k.rows).padStart(7)} rows ${((100 * k.tokens) / total).toFixed(1).padStart(6)} % of tokens`,
  )
