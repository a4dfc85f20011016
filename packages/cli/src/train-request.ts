import { existsSync } from "node:fs"
import { resolve } from "node:path"
import * as Schema from "effect/Schema"
import { configError, decodeConfig, field, fileError } from "@sloth/core"
import { TrainConfigSchema, type TrainConfigInput } from "@sloth/train"
import { readFileSync } from "node:fs"
import type { CommandInput } from "./command.ts"
import type { Session } from "./session.ts"
import { modelField } from "./session-flags.ts"

/** Flags of `plan` and `train` besides the training configuration. */
export const runFields = {
  model: modelField.pipe(Schema.optionalKey),
  data: field
    .list(Schema.String, { description: "File of rows to train on; may be repeated." })
    .pipe(Schema.optionalKey),
  method: field
    .text({
      description:
        'Training method: "sft", "pretrain", "dft"; from comparisons "dpo", "orpo", "kto", "cpo", "simpo", "alphapo", "bco", "tpo"; for reward models "reward", "prm"; from rewards of sampled completions "grpo", "gspo", "dr_grpo", "dapo", "cispo", "rloo", "reinforce++", "ppo", "online_dpo", "xpo", "nash_md"; from a teacher "gkd"; or one of a plugin. sft when absent. Its own settings are flags too: see --method NAME --help.',
    })
    .pipe(Schema.optionalKey),
  reward: field
    .list(Schema.String, {
      description:
        'What sampled completions are judged by: a file that exports rewards, a name such as "numeric_match", or a reward model by its run or model folder or as "model:org/name"; a weight follows after "=" ("./reward.ts=0.5"). May be repeated.',
    })
    .pipe(Schema.optionalKey),
  environment: field
    .text({
      description:
        'A task that is played in turns, in place of prompts and rewards or beside rewards: a file that exports an environment, or a name: "2048", "number-guess". Its own settings are flags too.',
    })
    .pipe(Schema.optionalKey),
  rollout: field
    .text({
      description:
        "Engine that samples completions during training: one of a plugin. The weights in place when absent.",
    })
    .pipe(Schema.optionalKey),
  template: field
    .text({ description: "File with a chat template (jinja) to use in place of the model's own." })
    .pipe(Schema.optionalKey),
}

/** The training settings as flags. */
export const trainSettings = { title: "Training settings", schema: TrainConfigSchema } as const

/** Keys that take each other's place: one given on the command line puts the others of the configuration file aside. */
const EXCLUSIVE: readonly (readonly (readonly string[])[])[] = [
  [["steps"], ["epochs"]],
  [["warmupSteps"], ["warmupRatio"]],
  [["evalData"], ["evalFraction"]],
  [
    ["full"],
    ["adapter", "rank", "alpha", "dropout", "targets", "layers", "rankStabilized", "modulesToSave", "loraPlusRatio"],
  ],
]

const overlay = (
  below: Readonly<Record<string, unknown>>,
  above: Readonly<Record<string, unknown>>,
): Record<string, unknown> => {
  const kept: Record<string, unknown> = { ...below }
  for (const sides of EXCLUSIVE)
    for (const [i, side] of sides.entries())
      if (side.some((key) => above[key] !== undefined))
        for (const other of sides.flatMap((s, j) => (i === j ? [] : s))) delete kept[other]
  return { ...kept, ...above }
}

/** What a training command asks for, from flags and the `train` section of the configuration file. */
export interface TrainInputs {
  readonly model?: string
  readonly data?: readonly string[]
  readonly method?: string
  readonly settings?: unknown
  readonly rewards?: readonly string[]
  readonly environment?: string
  readonly environmentSettings?: unknown
  readonly rollout?: string
  readonly template?: string
  readonly config: TrainConfigInput
}

interface Flags {
  readonly model?: string
  readonly data?: readonly string[]
  readonly method?: string
  readonly reward?: readonly string[]
  readonly environment?: string
  readonly rollout?: string
  readonly template?: string
}

const SectionSchema = Schema.Struct({
  model: Schema.optionalKey(Schema.String),
  data: Schema.optionalKey(Schema.Union([Schema.String, Schema.Array(Schema.String)])),
  method: Schema.optionalKey(Schema.String),
  rewards: Schema.optionalKey(Schema.Union([Schema.String, Schema.Array(Schema.String)])),
  environment: Schema.optionalKey(Schema.String),
  rollout: Schema.optionalKey(Schema.String),
  template: Schema.optionalKey(Schema.String),
})

const readTemplate = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    throw fileError(error, path, "read")
  }
}

/** Puts flags over the section of the configuration file, which does not count when a run is resumed. Paths of the file start at the file's folder. Errors: SLOTH_CONFIG_INVALID, SLOTH_FILE_*. */
export const trainInputs = (
  session: Session,
  cwd: string,
  flags: Flags,
  settings: Readonly<Record<string, unknown>>,
  own: Pick<CommandInput<unknown>, "methodSettings" | "environmentSettings">,
  resume = false,
): TrainInputs => {
  // A run goes on with its own settings; the file may have changed since.
  const {
    model,
    data,
    method,
    rewards,
    environment,
    environmentSettings: fileEnvironment,
    rollout,
    template,
    settings: fileSettings,
    ...section
  } = resume ? {} : session.section("train")
  const fromFile = decodeConfig(
    SectionSchema,
    { model, data, method, rewards, environment, rollout, template },
    { name: "the train section" },
  )
  const home = session.configFile === undefined ? cwd : resolve(session.configFile, "..")
  const there = (path: string): string => resolve(home, path)
  const thereIfFile = (path: string): string => (existsSync(there(path)) ? there(path) : path)
  const below: Record<string, unknown> = { ...section }
  for (const key of ["run", "adapter"] as const) if (typeof below[key] === "string") below[key] = there(below[key])
  if (below["evalData"] !== undefined) below["evalData"] = [below["evalData"]].flat().map((path) => there(String(path)))
  const above: Record<string, unknown> = { ...settings }
  for (const key of ["run", "adapter"] as const)
    if (typeof above[key] === "string") above[key] = resolve(cwd, above[key])
  const files =
    flags.data?.map((path) => resolve(cwd, path)) ??
    (fromFile.data === undefined ? undefined : [fromFile.data].flat().map(there))
  const chosenModel = flags.model ?? (fromFile.model === undefined ? undefined : thereIfFile(fromFile.model))
  const templatePath =
    flags.template !== undefined
      ? resolve(cwd, flags.template)
      : fromFile.template === undefined
        ? undefined
        : there(fromFile.template)
  // Settings of the file belong to the method of the file.
  const ofFile =
    flags.method === undefined || flags.method === fromFile.method
      ? (fileSettings as Readonly<Record<string, unknown>> | undefined)
      : undefined
  const merged = (
    below: Readonly<Record<string, unknown>> | undefined,
    above: Readonly<Record<string, unknown>>,
  ): Readonly<Record<string, unknown>> | undefined => (Object.keys(above).length === 0 ? below : { ...below, ...above })
  const chosenSettings = merged(ofFile, own.methodSettings)
  const chosenMethod = flags.method ?? fromFile.method
  // Files of the configuration file start at its folder; names of rewards stay as they are.
  const chosenRewards =
    flags.reward ??
    (fromFile.rewards === undefined
      ? undefined
      : [fromFile.rewards].flat().map((place) => (/^\.{1,2}[/\\]/.test(place) ? there(place) : place)))
  // A file of the command line starts here, one of the configuration file at its folder.
  const isPath = (place: string): boolean => /^\.{1,2}[/\\]|\.[cm]?[jt]s$/.test(place)
  const inFile = fromFile.environment
  const chosenEnvironment = flags.environment ?? (inFile !== undefined && isPath(inFile) ? there(inFile) : inFile)
  const environmentSettings = merged(
    flags.environment === undefined || flags.environment === inFile
      ? (fileEnvironment as Readonly<Record<string, unknown>> | undefined)
      : undefined,
    own.environmentSettings,
  )
  const chosenRollout = flags.rollout ?? fromFile.rollout
  return {
    config: overlay(below, above) as TrainConfigInput,
    ...(chosenModel === undefined ? {} : { model: chosenModel }),
    ...(files === undefined ? {} : { data: files }),
    ...(chosenMethod === undefined ? {} : { method: chosenMethod }),
    ...(chosenSettings === undefined ? {} : { settings: chosenSettings }),
    ...(chosenRewards === undefined ? {} : { rewards: chosenRewards }),
    ...(chosenEnvironment === undefined ? {} : { environment: chosenEnvironment }),
    ...(environmentSettings === undefined ? {} : { environmentSettings }),
    ...(chosenRollout === undefined ? {} : { rollout: chosenRollout }),
    ...(templatePath === undefined ? {} : { template: readTemplate(templatePath) }),
  }
}

/** Refuses words that do nothing. */
export const refuseWords = (words: readonly string[]): void => {
  if (words.length === 0) return
  throw configError(
    "command line",
    [
      {
        path: [],
        key: words[0]!,
        problem: "unknown",
        expected: undefined,
        received: words[0],
        message: `"${words.join('", "')}" does not belong here`,
      },
    ],
    "Name the data with --data and the model with --model.",
  )
}
