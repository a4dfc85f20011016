import { join, relative } from "node:path"
import { isSlothError, SlothError, type RunEvent } from "@sloth/core"
import type { CausalLM, LoraConfig } from "@sloth/model"
import {
  pruneCheckpoints,
  saveCheckpoint,
  type BestEvaluation,
  type CheckpointManifest,
  type RunTotals,
} from "./checkpoint.ts"
import type { TrainConfig } from "./config.ts"
import { evaluateUnits, type Evaluation } from "./evaluate.ts"
import { peakResidentBytes } from "./internal/machine.ts"
import { yieldToLoop } from "./internal/yield.ts"
import { isCritic, type ObjectiveLoss, type TrainingUnit } from "./objective.ts"
import type { Collected, Reuse, UnitSource } from "./online.ts"
import type { AdamW } from "./optimizer.ts"
import { writeAdapterFolder, writeWeightsFolder } from "./outputs.ts"
import type { RunPlan } from "./plan.ts"
import { StepPositions } from "./position.ts"
import { resumeCommandOf } from "./resume-command.ts"
import type { RunSession } from "./run-session.ts"
import { scheduleFactor } from "./schedule.ts"
import { firstNonFinite, StepRunner } from "./step-runner.ts"
import { REFERENCE_FILE, type SyncedReference } from "./synced-reference.ts"
import type { TrainOptions, TrainResult } from "./train-options.ts"

/** Rows of a run as its objective made them. */
export interface Prepared {
  readonly method: string
  /** The method's own settings, decoded. */
  readonly settings: unknown
  readonly loss: ObjectiveLoss
  /** For a method that makes its units during the run: how often it uses them. */
  readonly reuse: Reuse | undefined
  /** True where the method compares with a reference model. */
  readonly reference: boolean
  /** Rows as units; a forecast of them where they are made during the run. */
  readonly units: readonly TrainingUnit[]
  readonly evaluationUnits: readonly TrainingUnit[]
}

/** What the loop works on. */
export interface LoopInput {
  readonly options: TrainOptions<never>
  readonly config: TrainConfig
  readonly prepared: Prepared
  readonly plan: RunPlan
  readonly model: CausalLM
  readonly optimizer: AdamW
  readonly lora: LoraConfig | undefined
  readonly session: RunSession
  readonly configHash: string
  readonly dataHash: string
  readonly resumed: CheckpointManifest | undefined
  /** Makes the units of each step, for methods that do. */
  readonly source: UnitSource | undefined
  /** The reference that follows the policy. */
  readonly reference: SyncedReference | undefined
  readonly teacher: CausalLM | undefined
}

/** The steps of a run, from where it stands to its end. */
export class StepLoop {
  readonly #in: LoopInput
  readonly #positions: StepPositions
  readonly #runner: StepRunner
  /** Steps done. */
  step: number
  #totals: RunTotals
  #best: BestEvaluation | undefined
  #evaluation: Evaluation | undefined
  /** True while units are made. */
  #collecting = false
  /** Step of the newest checkpoint that is complete. */
  #saved: number | undefined

  constructor(input: LoopInput) {
    this.#in = input
    const { config, plan, prepared, resumed } = input
    this.#positions = new StepPositions(prepared.units.length, config, prepared.reuse)
    this.#runner = new StepRunner(input.model, input.optimizer, {
      loss: prepared.loss,
      policy: plan.policy,
      tokenBudget: plan.tokenBudget,
      packing: plan.packing,
      seed: config.seed,
      maxGradNorm: config.maxGradNorm,
      ...(input.reference === undefined ? {} : { reference: input.reference }),
      ...(input.teacher === undefined ? {} : { teacher: input.teacher }),
    })
    this.step = resumed?.step ?? 0
    this.#saved = resumed?.step
    this.#totals = resumed?.totals ?? { tokens: 0, scoredTokens: 0, seconds: 0, loss: Number.NaN }
    this.#best = resumed?.best
  }

  async run(): Promise<TrainResult> {
    const { options, config, session, prepared } = this.#in
    const { control } = session
    const total = this.#positions.total
    const isAborted = (): boolean => options.signal?.aborted === true
    let status: TrainResult["status"] = "completed"
    while (this.step < total) {
      if (isAborted()) {
        // The signal may have come after the last step's turn to save.
        if (this.step > 0 && this.#saved !== this.step) await this.#save(true)
        status = "interrupted"
        break
      }
      if (control.stopReason !== undefined) {
        status = "stopped"
        break
      }
      const step = this.step + 1
      let event: RunEvent
      try {
        event = await this.#trainStep(step)
      } catch (error) {
        // While units are made nothing has changed yet: an abort ends the run as between two steps, and a failure loses no step that is done.
        const aborted = isAborted() && error === options.signal?.reason
        if (this.step > 0 && this.#saved !== this.step && (aborted || this.#collecting)) await this.#save(true)
        if (!aborted) throw this.#collecting ? this.#withResume(error) : error
        status = "interrupted"
        break
      }
      const aborted = isAborted()
      const logged = step === 1 || step === total || step % config.logEvery === 0 || aborted
      if (logged) await session.emit(event)
      const ends = (): boolean => step === total || control.stopReason !== undefined
      if (
        prepared.evaluationUnits.length > 0 &&
        !aborted &&
        (ends() || control.evaluationWanted || (config.evalEvery > 0 && step % config.evalEvery === 0))
      )
        await this.#evaluate()
      if (
        ends() ||
        aborted ||
        control.checkpointWanted ||
        this.#best?.step === step ||
        (config.saveEvery > 0 && step % config.saveEvery === 0)
      )
        await this.#save(ends() || aborted)
      if (control.stopReason !== undefined && step < total) {
        if (!logged) await session.emit(event)
        status = "stopped"
        break
      }
      await yieldToLoop()
    }
    return this.#finish(status)
  }

  /** The units of a step: rows of the data set, or what the method makes now. */
  async #units(step: number): Promise<Collected> {
    const { prepared, source } = this.#in
    if (source === undefined)
      return { units: Array.from(this.#positions.indices(step), (i) => prepared.units[i]!), metrics: {} }
    this.#collecting = true
    const collected = await source.collect(step, (s) => this.#positions.indices(s))
    this.#collecting = false
    return collected
  }

  async #trainStep(step: number): Promise<RunEvent> {
    const { config, source } = this.#in
    const started = performance.now()
    const { units, metrics: made } = await this.#units(step)
    const collected = performance.now()
    const factor = scheduleFactor(config, step, this.#positions.total)
    const result = await this.#runner.run(step, units, factor).catch((error: unknown) => {
      throw this.#withCheckpoint(error)
    })
    const seconds = (performance.now() - started) / 1000
    this.step = step
    const metrics: Readonly<Record<string, number>> =
      source === undefined
        ? result.metrics
        : { ...made, ...result.metrics, "seconds/train": (performance.now() - collected) / 1000 }
    await source?.trained?.(step, metrics)
    this.#totals = {
      tokens: this.#totals.tokens + result.tokens,
      scoredTokens: this.#totals.scoredTokens + result.scoredTokens,
      seconds: this.#totals.seconds + seconds,
      loss: result.loss,
    }
    return {
      type: "step",
      step,
      loss: result.loss,
      gradNorm: result.gradNorm,
      learningRate: config.learningRate * factor,
      tokens: result.tokens,
      scoredTokens: result.scoredTokens,
      seconds,
      tokensPerSecond: result.tokens / seconds,
      peakRssBytes: peakResidentBytes(),
      ...(Object.keys(metrics).length === 0 ? {} : { metrics }),
    }
  }

  /** Says in the error of what makes units, such as a reward, how to go on once it is mended. */
  #withResume(error: unknown, left = ""): unknown {
    // A rollout that is lost is missing in the resumed run too.
    if (!isSlothError(error) || error.code === "SLOTH_RL_ROLLOUT_LOST" || this.#saved !== this.step) return error
    const { code, what, why, next = "", fields } = error
    const command = resumeCommandOf(this.#in.session.directory.paths.root)
    return new SlothError(code as `SLOTH_${string}`, {
      what,
      why,
      next: `${next} ${left === "" ? "Nothing is lost: s" : "S"}tep ${this.step} is saved, and ${command} goes on${left}.`.trimStart(),
      fields: { ...fields, checkpoint: this.step },
      cause: error,
    })
  }

  /** Says in a NaN error which checkpoint is good. */
  #withCheckpoint(error: unknown): unknown {
    if (!isSlothError(error) || error.code !== "SLOTH_TRAIN_NAN") return error
    const good =
      this.#saved === undefined ? "No checkpoint was saved before." : `The checkpoint of step ${this.#saved} is good.`
    return new SlothError("SLOTH_TRAIN_NAN", {
      what: error.what,
      why: error.why,
      next: `${error.next} ${good}`,
      fields: { ...error.fields, checkpoint: this.#saved },
    })
  }

  /** Evaluates and records it; an abort in the middle leaves it out, because the run has to save and end. */
  async #evaluate(): Promise<void> {
    const { model, options, plan, prepared, session } = this.#in
    session.control.evaluationWanted = false
    let evaluation: Evaluation
    try {
      const { source } = this.#in
      const started = performance.now()
      if (source?.evaluate !== undefined) {
        const judged = await source.evaluate(this.step)
        const seconds = (performance.now() - started) / 1000
        evaluation = { ...judged, perplexity: undefined, tokens: judged.scoredTokens, seconds }
      } else
        evaluation = await evaluateUnits(model, prepared.evaluationUnits, {
          tokenBudget: plan.tokenBudget,
          loss: prepared.loss,
          ...(this.#in.reference === undefined ? {} : { reference: this.#in.reference }),
          ...(this.#in.teacher === undefined ? {} : { teacher: this.#in.teacher }),
          ...(options.signal === undefined ? {} : { signal: options.signal }),
        })
    } catch (error) {
      if (options.signal?.aborted === true && error === options.signal.reason) return
      // A reward may have failed; the steps that are done are not its fault.
      if (this.#saved !== this.step) await this.#save(true)
      throw this.#withResume(error, " without this evaluation")
    }
    this.#evaluation = evaluation
    const best = this.#best === undefined || evaluation.loss < this.#best.loss
    if (best) this.#best = { step: this.step, loss: evaluation.loss }
    await session.emit({
      type: "eval",
      time: new Date().toISOString(),
      step: this.step,
      loss: evaluation.loss,
      ...(evaluation.perplexity === undefined ? {} : { perplexity: evaluation.perplexity }),
      scoredTokens: evaluation.scoredTokens,
      seconds: evaluation.seconds,
      best,
      ...(Object.keys(evaluation.metrics).length === 0 ? {} : { metrics: evaluation.metrics }),
    })
  }

  /** What a checkpoint holds besides weights and optimizer. */
  async #extraFiles(): Promise<ReadonlyMap<string, Uint8Array>> {
    const { source, reference } = this.#in
    const files = new Map(source?.save())
    if (reference !== undefined) files.set(REFERENCE_FILE, await reference.save())
    return files
  }

  /** Saves a checkpoint. A full disk is a warning while the run goes on, and an error when it was the last chance. */
  async #save(last: boolean): Promise<void> {
    const { config, model, optimizer, lora, session, options } = this.#in
    const { loss } = this.#in.prepared
    const { directory, control } = session
    control.checkpointWanted = false
    const bad = await firstNonFinite(model, optimizer.parameters)
    if (bad !== undefined)
      throw this.#withCheckpoint(
        new SlothError("SLOTH_TRAIN_NAN", {
          what: `Step ${this.step} made a number that is not finite, first in the parameter ${bad}.`,
          why: "It was found before a checkpoint was saved.",
          next: "Lower learningRate, or raise epsilon.",
          fields: { step: this.step, tensor: `parameter ${bad}` },
        }),
      )
    const folder = directory.checkpointPath(this.step)
    const started = performance.now()
    // Tensors pass through host memory on their way to the file; what the passes have left behind makes room for it.
    model.engine.backend.memory.trim()
    let bytes: number
    try {
      bytes = await saveCheckpoint(
        folder,
        model,
        optimizer,
        {
          step: this.step,
          ...this.#positions.at(this.step + 1),
          random: { generator: "philox4x32-10", seed: config.seed, step: this.step },
          totals: this.#totals,
          best: this.#best,
          ...(loss.kind === "logprobs" && loss.state !== undefined ? { method: loss.state.save() } : {}),
          configHash: this.#in.configHash,
          modelFingerprint: options.model.fingerprint,
          dataHash: this.#in.dataHash,
        },
        lora === undefined ? undefined : { lora, base: options.base ?? options.model.path },
        await this.#extraFiles(),
      )
    } catch (error) {
      const full = isSlothError(error) && (error.code === "SLOTH_DISK_FULL" || error.code === "SLOTH_DISK_SPACE")
      if (last || !full) throw error
      await session.warn(
        error.code,
        `The checkpoint of step ${this.step} could not be saved: ${error.message} The run goes on; ${
          this.#saved === undefined
            ? "there is no earlier checkpoint"
            : `the checkpoint of step ${this.#saved} is intact`
        }.`,
        this.step,
      )
      return
    }
    this.#saved = this.step
    await session.emit({
      type: "checkpoint",
      time: new Date().toISOString(),
      step: this.step,
      path: relative(directory.paths.root, folder),
      bytes,
      seconds: (performance.now() - started) / 1000,
      best: this.#best?.step === this.step,
    })
    pruneCheckpoints(directory.checkpoints(), config.keepCheckpoints, this.#best?.step)
  }

  async #finish(status: TrainResult["status"]): Promise<TrainResult> {
    const { model, lora, session, options, plan } = this.#in
    const { directory, control } = session
    const { root } = directory.paths
    let adapter: string | undefined
    let weights: string | undefined
    const base = options.base ?? options.model.path
    const critic = isCritic(this.#in.prepared.loss)
    if (status !== "interrupted") {
      if (lora !== undefined) {
        adapter = directory.paths.adapter
        await writeAdapterFolder(model, adapter, lora, base, { critic })
      } else {
        weights = join(root, "weights")
        await writeWeightsFolder(
          model,
          weights,
          { format: 1, base, fingerprint: options.model.fingerprint, step: this.step },
          { critic },
        )
      }
    }
    const resumeCommand = status === "interrupted" ? resumeCommandOf(root) : undefined
    await session.emit({
      type: "run-end",
      time: new Date().toISOString(),
      step: this.step,
      reason: status,
      ...(status === "stopped" && control.stopReason !== undefined ? { message: control.stopReason } : {}),
      ...(resumeCommand === undefined ? {} : { message: `Continue with: ${resumeCommand}` }),
      seconds: this.#totals.seconds,
      tokens: this.#totals.tokens,
      ...(Number.isFinite(this.#totals.loss) ? { loss: this.#totals.loss } : {}),
    })
    return {
      status,
      run: root,
      steps: this.step,
      finalLoss: this.#totals.loss,
      evaluation: this.#evaluation,
      best: this.#best,
      adapter,
      lora,
      weights,
      checkpoint: this.#saved === undefined ? undefined : directory.checkpointPath(this.#saved),
      plan,
      tokens: this.#totals.tokens,
      seconds: this.#totals.seconds,
      resumeCommand,
      model: undefined,
    }
  }
}
