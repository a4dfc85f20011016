import type { Reward } from "@sloth/core"
import { softFormat, strictFormat, thinkFormat, xmlCount } from "./format.ts"
import { repetitionPenalty } from "./length.ts"
import { exactMatch, integerAnswer, numberProximity, numericMatch } from "./match.ts"
import { mathEquivalence } from "./math-equivalence.ts"

/** The rewards that need no settings, for use by name: answers are compared with the column "answer". */
export const rewardLibrary: readonly Reward[] = [
  exactMatch(),
  numericMatch(),
  numberProximity(),
  integerAnswer(),
  mathEquivalence(),
  softFormat(),
  strictFormat(),
  thinkFormat(),
  xmlCount(),
  repetitionPenalty(),
]
