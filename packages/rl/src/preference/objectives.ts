import { bco } from "./bco.ts"
import { alphapo, cpo, simpo } from "./cpo.ts"
import { dpo } from "./dpo.ts"
import { kto } from "./kto.ts"
import { orpo } from "./orpo.ts"
import { processReward } from "../reward-model/process-reward.ts"
import { rewardModel } from "../reward-model/reward-model.ts"
import { tpo } from "./tpo.ts"

/** The preference methods and those that train reward models, as the objectives of a plugin. */
export const preferenceObjectives = [dpo, orpo, kto, cpo, simpo, alphapo, bco, tpo, rewardModel, processReward] as const
