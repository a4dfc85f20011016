import type { Tokenizer } from "@sloth/model"
import type { SlothContext } from "./context.ts"
import type { RunRecord } from "./run-record.ts"

/** Texts that an export is compared on. */
const TEXTS = 8
/** Most tokens of each. */
const TOKENS = 64

/** Questions and answers for models without a run: every kind of character and a few facts. */
const SENTENCES: readonly (readonly [question: string, answer: string])[] = [
  ["What is the capital of France?", "The capital of France is Paris, a city on the river Seine."],
  ["Write a list of three fruits.", "- apples\n- pears\n- cherries"],
  ["What is 12 + 30?", "12 + 30 = 42."],
  ["Schreibe einen Satz auf Deutsch.", "Der Bär schläft über dem Fluss, während es draußen regnet."],
  ["Show a small program.", 'for (let i = 0; i < 3; i++) {\n  console.log(`line ${i}`) // "counts"\n}'],
  [
    "Tell me a short story.",
    "Once there was a sloth who hung from a tree all day. At night it ate one leaf, slowly, and slept again.",
  ],
]

/** The built-in sentences as token ids, through the model's chat template where it has one. */
const builtinTexts = async (tokenizer: Tokenizer): Promise<number[][]> => {
  const { prepareExamples } = await import("@sloth/data")
  const rows = SENTENCES.map(([question, answer], index) =>
    tokenizer.chatTemplate === undefined
      ? ({ kind: "text", text: `${question}\n${answer}`, origin: { index } } as const)
      : ({
          kind: "conversation",
          messages: [
            { role: "user", content: question },
            { role: "assistant", content: answer },
          ],
          origin: { index },
        } as const),
  )
  const { examples } = await prepareExamples(rows, { tokenizer, mask: "all" })
  return examples.map((example) => Array.from(example.tokens))
}

/**
 * Token ids of the texts that an export is compared on: rows of the data the run was trained on where they can still be read, else a few built-in sentences.
 */
export const verificationTexts = async (
  context: SlothContext,
  tokenizer: Tokenizer,
  record: RunRecord | undefined,
): Promise<readonly (readonly number[])[]> => {
  let texts: number[][] = []
  if (record !== undefined && record.data.length > 0) {
    try {
      const { openDataset } = await import("@sloth/data")
      const { examples } = await openDataset(record.data, {
        tokenizer,
        registry: await context.readers(),
        mask: record.mask,
        maxLength: record.maxLength,
        cacheDir: context.paths.cache,
      })
      const stride = Math.max(1, Math.floor(examples.length / TEXTS))
      texts = examples.filter((_, i) => i % stride === 0).map((example) => Array.from(example.tokens))
    } catch (error) {
      // The data may be gone or have changed since: the built-in sentences do as well.
      context.logger.debug("The rows of the run cannot be read for the comparison.", { error: String(error) })
    }
  }
  if (texts.length === 0) texts = await builtinTexts(tokenizer)
  return texts
    .slice(0, TEXTS)
    .map((tokens) => tokens.slice(0, TOKENS))
    .filter((tokens) => tokens.length >= 2)
}
