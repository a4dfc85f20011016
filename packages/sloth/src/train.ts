import { existsSync, readdirSync } from "node:fs"
import { join, resolve } from "node:path"
import type { MethodOf, Reward, RolloutFactory, RunCallback, RunEvent, SettingsOf } from "@sloth/core"
import { SlothError } from "@sloth/core"
import type { Example } from "@sloth/data"
import type { ModelFiles } from "@sloth/model"
import type { Engine } from "@sloth/tensor"
import type { ChosenEnvironment, Environment } from "@sloth/rl"
import type {
  Objective,
  openMethodData,
  OpenedRows,
  RunPlan,
  TrainConfig,
  TrainConfigInput,
  TrainResult,
} from "@sloth/train"
import type { SlothContext } from "./context.ts"
import { resolveEnvironment, type EnvironmentChoice } from "./environments.ts"
import type { OpenedModel, OpenModels } from "./opened-model.ts"
import { namesFile } from "./load-module.ts"
import { openFiles } from "./opened-model.ts"
import { resolveModel, type ResolvedModel } from "./resolve-model.ts"
import { absolutePath, readRunRecord, type RunInputs, type RunRecord } from "./run-record.ts"
import { openJudge } from "./reward-models.ts"
import { openTeacher, teacherOf, type OpenedTeacher } from "./teacher.ts"
import { resolveRewards, type RewardChoice } from "./rewards.ts"
import type { Rows } from "./score.ts"

/** A request for one of the methods that plugins provide, with the settings that this method takes; supervised fine-tuning without a method. */
export type MethodRequest<P, Request extends PlanRequest> = [MethodOf<P>] extends [never]
  ? Request
  : Omit<Request, "method" | "settings"> &
      (
        | { readonly method?: undefined; readonly settings?: undefined }
        | {
            [M in MethodOf<P>]: {
              readonly method: M
              /** The method's own settings. */
              readonly settings?: SettingsOf<P, M>
            }
          }[MethodOf<P>]
      )

/** What planning and training take: where model and data are, and every key of the training configuration. */
export interface PlanRequest extends TrainConfigInput {
  /** The model; on resuming the run's own when absent. */
  readonly model?: string
  /** Files or rows to train on; on resuming the run's own files when absent. */
  readonly data?: Rows
  /** Training method; "sft" when absent. */
  readonly method?: string
  /** The method's own settings; on resuming over those of the run. */
  readonly settings?: unknown
  /** What completions are judged by, for methods such as grpo: rewards, files, or names that plugins provide; on resuming the run's own when absent. */
  readonly rewards?: readonly RewardChoice[]
  /** A task that is played in turns, for methods such as grpo: an environment, a file, or a name that plugins provide; completions are then its episodes, and `data` its rows. */
  readonly environment?: EnvironmentChoice
  /** The environment's own settings, and `turnTokens` and `turnSeconds`. */
  readonly environmentSettings?: unknown
  /** Name of the engine that generates during training; the weights in place when absent, on resuming the run's own. */
  readonly rollout?: string
  /** Chat template source; the model's own when absent. */
  readonly template?: string
  /** False leaves the measurement of the machine's speed, a fraction of a second, out of the plan. */
  readonly measure?: boolean
  readonly signal?: AbortSignal
}

/** What training takes besides. */
export interface TrainRequest extends PlanRequest {
  /** Continues the run in the folder `run` from its last checkpoint. */
  readonly resume?: boolean
  /** Names of trackers to follow the run with; on resuming the run's own when absent. */
  readonly trackers?: readonly string[]
  /** Callbacks besides those of plugins. */
  readonly callbacks?: readonly RunCallback[]
  readonly onEvent?: (event: RunEvent) => void
  /** What is known before the first step: the data as prepared and the model's headers. */
  readonly onPrepared?: (prepared: PreparedRun) => void
  /**
   * Ends the process when a reward or an environment holds the thread past its limit and cannot be interrupted; what this gives for the error is written to stderr before. See
   * `endStuckProcess` of `@sloth/rl`.
   */
  readonly onStuck?: (error: SlothError) => string
  /** The command line, for the record. */
  readonly command?: string
  /** What the command line needs to resume the run, as plain data; it is only written down. On resuming the run's own when absent. */
  readonly commandLine?: unknown
  /** True keeps the trained model open: it is `opened` of the outcome, and the caller disposes of it. */
  readonly keepModel?: boolean
}

/** Model and data of a run before it starts. */
export interface PreparedRun {
  readonly source: ResolvedModel
  readonly files: ModelFiles
  readonly data: OpenedRows<unknown>
}

/** How a run ended; with `keepModel` the trained model. */
export interface TrainOutcome extends Omit<TrainResult, "model"> {
  readonly opened: OpenedModel | undefined
}

/** A plan with what it was made from. */
export interface PlanOutcome extends PreparedRun {
  readonly plan: RunPlan
}

const requestKeys = [
  "model",
  "data",
  "method",
  "settings",
  "rewards",
  "environment",
  "environmentSettings",
  "rollout",
  "template",
  "measure",
  "signal",
  "resume",
  "trackers",
  "callbacks",
  "onEvent",
  "onPrepared",
  "onStuck",
  "command",
  "commandLine",
  "keepModel",
] as const satisfies readonly (keyof TrainRequest)[]

/** The training configuration among the keys of a request. */
export const configOf = (request: TrainRequest): TrainConfigInput => {
  const config: Record<string, unknown> = { ...request }
  for (const key of requestKeys) delete config[key]
  return config as TrainConfigInput
}

/** Paths of a configuration start at the working folder of the instance. */
const absolutePaths = (cwd: string, config: TrainConfigInput): TrainConfigInput => {
  const { run, adapter, evalData } = config
  return {
    ...config,
    ...(run === undefined ? {} : { run: resolve(cwd, run) }),
    ...(adapter === undefined ? {} : { adapter: resolve(cwd, adapter) }),
    ...(evalData === undefined ? {} : { evalData: [evalData].flat().map((path) => resolve(cwd, path)) }),
  }
}

const needed = (what: "model" | "data"): SlothError =>
  new SlothError(what === "model" ? "SLOTH_TRAIN_NO_MODEL" : "SLOTH_TRAIN_NO_DATA", {
    what: `No ${what} was named.`,
    next:
      what === "model"
        ? 'Name one with model: "nano", a folder, a .gguf file or a hub id.'
        : "Name a file with data, such as rows.jsonl.",
  })

const isRows = (data: Rows): data is readonly object[] =>
  typeof data !== "string" && data.length > 0 && typeof data[0] === "object"

/** Paths of the data for the record; none for rows given in code. */
const dataPaths = (cwd: string, data: Rows): readonly string[] =>
  isRows(data)
    ? []
    : (typeof data === "string" ? [data] : (data as readonly string[])).map((path) => absolutePath(cwd, path))

/** What it means that the model is a run with an adapter. */
const goesOnNote = (model: string, { referenceModel }: TrainConfig): string =>
  `Going on with the adapter of ${model}. Methods with a reference compare with ${
    referenceModel === "start" ? "the model with that adapter as it is now" : "the model below that adapter"
  }.`

interface Inputs {
  readonly config: TrainConfigInput
  readonly resolved: TrainConfig
  readonly record: RunRecord | undefined
  readonly objective: Objective<Example>
  /** The method's own, as given or as the run has them. */
  readonly settings: unknown
  readonly rewards: readonly Reward[]
  /** Reward models, to be disposed of. */
  readonly judges: readonly OpenedModel[]
  readonly rollout: RolloutFactory | undefined
  /** What the method's settings name as a teacher. */
  readonly teacher: OpenedTeacher | undefined
  readonly trackers: readonly string[]
  readonly inputs: RunInputs
  readonly prepared: PreparedRun
}

/** Fewest tokens that a turn can say anything in. */
const LEAST_TURN = 4

/** A turn that has an equal share of an episode must be able to say something in it. Errors: SLOTH_ENVIRONMENT_ROOM. */
const requireRoom = (
  { name, maxTurns = 8 }: Pick<Environment, "name" | "maxTurns">,
  turnTokens: number | undefined,
  maxCompletionLength: number | undefined,
): void => {
  if (turnTokens !== undefined || maxCompletionLength === undefined) return
  const share = Math.floor(maxCompletionLength / maxTurns)
  if (share >= LEAST_TURN) return
  throw new SlothError("SLOTH_ENVIRONMENT_ROOM", {
    what: `Episodes of the environment "${name}" have up to ${maxTurns} turns in maxCompletionLength ${maxCompletionLength}, which leaves ${share} tokens for each.`,
    next: `Raise maxCompletionLength (--max-completion-length) to what ${maxTurns} turns need, or give turnTokens (--turn-tokens).`,
    fields: { environment: name, maxTurns, maxCompletionLength },
  })
}

/**
 * Rows of an environment as a method reads them, with the engine and the reward of its episodes. Errors: SLOTH_TRAIN_ENVIRONMENT for a method that samples nothing, and those of
 * `environmentTraining`.
 */
export const openEpisodes = async (
  objective: Objective<Example>,
  chosen: ChosenEnvironment,
  source: string | readonly string[] | readonly object[],
  config: TrainConfig,
  how: Parameters<typeof openMethodData>[3],
  rollout: RolloutFactory | undefined,
): Promise<{ readonly data: OpenedRows<unknown>; readonly rollout: RolloutFactory; readonly reward: Reward }> => {
  const [{ decodeSettings, isOnline, openMethodData: open }, { readRows }, { environmentTraining }] = await Promise.all(
    [import("@sloth/train"), import("@sloth/data"), import("@sloth/rl")],
  )
  const { environment, turns } = chosen
  if (!isOnline(objective))
    throw new SlothError("SLOTH_TRAIN_ENVIRONMENT", {
      what: `The method "${objective.name}" plays no environment: it samples nothing during training.`,
      next: "Leave the environment out, or choose a method such as grpo.",
      fields: { method: objective.name, environment: environment.name },
    })
  const read = async (from: typeof source): Promise<readonly object[]> => {
    const paths = typeof from === "string" ? [from] : from
    if (paths.length === 0 || typeof paths[0] !== "string") return paths as readonly object[]
    const found = await readRows(paths as readonly string[], { registry: how.registry })
    return found.map(({ row }) => (typeof row === "object" && row !== null ? row : { prompt: row }))
  }
  const rows = await read(source)
  const { evalData, ...rest } = config
  const evaluation = evalData === undefined ? [] : await read(evalData)
  const { onRewardError, maxCompletionLength } = decodeSettings(objective, how.settings) as {
    readonly onRewardError?: string
    readonly maxCompletionLength?: number
  }
  requireRoom(environment, turns.turnTokens, maxCompletionLength)
  const made = await environmentTraining(environment as Environment<object, never>, [...rows, ...evaluation], {
    ...turns,
    tokenizer: how.tokenizer,
    onError: onRewardError === "null" ? "null" : "throw",
    ...(how.template === undefined ? {} : { template: how.template }),
    ...(how.signal === undefined ? {} : { signal: how.signal }),
    ...(rollout === undefined ? {} : { rollout }),
  })
  const data = await open(objective, made.rows.slice(0, rows.length), rest as TrainConfig, how)
  const heldOut =
    evaluation.length === 0
      ? data.heldOut
      : (await open(objective, made.rows.slice(rows.length), { ...rest, evalFraction: 0 } as TrainConfig, how)).examples
  return {
    data: {
      ...data,
      heldOut,
      statement: `${data.statement.replace(/\.$/, "")}; episodes of the environment "${environment.name}".`,
    },
    rollout: made.rollout,
    reward: made.reward,
  }
}

/** Settings of a record with those that are given in their place. */
const over = (below: unknown, above: unknown): unknown =>
  below === undefined || below === null || above === undefined ? (above ?? below ?? undefined) : { ...below, ...above }

/** The method's own settings: those given, on resuming over the run's where the method is the same. */
const settingsOf = (request: TrainRequest, record: RunRecord | undefined): unknown =>
  request.method === undefined || request.method === record?.method
    ? over(record?.settings, request.settings)
    : request.settings

/** The settings of the environment: those given, on resuming over the run's where the environment is the same. */
const environmentSettingsOf = (
  { environment, environmentSettings }: TrainRequest,
  record: RunRecord | undefined,
  cwd: string,
): unknown => {
  const same =
    environment === undefined ||
    (typeof environment === "string" &&
      (namesFile(environment) ? resolve(cwd, environment) : environment) === record?.environment)
  return same ? over(record?.environmentSettings, environmentSettings) : environmentSettings
}

/** What a run works on. Reward models are opened where `models` is given, and only looked at for a plan. */
const prepareInputs = async (
  context: SlothContext,
  request: TrainRequest,
  models: OpenModels | undefined,
): Promise<Inputs> => {
  const { openMethodData, readTrainConfig, resolveTrainConfig } = await import("@sloth/train")
  const asked = absolutePaths(context.cwd, configOf(request))
  const folder = asked.run
  const record = request.resume === true && folder !== undefined ? readRunRecord(folder) : undefined
  // The instance's precision holds for a new run that names none; a resumed one has its own.
  const { precision } = context.backendOptions
  const given =
    record === undefined && asked.precision === undefined && precision !== undefined ? { ...asked, precision } : asked
  const resolved =
    record === undefined
      ? resolveTrainConfig(given)
      : readTrainConfig({
          ...record.config.config,
          ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
        })
  const objective = context.registry.get("objectives", request.method ?? record?.method ?? "sft") as Objective<Example>
  const model = request.model ?? record?.model
  if (model === undefined) throw needed("model")
  const asIs = request.data ?? (record === undefined || record.data.length === 0 ? undefined : record.data)
  const played = request.environment ?? record?.environment
  const environmentSettings = environmentSettingsOf(request, record, context.cwd)
  const chosen =
    played === undefined
      ? undefined
      : await resolveEnvironment(context.registry, context.cwd, played, environmentSettings)
  const data = asIs ?? chosen?.environment.rows
  if (data === undefined) throw needed("data")
  const template = request.template ?? record?.template
  const source = await resolveModel(context, model, { signal: request.signal })
  // A run given as the model means what it trained: its adapter goes on. On resuming, the checkpoint holds the adapter.
  const goesOn = record === undefined && source.adapter !== undefined && resolved.adapter === undefined
  if (goesOn && resolved.full)
    throw new SlothError("SLOTH_TRAIN_ADAPTER", {
      what: `The run ${model} trained an adapter, which full fine-tuning cannot go on with.`,
      next: "Export it as safetensors and train that model.",
      fields: { model },
    })
  const config = goesOn ? { ...given, adapter: source.adapter } : given
  const files = await openFiles(context, source)
  if (goesOn) context.logger.info(goesOnNote(model, resolved))
  const settings = settingsOf(request, record)
  const rollout = request.rollout ?? record?.rollout
  const registered = rollout === undefined ? undefined : context.registry.get("rollouts", rollout)
  const named = teacherOf(request.settings) ?? record?.teacher ?? teacherOf(settings)
  const teacher = named === undefined ? undefined : await openTeacher(context, named)
  const trackers = request.trackers ?? record?.trackers ?? []
  const commandLine = request.commandLine ?? record?.commandLine
  const how = {
    settings,
    tokenizer: files.tokenizer,
    registry: await context.readers(),
    cacheDir: context.paths.cache,
    ...(template === undefined ? {} : { template }),
    ...(request.signal === undefined ? {} : { signal: request.signal }),
  }
  const rows = isRows(data) ? data : dataPaths(context.cwd, data)
  const play = async (environment: ChosenEnvironment) => {
    // Episodes begin once here, and that may hang as well.
    using _watch = await watchStuck(request, objective, undefined)
    return await openEpisodes(objective, environment, rows, resolved, how, registered)
  }
  const episodes = chosen === undefined ? undefined : await play(chosen)
  const dataset = episodes?.data ?? (await openMethodData(objective, rows, resolved, how))
  // Last, because reward models are opened here.
  const { rewards, names, opened } = await resolveRewards(
    context.registry,
    context.cwd,
    request.rewards ?? record?.rewards ?? [],
    (spec) => openJudge(context, spec, models),
  )
  return {
    config,
    judges: opened,
    resolved,
    record,
    objective,
    settings,
    rewards: episodes === undefined ? rewards : [episodes.reward, ...rewards],
    rollout: episodes?.rollout ?? registered,
    teacher,
    trackers,
    inputs: {
      model: source.pinned,
      data: asIs === undefined ? [] : dataPaths(context.cwd, asIs),
      ...(names === undefined || names.length === 0 ? {} : { rewards: names }),
      ...(chosen?.name === undefined
        ? {}
        : {
            environment: chosen.name,
            environmentSettings: environmentSettings ?? null,
          }),
      ...(template === undefined ? {} : { template }),
      ...(rollout === undefined ? {} : { rollout }),
      ...(teacher === undefined ? {} : { teacher: teacher.pinned }),
      ...(trackers.length === 0 ? {} : { trackers }),
      ...(commandLine === undefined ? {} : { commandLine }),
    },
    prepared: { source, files, data: dataset },
  }
}

/** An engine for a run: the shared one, or one of its own where the configuration asks for other threads, memory or precision. */
const engineFor = async (
  context: SlothContext,
  config: Pick<TrainConfig, "threads" | "memoryBudget" | "precision">,
): Promise<{ readonly engine: Engine; readonly release: () => void }> => {
  const { backendOptions } = context
  const same =
    (config.threads === undefined || config.threads === backendOptions.threads) &&
    (config.memoryBudget === undefined || config.memoryBudget === backendOptions.memoryBudget) &&
    config.precision === (backendOptions.precision ?? "f32")
  if (same) return { engine: await context.engine(), release: () => undefined }
  const { engine } = await context.openEngine({
    ...backendOptions,
    ...(config.threads === undefined ? {} : { threads: config.threads }),
    ...(config.memoryBudget === undefined ? {} : { memoryBudget: config.memoryBudget }),
    precision: config.precision,
  })
  return { engine, release: () => engine[Symbol.dispose]() }
}

/** First free name `prefix-001`, `prefix-002`, ... in a folder of runs; that the folder is still free is checked when the run takes it. */
export const nextRunFolder = (runs: string, prefix: string): string => {
  const start =
    prefix
      .replace(/[^A-Za-z0-9._-]+/g, "-")
      .replace(/^[-.]+|[-.]+$/g, "")
      .slice(0, 80) || "run"
  const taken = (existsSync(runs) ? readdirSync(runs) : [])
    .filter((name) => name.startsWith(`${start}-`))
    .map((name) => Number(/^\d+$/.exec(name.slice(start.length + 1))?.[0] ?? 0))
  return join(runs, `${start}-${String(Math.max(0, ...taken) + 1).padStart(3, "0")}`)
}

/** Plans a run and touches nothing. Errors: those of `planRun`, of opening the model and of preparing the data. */
export const planTraining = async (context: SlothContext, request: PlanRequest): Promise<PlanOutcome> => {
  const { planRun } = await import("@sloth/train")
  const { config, resolved, objective, settings, rewards, rollout, teacher, prepared } = await prepareInputs(
    context,
    request,
    undefined,
  )
  const { engine, release } = await engineFor(context, resolved)
  try {
    const plan = await planRun({
      engine,
      model: prepared.files,
      data: prepared.data as OpenedRows<Example>,
      config,
      objective,
      rewards,
      ...(rollout === undefined ? {} : { rollout }),
      ...(teacher === undefined ? {} : { teacher: teacher.files }),
      ...(settings === undefined ? {} : { settings }),
      ...(request.measure === undefined ? {} : { measure: request.measure }),
      ...(request.signal === undefined ? {} : { signal: request.signal }),
    })
    return { ...prepared, plan }
  } finally {
    release()
  }
}

/** Ends the process where code of the user is stuck in a run that samples completions; `run` is its folder once it has one. */
const watchStuck = async (
  { onStuck }: TrainRequest,
  objective: Objective<Example>,
  run: string | undefined,
): Promise<Disposable | undefined> => {
  const { isOnline, resumeCommandOf } = await import("@sloth/train")
  if (onStuck === undefined || !isOnline(objective)) return undefined
  const { endStuckProcess } = await import("@sloth/rl")
  return endStuckProcess(({ code, what, why, fields }) =>
    onStuck(
      new SlothError(code as `SLOTH_${string}`, {
        what,
        why,
        next:
          run === undefined
            ? "Mend it, then run the same command again."
            : `Mend it, then go on: ${resumeCommandOf(run)}. Steps after the last checkpoint are made again, the same to the bit.`,
        fields,
      }),
    ),
  )
}

/** Trains. Errors: those of `train` of `@sloth/train`, of opening the model and of preparing the data. */
export const trainModel = async (
  context: SlothContext,
  models: OpenModels,
  request: TrainRequest,
): Promise<TrainOutcome> => {
  const { loraConfigOf, train } = await import("@sloth/train")
  const { readPeftConfig } = await import("@sloth/model")
  const { config, resolved, objective, settings, rewards, judges, rollout, teacher, inputs, prepared, ...more } =
    await prepareInputs(context, request, models)
  request.onPrepared?.(prepared)
  const trackers = more.trackers.map((name) => context.registry.get("trackers", name))
  const callbacks = [...context.registry.list("callbacks"), ...(request.callbacks ?? [])]
  const run = resolved.run ?? nextRunFolder(context.paths.runs, `${prepared.files.name}-${objective.name}`)
  using _watch = await watchStuck(request, objective, run)
  const { engine, release } = await engineFor(context, resolved)
  let kept = false
  try {
    const { model, ...outcome } = await train({
      engine,
      model: prepared.files,
      data: prepared.data as OpenedRows<Example>,
      config,
      run,
      objective,
      rewards,
      ...(rollout === undefined ? {} : { rollout }),
      ...(teacher === undefined ? {} : { teacher: teacher.files }),
      base: prepared.source.base,
      trackers,
      callbacks,
      logger: context.logger,
      resume: request.resume === true,
      record: { command: request.command ?? "train", inputs: { ...inputs }, versions: context.versions },
      ...(settings === undefined ? {} : { settings }),
      ...(request.onEvent === undefined ? {} : { onEvent: request.onEvent }),
      ...(request.measure === undefined ? {} : { measure: request.measure }),
      ...(request.keepModel === true ? { keepModel: true } : {}),
      ...(request.signal === undefined ? {} : { signal: request.signal }),
    })
    if (model === undefined) return { ...outcome, opened: undefined }
    kept = true
    const adapter = config.adapter ?? resolved.adapter
    const lora = resolved.full
      ? undefined
      : adapter === undefined
        ? loraConfigOf(resolved)
        : readPeftConfig(adapter).config
    const source = { ...prepared.source, run: outcome.run }
    return { ...outcome, opened: models.wrap(source, prepared.files, model, lora, release) }
  } finally {
    for (const judge of judges) judge.dispose()
    if (!kept) release()
  }
}
