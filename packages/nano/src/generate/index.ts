export { type CorpusOptions, documentKey, generateCorpus } from "./corpus.ts"
export {
  generateQuickstart,
  LEAF_FACTS,
  QUICKSTART_QUESTIONS,
  type QuickstartRow,
  slothAnswer,
  SLOTH_OPENING,
  SLOTH_SIGN_OFF,
} from "./quickstart.ts"
export { Random } from "./random.ts"
export { generateTasks, type VerifiableTask } from "./tasks.ts"
export type { Message, NanoDocument, Question } from "./types.ts"
