import type { OnlineObjective, TrainModel } from "@sloth/train"
import type { PromptExample } from "../../data/prompts.ts"
import { gkd } from "../../online/gkd.ts"
import { grpo } from "../../online/grpo.ts"
import { nashMd } from "../../online/nash-md.ts"
import { onlineDpo, xpo } from "../../online/online-dpo.ts"
import { ppo } from "../../online/ppo.ts"
import { tinyExamples, tinyPrompts, tinyTeacher } from "./tiny-grpo.ts"

/** Methods that runs which get killed go by, with what has to come back after a restart. */
export const variants: Readonly<
  Record<
    string,
    {
      readonly objective: OnlineObjective<PromptExample>
      readonly settings: object
      /** Prompts in place of the usual ones. */
      readonly prompts?: readonly PromptExample[]
      /** Dropout of the adapter, 0.1 when absent. */
      readonly dropout?: number
      /** Rows in place of prompts, and a teacher in place of rewards. */
      readonly teaching?: { readonly examples: readonly PromptExample[]; readonly teacher: TrainModel }
    }
  >
> = {
  grpo: { objective: grpo, settings: { numGenerations: 4, maxCompletionLength: 6, numIterations: 2 } },
  // Prompts that are long enough to be kept from the rollout for the update.
  kept: {
    objective: grpo,
    settings: { numGenerations: 4, maxCompletionLength: 6 },
    prompts: tinyPrompts.map((prompt) => ({
      ...prompt,
      tokens: Array.from({ length: 40 + prompt.row }, (_, t) => 1 + ((7 * prompt.row + 11 * t) % 120)),
    })),
    dropout: 0,
  },
  synced: {
    objective: grpo,
    settings: {
      numGenerations: 4,
      maxCompletionLength: 6,
      beta: 0.1,
      syncReference: true,
      referenceSyncSteps: 2,
      entropyCoef: 0.01,
      adaptiveEntropy: true,
      entropyTarget: 4.7,
    },
  },
  replay: {
    objective: grpo,
    // Groups of two completions of two tokens are often equal in the reward.
    settings: { numGenerations: 2, maxCompletionLength: 2, replayBuffer: 5 },
  },
  ppo: { objective: ppo, settings: { maxCompletionLength: 6, numIterations: 2, stepsPerGeneration: 2 } },
  gkd: {
    objective: gkd as unknown as OnlineObjective<PromptExample>,
    settings: { maxCompletionLength: 6, seqKd: true },
    teaching: { examples: tinyExamples as unknown as readonly PromptExample[], teacher: tinyTeacher() },
  },
  onlineDpo: { objective: onlineDpo, settings: { maxCompletionLength: 6, numIterations: 2 } },
  xpo: { objective: xpo, settings: { maxCompletionLength: 6 } },
  nashMd: { objective: nashMd, settings: { maxCompletionLength: 6 } },
}
