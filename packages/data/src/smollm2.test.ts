import { expect, test } from "bun:test"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { readGguf, tokenizerFromGguf } from "@sloth/model"
import { prepareExamples } from "./prepare.ts"
import { recognise } from "./recognise.ts"

const file =
  process.env["SLOTH_TEST_MODEL_GGUF"] ??
  fileURLToPath(new URL("../../../.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf", import.meta.url))
const available = existsSync(file)
if (!available) {
  console.log("skipped: no SmolLM2-135M-Instruct GGUF (set SLOTH_TEST_MODEL_GGUF, or put it in .cache/models)")
}

const fixture = (name: string): string => readFileSync(new URL(`../fixtures/${name}`, import.meta.url), "utf8")
const { cases } = JSON.parse(fixture("token-goldens.json")) as {
  cases: readonly { readonly conversation: string; readonly tokens: number[]; readonly mask: number[] }[]
}
const conversations = JSON.parse(fixture("conversations.json")) as Record<string, object>

test.skipIf(!available)("token ids and masks of a real tokenizer equal those of transformers", async () => {
  const tokenizer = tokenizerFromGguf(readGguf(file).metadata, file)
  const template = fixture("templates/chatml.jinja")
  const plain = template.replace(/\{%(-?)\s*(?:end)?generation\s*(-?)%\}/g, "{%$1 if true %}{% endif $2%}")
  const rows = cases.map(({ conversation }) => ({ row: conversations[conversation] }))
  for (const source of [template, plain]) {
    const { examples } = await prepareExamples(recognise(rows).rows, { tokenizer, template: source })
    expect(examples.map((e) => ({ tokens: Array.from(e.tokens), mask: Array.from(e.mask) }))).toEqual(
      cases.map(({ tokens, mask }) => ({ tokens, mask })),
    )
  }
  // The model's own template, which has no generation blocks.
  const { examples } = await prepareExamples(recognise(rows).rows, { tokenizer })
  expect(examples).toHaveLength(cases.length)
  for (const example of examples) {
    const last = example.mask.lastIndexOf(1)
    expect(tokenizer.endOfGeneration.has(example.tokens[last] as number)).toBe(true)
  }
})
