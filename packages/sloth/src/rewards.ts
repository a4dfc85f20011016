import { statSync } from "node:fs"
import { basename, extname, resolve } from "node:path"
import { SlothError, type PluginRegistry, type Reward } from "@sloth/core"
import type { OpenedModel } from "./opened-model.ts"
import type { OpenedJudge } from "./reward-models.ts"
import { loadUserModule, namesFile } from "./load-module.ts"

/**
 * A reward: itself, or where it is: a file, a name that plugins provide, or a reward model: the folder of a run or of a model, or "model:" and whatever names a model.
 * A weight follows after "=" ("./reward.ts=0.5").
 */
export type RewardChoice = Reward | string

/** Rewards of a request with how a record names them; undefined for those given in code. */
export interface ResolvedRewards {
  readonly rewards: readonly Reward[]
  readonly names: readonly string[] | undefined
  /** Reward models that were opened for them; to be disposed of with the run. */
  readonly opened: readonly OpenedModel[]
}

/** What a choice says of a reward model; undefined where it names none. */
const modelOf = (cwd: string, place: string): string | undefined => {
  if (place.startsWith("model:")) return place.slice("model:".length)
  const path = resolve(cwd, place)
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true ? path : undefined
}

const isReward = (value: unknown): value is Reward =>
  typeof value === "object" &&
  value !== null &&
  typeof (value as Partial<Reward>).name === "string" &&
  typeof (value as Partial<Reward>).score === "function"

/** What stands before the weight, and the weight. Errors: SLOTH_REWARD_WEIGHT. */
const split = (choice: string): { readonly place: string; readonly weight: number | undefined } => {
  const at = choice.lastIndexOf("=")
  if (at < 0) return { place: choice, weight: undefined }
  const weight = Number(choice.slice(at + 1))
  if (choice.slice(at + 1).trim() !== "" && Number.isFinite(weight)) return { place: choice.slice(0, at), weight }
  throw new SlothError("SLOTH_REWARD_WEIGHT", {
    what: `"${choice.slice(at + 1)}" is no weight of a reward.`,
    next: `Write a number after the last "=": ${choice.slice(0, at)}=0.5`,
    fields: { reward: choice },
  })
}

/** The rewards that a file exports: its default (a reward, a list of them, or a function from completions to scores), else all rewards among its exports. */
const loadFile = async (path: string): Promise<readonly Reward[]> => {
  const loaded = await loadUserModule(path, "reward", "SLOTH_REWARD")
  const chosen = loaded["default"] ?? Object.values(loaded).filter(isReward)
  if (typeof chosen === "function") {
    const name = basename(path, extname(path))
    return [{ name, score: chosen as Reward["score"] }]
  }
  const list = Array.isArray(chosen) ? (chosen as readonly unknown[]) : [chosen]
  if (list.length > 0 && list.every(isReward)) return list
  throw new SlothError("SLOTH_REWARD_EXPORT", {
    what: `The file ${path} exports no reward.`,
    why: `It exports: ${Object.keys(loaded).join(", ") || "nothing"}.`,
    next: "End it with `export default defineReward({ ... })`, with a list of rewards, or with a function that gives every completion a number.",
    fields: { path, exports: Object.keys(loaded) },
  })
}

/**
 * Finds rewards by name, in files, as reward models that `judge` opens, or as they are. A weight takes the place of a reward's own; of a file with several it multiplies each.
 * Errors: SLOTH_REWARD_NOT_FOUND, SLOTH_REWARD_IMPORT, SLOTH_REWARD_EXPORT, SLOTH_REWARD_WEIGHT, and those of the registry for an unknown name.
 */
export const resolveRewards = async (
  registry: PluginRegistry,
  cwd: string,
  choices: readonly RewardChoice[],
  judge: (spec: string) => Promise<OpenedJudge>,
): Promise<ResolvedRewards> => {
  const opened: OpenedModel[] = []
  const rewards: Reward[] = []
  const names: string[] = []
  for (const choice of choices) {
    if (typeof choice !== "string") {
      rewards.push(choice)
      continue
    }
    const { place, weight } = split(choice)
    const path = resolve(cwd, place)
    const model = registry.names("rewards").includes(place) ? undefined : modelOf(cwd, place)
    if (model !== undefined) {
      const judged = await judge(model)
      if (judged.opened !== undefined) opened.push(judged.opened)
      rewards.push(weight === undefined ? judged.reward : { ...judged.reward, weight })
      names.push(`${model === path ? path : place}${weight === undefined ? "" : `=${weight}`}`)
      continue
    }
    const file = namesFile(place)
    const found = file ? await loadFile(path) : [registry.get("rewards", place)]
    for (const reward of found)
      rewards.push(
        weight === undefined
          ? reward
          : { ...reward, weight: found.length === 1 ? weight : weight * (reward.weight ?? 1) },
      )
    names.push(`${file ? path : place}${weight === undefined ? "" : `=${weight}`}`)
  }
  return { rewards, names: names.length === choices.length ? names : undefined, opened }
}
