import { join } from "node:path"
import {
  hashFile,
  readRunConfig,
  requireSameInputs,
  RunDirectory,
  silentLogger,
  slothVersion,
  SlothError,
  type Logger,
  type RolloutFactory,
  type RunConfig,
} from "@sloth/core"
import type { Example } from "@sloth/data"
import type { CausalLM, LoraConfig } from "@sloth/model"
import type { Engine } from "@sloth/tensor"
import { extraFiles, latestCheckpoint, restoreCheckpoint, type CheckpointManifest } from "./checkpoint.ts"
import { readTrainConfig, resolveTrainConfig, type TrainConfig } from "./config.ts"
import { hashUnits } from "./data.ts"
import { residentBytes } from "./internal/machine.ts"
import { makeTrainable, withAdapterSettings } from "./model-files.ts"
import {
  decodeSettings,
  isCritic,
  wantsReference,
  wantsScoreHead,
  type Objective,
  type TrainingUnit,
} from "./objective.ts"
import { isOnline, type OnlineObjective, type UnitSource } from "./online.ts"
import { AdamW, parameterGroups } from "./optimizer.ts"
import { writeAdapterFolder } from "./outputs.ts"
import type { MeterOptions } from "./meter.ts"
import type { RunPlan } from "./plan.ts"
import { planUnits } from "./planner.ts"
import { StepPositions } from "./position.ts"
import { hashConfig, requireSameConfig, settingsDifferences } from "./resume.ts"
import { RunSession } from "./run-session.ts"
import { SampleLog } from "./sample-log.ts"
import { sft } from "./sft.ts"
import { StepLoop, type Prepared } from "./step-loop.ts"
import { REFERENCE_FILE, SyncedReference } from "./synced-reference.ts"
import { requireTeacher } from "./teacher.ts"
import type { PlanOptions, TrainOptions, TrainResult } from "./train-options.ts"

const prepare = async <Row>(options: PlanOptions<Row>): Promise<Prepared> => {
  const objective = options.objective ?? (sft as unknown as Objective<Row>)
  const online = isOnline(objective) ? objective : undefined
  const decoded = decodeSettings(objective, options.settings)
  const settings = online?.online.settings === undefined ? decoded : online.online.settings(decoded, options.rollout)
  const context = { settings, signal: options.signal }
  const units = await objective.prepare(options.data.examples, context)
  const evaluationUnits = await objective.prepare(options.data.heldOut ?? [], context)
  if (online === undefined && options.rewards !== undefined && options.rewards.length > 0)
    throw new SlothError("SLOTH_TRAIN_REWARDS", {
      what: `The method "${objective.name}" takes no rewards: it generates nothing to judge.`,
      next: "Leave them out, or choose a method such as grpo.",
      fields: { method: objective.name },
    })
  const loss = objective.loss(settings)
  requireTeacher(loss, objective.name, options.model, options.teacher)
  online?.online.check?.(settings, options.rewards ?? [])
  return {
    method: objective.name,
    settings,
    loss,
    reuse: online?.online.reuse(settings),
    reference: wantsReference(loss) || online?.online.reference?.(settings) === true,
    units,
    evaluationUnits,
  }
}

/** Forecasts lay buffers out as the engine's backend does. */
const meterOf = ({ backend }: Engine): MeterOptions => {
  const model = backend.memoryModel?.()
  return model === undefined ? {} : { model }
}

/** What the planner has to know of a method that makes its units during the run. */
const planOnline = <Row>(
  objective: Objective<Row> | undefined,
  { reuse, units, settings }: Prepared,
  config: TrainConfig,
  rollout: RolloutFactory | undefined,
) => {
  if (reuse === undefined || objective === undefined || !isOnline(objective)) return {}
  const { splitForecast, rehearse, keeps } = objective.online
  const kept = keeps?.(units, config, settings, rollout)
  return {
    online: {
      reuse,
      ...(splitForecast === undefined ? {} : { splitForecast }),
      // What another program samples with takes no memory here.
      ...(rehearse === undefined || rollout?.elsewhere === true
        ? {}
        : {
            rehearse: (model: CausalLM, teacher: CausalLM | undefined, held: number) =>
              rehearse(model, units, config, settings, teacher, held),
          }),
      ...(kept === undefined ? {} : { kept }),
    },
  }
}

/** Memory that rewards hold while the run lasts, in bytes. */
const heldByRewards = (rewards: PlanOptions["rewards"] = []): number =>
  rewards.reduce((n, { memoryBytes = 0 }) => n + memoryBytes, 0)

/** The engine computes as the configuration says, or nothing begins. */
const requirePrecision = (config: TrainConfig, { backend }: Engine): void => {
  const has = backend.device.precision ?? "f32"
  if (has === config.precision) return
  throw new SlothError("SLOTH_TRAIN_PRECISION", {
    what: `The configuration asks for precision ${config.precision}, but the engine computes with ${has}.`,
    next: `Open its backend with precision "${config.precision}", or set the configuration's to ${has === "int8" ? '"f32" or "bf16"' : `"${has}"`}.`,
    fields: { precision: config.precision, engine: has },
  })
}

/** A reference is the model with its adapter off or as it was: it must not be trained itself. */
const requireReference = (config: TrainConfig, { reference, method }: Prepared): void => {
  if (!reference || (!config.full && config.modulesToSave.length === 0)) return
  throw new SlothError("SLOTH_TRAIN_REFERENCE", {
    what: `The method "${method}" compares with a reference model, but the weights that it would be made of are trained.`,
    why: config.full
      ? "Full fine-tuning keeps no copy of the model as it was."
      : `modulesToSave trains ${config.modulesToSave.join(", ")} whole.`,
    next: "Train an adapter without modulesToSave, take a method without a reference, or switch its term off (beta 0) where it has one.",
    fields: { method, full: config.full, modulesToSave: config.modulesToSave },
  })
}

const requireEvaluationData = (config: TrainConfig, units: readonly TrainingUnit[]): void => {
  if (config.evalEvery === 0 || units.length > 0) return
  throw new SlothError("SLOTH_TRAIN_NO_EVAL_DATA", {
    what: `evalEvery is ${config.evalEvery}, but there are no rows to evaluate on.`,
    next: "Name a file with evalData, hold rows out with evalFraction, or leave evalEvery at 0.",
  })
}

/**
 * Plans a run and touches nothing: what would be trained, in what micro-batches, with how much memory, disk and time. `formatPlan` prints it.
 * Errors: SLOTH_CONFIG_INVALID, SLOTH_TRAIN_PRECISION when the engine computes with another precision than the configuration's, SLOTH_PLAN_NO_SCORED, SLOTH_PLAN_MEMORY, SLOTH_PLAN_DISK, SLOTH_ADAPTER_*.
 */
export const planRun = async <Row = Example>(
  options: PlanOptions<Row> & { readonly run?: string },
): Promise<RunPlan> => {
  const given = options.config ?? {}
  const config = withAdapterSettings(resolveTrainConfig(given), given)
  requirePrecision(config, options.engine)
  const runtimeBytes = residentBytes()
  const prepared = await prepare(options)
  requireEvaluationData(config, prepared.evaluationUnits)
  requireReference(config, prepared)
  using model = options.measure === false ? undefined : options.model.build(options.engine)
  const directory = options.run ?? config.run
  // Awaited here, because the model is measured until the plan is there.
  return await planUnits({
    ...prepared,
    ...planOnline(options.objective, prepared, config, options.rollout),
    rewardBytes: heldByRewards(options.rewards),
    model: options.model,
    ...(options.teacher === undefined ? {} : { teacher: options.teacher }),
    config,
    memoryBytes: options.engine.backend.device.memoryBytes,
    runtimeBytes,
    ...(directory === undefined ? {} : { directory }),
    ...(model === undefined ? {} : { measure: model }),
    meter: options.meter ?? meterOf(options.engine),
  })
}

const hashAdapter = async (folder: string): Promise<string> =>
  `${await hashFile(join(folder, "adapter_config.json"))}-${await hashFile(join(folder, "adapter_model.safetensors"))}`

const runtimeVersion = (): Record<string, string> => {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>
  return bun !== undefined ? { bun } : deno !== undefined ? { deno } : node !== undefined ? { node } : {}
}

/**
 * Trains a model: plan, run folder, optimizer steps, evaluations, checkpoints, final adapter or weights. An abort finishes the step, saves a checkpoint and returns.
 * The engine stays the caller's.
 * Errors: those of {@link planRun}; SLOTH_RUN_*; on resuming SLOTH_RUN_INPUT_CHANGED, SLOTH_RESUME_CONFIG, SLOTH_RESUME_NO_CHECKPOINT; SLOTH_TRAIN_NAN (the last good
 * checkpoint is kept), SLOTH_CALLBACK_FAILED, SLOTH_DISK_FULL when the result cannot be written.
 */
export const train = async <Row = Example>(options: TrainOptions<Row>): Promise<TrainResult> => {
  const folder = options.run ?? options.config?.run
  if (options.resume === true) {
    if (folder === undefined)
      throw new SlothError("SLOTH_RESUME_NO_RUN", {
        what: "There is no run folder to resume.",
        next: "Name it with run.",
      })
    const stored = readRunConfig(folder)
    const directory = await RunDirectory.resume(folder)
    try {
      return await new Training(options, directory, stored).run()
    } finally {
      directory.close()
    }
  }
  return new Training(options, undefined, undefined).run()
}

/** One call of {@link train}. */
class Training<Row> {
  readonly #options: TrainOptions<Row>
  readonly #stored: RunConfig | undefined
  readonly #logger: Logger
  #directory: RunDirectory | undefined

  constructor(options: TrainOptions<Row>, directory: RunDirectory | undefined, stored: RunConfig | undefined) {
    this.#options = options
    this.#directory = directory
    this.#stored = stored
    this.#logger = options.logger ?? silentLogger()
  }

  async run(): Promise<TrainResult> {
    const options = this.#options
    const runtimeBytes = residentBytes()
    const config = this.#config()
    requirePrecision(config, options.engine)
    const prepared = await prepare(options)
    requireEvaluationData(config, prepared.evaluationUnits)
    requireReference(config, prepared)
    const resumed = await this.#checkpoint()

    const model = options.model.build(options.engine)
    let handedOver = false
    try {
      const plan = await planUnits({
        ...prepared,
        ...planOnline(options.objective, prepared, config, options.rollout),
        rewardBytes: heldByRewards(options.rewards),
        model: options.model,
        ...(options.teacher === undefined ? {} : { teacher: options.teacher }),
        config,
        memoryBytes: options.engine.backend.device.memoryBytes,
        runtimeBytes,
        directory: this.#directory?.paths.root ?? options.run ?? config.run ?? ".",
        ...(options.measure === false ? {} : { measure: model }),
        meter: options.meter ?? meterOf(options.engine),
        ...(this.#stored === undefined ? {} : { decided: storedPlan(this.#stored) }),
      })
      const adapterFolder = resumed?.manifest.kind === "adapter" ? resumed.entry.path : config.adapter
      const { loss } = prepared
      const sync = loss.kind === "logprobs" ? loss.syncReference : undefined
      const lora = makeTrainable(model, config, adapterFolder, {
        scoreHead: wantsScoreHead(loss),
        reference: prepared.reference && sync === undefined,
      })
      using optimizer = new AdamW(model.engine, parameterGroups(model, config), config)
      using teacher = options.teacher?.build(model.engine)
      using reference =
        sync === undefined ? undefined : new SyncedReference(model, sync, comparesWithStart(config, prepared))
      if (resumed !== undefined) {
        restoreCheckpoint(resumed.entry.path, resumed.manifest, model, optimizer)
        restoreState(prepared, resumed.manifest)
        reference?.restore(extraFiles(resumed.entry.path, resumed.manifest).get(REFERENCE_FILE))
      }

      const hashes = {
        model: options.model.fingerprint,
        ...(options.teacher === undefined ? {} : { teacher: options.teacher.fingerprint }),
        data: options.data.examplesHash ?? hashUnits(prepared.units),
        // A resumed run has its adapter in the checkpoint; it reads the first one again only to compare with it.
        ...(config.adapter === undefined || (this.#stored !== undefined && !comparesWithStart(config, prepared))
          ? {}
          : { adapter: await hashAdapter(config.adapter) }),
      }
      const rewards = (options.rewards ?? []).map(({ name, weight }) => ({ name, weight: weight ?? 1 }))
      const settings = this.#decisive(prepared.settings)
      const decisive = prepared.reuse === undefined ? settings : { settings, rewards }
      const configHash = hashConfig(config, prepared.method, decisive, plan)
      if (this.#stored !== undefined) this.#requireSame(hashes, configHash, prepared, resumed?.manifest)
      const directory = await this.#open(config, plan, hashes, prepared)
      options.engine.scratchFolder = directory.paths.root
      const session = await RunSession.open(
        directory,
        config,
        this.#stored === undefined ? undefined : (resumed?.manifest.step ?? 0),
        {
          trackers: options.trackers ?? [],
          callbacks: options.callbacks ?? [],
          onEvent: options.onEvent,
          logger: this.#logger,
        },
      )
      await using opened = await this.#openSource(model, config, prepared, plan, session, resumed, lora, {
        reference,
        teacher,
      }).catch(async (error: unknown) => {
        session.fail(error, resumed?.manifest.step ?? 0)
        await session.close()
        throw error
      })
      const loop = new StepLoop({
        source: opened.source,
        reference,
        teacher,
        options: options as TrainOptions<never>,
        config,
        prepared,
        plan,
        model,
        optimizer,
        lora,
        session,
        configHash,
        dataHash: hashes.data,
        resumed: resumed?.manifest,
      })
      try {
        await session.emit({
          type: "run-start",
          time: new Date().toISOString(),
          run: directory.name,
          version: slothVersion(),
          command: options.record?.command ?? "train",
          seed: config.seed,
          config,
          ...(this.#stored === undefined ? {} : { resumedFromStep: resumed?.manifest.step ?? 0 }),
        })
        await session.emit({ type: "plan", time: new Date().toISOString(), plan: { ...plan } })
        for (const error of resumed?.damaged ?? [])
          await session.warn(error.code, error.message, resumed?.manifest.step, error.fields)
        const result = await loop.run()
        if (options.keepModel === true) {
          handedOver = true
          // Adapters off means the base model again.
          model.dropReference()
          return { ...result, model }
        }
        return result
      } catch (error) {
        session.fail(error, loop.step)
        throw error
      } finally {
        await session.close()
      }
    } finally {
      options.engine.closeSpill()
      this.#directory?.close()
      if (!handedOver) model[Symbol.dispose]()
      else model.clearGradients()
    }
  }

  /** The source of a method that makes its units during the run, as it stood at the checkpoint. */
  async #openSource(
    model: CausalLM,
    config: TrainConfig,
    prepared: Prepared,
    plan: RunPlan,
    session: RunSession,
    resumed: Awaited<ReturnType<typeof latestCheckpoint>>,
    lora: LoraConfig | undefined,
    { reference, teacher }: { readonly reference: SyncedReference | undefined; readonly teacher: CausalLM | undefined },
  ): Promise<{ readonly source: UnitSource | undefined } & AsyncDisposable> {
    const options = this.#options
    const { objective, data, rewards = [], rollout, signal } = options
    if (prepared.reuse === undefined || objective === undefined)
      return { source: undefined, [Symbol.asyncDispose]: () => Promise.resolve() }
    const { online } = objective as OnlineObjective<Row>
    const { tokenizer } = options.model
    if (tokenizer === undefined)
      throw new SlothError("SLOTH_TRAIN_TOKENIZER", {
        what: `The method "${objective.name}" generates, for which the model needs a tokenizer.`,
        next: "Open the model with openModelFiles, or add its tokenizer.",
      })
    const started = resumed?.manifest.step ?? 0
    const samples = await SampleLog.open(
      session.directory.paths.samples,
      this.#stored === undefined ? undefined : started,
    )
    let source: UnitSource | undefined
    try {
      source = await online.open(data.examples, data.heldOut ?? [], {
        model,
        tokenizer,
        config,
        steps: new StepPositions(prepared.units.length, config, prepared.reuse).total,
        settings: prepared.settings,
        split: { tokenBudget: plan.tokenBudget, packing: plan.packing, policy: plan.policy },
        keptPrompts: plan.kept?.prompts ?? 0,
        rewards,
        ...(reference === undefined ? {} : { reference }),
        ...(teacher === undefined ? {} : { teacher }),
        rollout,
        ...(lora === undefined
          ? {}
          : {
              saveAdapter: (folder: string) =>
                writeAdapterFolder(model, folder, lora, options.base ?? options.model.path, {
                  critic: isCritic(prepared.loss),
                }),
            }),
        signal,
        warn: (code, message, step, fields) => session.warn(code, message, step, fields),
        record: (lines) => samples.append(lines),
        show: (sample) => session.emit({ type: "sample", time: new Date().toISOString(), phase: "during", ...sample }),
      })
      if (resumed !== undefined) source.restore(extraFiles(resumed.entry.path, resumed.manifest))
    } catch (error) {
      samples[Symbol.dispose]()
      await source?.[Symbol.asyncDispose]()
      throw error
    }
    const opened = source
    return {
      source: opened,
      [Symbol.asyncDispose]: async () => {
        samples[Symbol.dispose]()
        await opened[Symbol.asyncDispose]()
      },
    }
  }

  #config(): TrainConfig {
    const input = this.#options.config ?? {}
    if (this.#stored === undefined) return withAdapterSettings(resolveTrainConfig(input), input)
    const was = readTrainConfig(this.#stored.config)
    const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined))
    const now = readTrainConfig({ ...this.#stored.config, ...given })
    requireSameConfig(was, now, this.#directory!.paths.root)
    return now
  }

  #checkpoint() {
    return this.#directory === undefined ? Promise.resolve(undefined) : latestCheckpoint(this.#directory.checkpoints())
  }

  #requireSame(
    hashes: Readonly<Record<string, string>>,
    configHash: string,
    { method, settings }: Prepared,
    manifest: CheckpointManifest | undefined,
  ): void {
    const stored = this.#stored!
    const root = this.#directory!.paths.root
    requireSameInputs(stored.hashes, hashes, root)
    if (stored.details?.["method"] !== method)
      throw new SlothError("SLOTH_RESUME_CONFIG", {
        what: `The run in ${root} was made with the method "${String(stored.details?.["method"])}", not "${method}".`,
        next: "Resume with the same method, or start a new run.",
        fields: { path: root, was: stored.details?.["method"], now: method },
      })
    if (manifest === undefined) return
    const belongs = {
      settings: manifest.configHash === configHash,
      model: manifest.modelFingerprint === hashes["model"],
      data: manifest.dataHash === hashes["data"],
    }
    const wrong = Object.entries(belongs).flatMap(([name, same]) => (same ? [] : [name]))
    if (wrong.length === 0) return
    const why = belongs.settings
      ? ""
      : settingsDifferences(
          { settings: this.#decisive(stored.details?.["settings"]), rewards: stored.details?.["rewards"] },
          { settings: this.#decisive(settings), rewards: rewardNames(this.#options.rewards) },
        )
    throw new SlothError("SLOTH_RESUME_CONFIG", {
      what: `The checkpoint of step ${manifest.step} in ${root} belongs to other ${wrong.join(" and ")}.`,
      ...(why === "" ? {} : { why }),
      // Where nothing of the run was changed, the checkpoint is not its own.
      next:
        why === ""
          ? "Remove the checkpoint to resume from an earlier one, or start a new run."
          : "Leave out what was changed, or start a new run.",
      fields: { path: root, step: manifest.step, differ: wrong },
    })
  }

  /** The method's settings as far as they decide the numbers of a run. */
  #decisive(settings: unknown): unknown {
    const { objective } = this.#options
    const online = objective !== undefined && isOnline(objective) ? objective.online : undefined
    return settings === undefined || online?.decisive === undefined ? settings : online.decisive(settings)
  }

  async #open(
    config: TrainConfig,
    plan: RunPlan,
    hashes: Readonly<Record<string, string>>,
    { method, settings }: Prepared,
  ): Promise<RunDirectory> {
    const { options, stored } = { options: this.#options, stored: this.#stored }
    if (this.#directory === undefined) {
      const folder = options.run ?? config.run
      this.#directory = await RunDirectory.create(
        folder === undefined ? { prefix: `${options.model.name}-${method}` } : { directory: folder },
      )
    }
    await this.#directory.writeConfig({
      command: options.record?.command ?? stored?.command ?? "train",
      config,
      versions: { "@sloth/core": slothVersion(), ...runtimeVersion(), ...options.record?.versions },
      hashes: { ...stored?.hashes, ...hashes },
      details: {
        method,
        settings: settings ?? null,
        ...(options.rewards === undefined || options.rewards.length === 0
          ? {}
          : { rewards: rewardNames(options.rewards) }),
        statement: options.data.statement ?? null,
        plan,
        ...(options.record?.inputs === undefined
          ? stored?.details?.["inputs"] === undefined
            ? {}
            : { inputs: stored.details["inputs"] }
          : { inputs: options.record.inputs }),
      },
    })
    return this.#directory
  }
}

/** Rewards as a record names them: with their weights where these are not 1. */
const rewardNames = (rewards: PlanOptions["rewards"] = []): string =>
  rewards.map(({ name, weight = 1 }) => (weight === 1 ? name : `${name}=${weight}`)).join(", ")

/** True where the reference model is the adapter that the run started from. */
const comparesWithStart = (config: TrainConfig, { reference }: Prepared): boolean =>
  reference && config.adapter !== undefined && config.referenceModel === "start"

/** Gives a loss back what it remembered. Errors: SLOTH_RESUME_STATE. */
const restoreState = ({ loss, method }: Prepared, manifest: CheckpointManifest): void => {
  if (loss.kind !== "logprobs" || loss.state === undefined) return
  if (manifest.method === undefined)
    throw new SlothError("SLOTH_RESUME_STATE", {
      what: `The checkpoint of step ${manifest.step} does not hold what the method "${method}" remembers.`,
      why: "An earlier version saved it.",
      next: "Start a new run; its adapter setting may name the adapter of the old one.",
      fields: { step: manifest.step, method },
    })
  loss.state.restore(manifest.method)
}

/** What an earlier start decided about micro-batches and rollouts: the resumed run must add up in the same order. */
const storedPlan = (stored: RunConfig): Pick<RunPlan, "tokenBudget" | "policy" | "packing" | "kept"> => {
  const plan = stored.details?.["plan"] as Partial<RunPlan> | undefined
  if (plan?.tokenBudget === undefined || plan.policy === undefined || plan.packing === undefined)
    throw new SlothError("SLOTH_RUN_NOT_A_RUN", {
      what: "The config.json of the run holds no plan.",
      next: "Start a new run.",
    })
  const { tokenBudget, policy, packing, kept } = plan
  return { tokenBudget, policy, packing, ...(kept === undefined ? {} : { kept }) }
}
