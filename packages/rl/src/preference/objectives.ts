import { bco } from "./bco.ts"
import { alphapo, cpo, simpo } from "./cpo.ts"
import { dpo } from "./dpo.ts"
import { kto } from "./kto.ts"
import { orpo } from "./orpo.ts"
import { tpo } from "./tpo.ts"

/** The preference methods, as the objectives of a plugin. */
export const preferenceObjectives = [dpo, orpo, kto, cpo, simpo, alphapo, bco, tpo] as const
