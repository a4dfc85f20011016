import type { Tokenizer } from "@sloth/model"

/** One letter a token: enough for what the generator asks of a tokenizer. */
export const letters = {
  vocabSize: 131,
  special: {},
  endOfGeneration: new Set<number>([2]),
  addBos: false,
  idToToken: (id: number) => `${id}`,
  streamDecoder: () => ({ push: (id: number) => `<${id}>`, end: () => "" }),
} as unknown as Tokenizer
