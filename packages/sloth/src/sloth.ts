import type { FormatOf, Logger, Plugin, PluginRegistry, SlothPaths } from "@sloth/core"
import type { Completion, GenerateEvent } from "@sloth/infer"
import type { HubPlan } from "@sloth/model"
import type { Evaluation } from "@sloth/train"
import type { ExportReport } from "@sloth/export"
import { chooseBackend, type BackendChoice } from "./backend-choice.ts"
import type { SlothContext } from "./context.ts"
import { effectForms, type EffectForms } from "./effect-api.ts"
import { evaluateByMethod, type MethodEvaluation, type MethodEvaluationRequest } from "./evaluate-method.ts"
import { exportModel, type ExportRequest } from "./export.ts"
import { Chat, readyEngine, streamCompletion, type ChatOptions, type GenerateOptions } from "./generate.ts"
import { inspectTarget, type Facts, type InspectOptions } from "./inspect.ts"
import { OpenModels, type OpenedModel, type OpenOptions } from "./opened-model.ts"
import { pullModel, type PullOptions } from "./pull.ts"
import { evaluateRows, scoreRows, type RowOptions, type Rows, type RowScore } from "./score.ts"
import {
  planTraining,
  trainModel,
  type MethodRequest,
  type PlanOutcome,
  type PlanRequest,
  type TrainOutcome,
  type TrainRequest,
} from "./train.ts"

/** Which model a call works on: an open one, or one that is opened for the call. */
export interface ModelChoice {
  /** An opened model, or what `open` takes: a hub id, a folder, a .gguf file, a run folder, or `nano`. */
  readonly model: string | OpenedModel
  /** Folder of a PEFT adapter to put on the model; only for a model that this call opens. */
  readonly adapter?: string
}

/** Methods that have an Effect form, with the place of their options. */
const effectMethods = {
  open: 1,
  train: 0,
  plan: 0,
  generate: 0,
  chat: 0,
  score: 0,
  evaluate: 0,
  evaluateMethod: 0,
  export: 0,
  inspect: 1,
  pull: 1,
} as const

/** The Effect forms of a Sloth instance. */
export type SlothEffect<P extends readonly Plugin[]> = EffectForms<Sloth<P>, keyof typeof effectMethods>

/**
 * Everything Sloth does, composed from plugins; made by `createSloth`. `method`, `format` and `backend` accept what the plugins provide. Close it when done: it frees
 * open models, the backend and what plugins acquired.
 */
export class Sloth<P extends readonly Plugin[] = readonly Plugin[]> implements AsyncDisposable {
  readonly #context: SlothContext
  readonly #models = new OpenModels()
  #effect: SlothEffect<P> | undefined
  #closing: Promise<void> | undefined

  constructor(context: SlothContext) {
    this.#context = context
  }

  /** The same methods as Effects: SlothErrors in the error channel, interruption aborts the work. */
  get effect(): SlothEffect<P> {
    this.#effect ??= effectForms(this as Sloth<P>, effectMethods)
    return this.#effect
  }

  /** The plugins, checked and set up. */
  get registry(): PluginRegistry {
    return this.#context.registry
  }

  get paths(): SlothPaths {
    return this.#context.paths
  }

  get logger(): Logger {
    return this.#context.logger
  }

  /** Which backend is used, or would be, and why; opens nothing. Errors: SLOTH_BACKEND_UNAVAILABLE, SLOTH_BACKEND_NONE. */
  backend(): Promise<BackendChoice> {
    return chooseBackend(this.registry, this.#context.backendOptions.backend)
  }

  /**
   * Opens a model: a hub id, a folder of safetensors, a .gguf file, a run folder (its base model with what it trained), or `nano`.
   * Errors: SLOTH_MODEL_*, SLOTH_RUN_*, SLOTH_ADAPTER_*, SLOTH_HUB_*, SLOTH_GGUF_*, SLOTH_SAFETENSORS_*.
   */
  open(spec: string, options: OpenOptions = {}): Promise<OpenedModel> {
    return this.#models.open(this.#context, spec, options)
  }

  /** Trains a model and writes a run folder. An abort finishes the step, saves and returns with status "interrupted". Errors: those of `train` of `@sloth/train`. */
  train(request: MethodRequest<P, TrainRequest>): Promise<TrainOutcome> {
    return trainModel(this.#context, this.#models, request as TrainRequest)
  }

  /** Says all that training would do, and does nothing. Errors: as `train` before its first step. */
  plan(request: MethodRequest<P, PlanRequest>): Promise<PlanOutcome> {
    return planTraining(this.#context, request as PlanRequest)
  }

  /** Generates one completion; greedy unless said otherwise. Errors: SLOTH_GENERATE_*, SLOTH_CHAT_TEMPLATE. */
  async generate(options: ModelChoice & GenerateOptions): Promise<Completion> {
    const stream = this.stream(options)
    for (;;) {
      const next = await stream.next()
      if (next.done === true) return next.value
    }
  }

  /** Generates one completion and tells its tokens as they come. */
  async *stream(options: ModelChoice & GenerateOptions): AsyncGenerator<GenerateEvent, Completion, undefined> {
    const { opened, owned } = await this.#resolve(options)
    let close = (): void => undefined
    try {
      const ready = await readyEngine(options, (spec) => this.open(spec, { signal: options.signal }))
      close = ready.close
      return yield* streamCompletion(opened, options, ready.engine)
    } finally {
      close()
      if (owned) opened.dispose()
    }
  }

  /** Starts a conversation. The caller disposes of it. */
  async chat(options: ModelChoice & ChatOptions): Promise<Chat> {
    const { opened, owned } = await this.#resolve(options)
    const release = (): void => void (owned && opened.dispose())
    let close = release
    try {
      const ready = await readyEngine(options, (spec) => this.open(spec))
      close = () => {
        ready.close()
        release()
      }
      return await Chat.start(opened, options, ready.engine, close)
    } catch (error) {
      close()
      throw error
    }
  }

  /** Log-probabilities of every token of every row. Errors: SLOTH_DATA_*. */
  async score(options: ModelChoice & RowOptions & { readonly rows: Rows }): Promise<RowScore[]> {
    return this.#with(options, (opened) => scoreRows(this.#context, opened, options.rows, options))
  }

  /** Loss and perplexity over the scored tokens of all rows. Errors: SLOTH_DATA_*. */
  async evaluate(
    options: ModelChoice & RowOptions & { readonly rows: Rows },
  ): Promise<Evaluation & { readonly rows: number }> {
    return this.#with(options, (opened) => evaluateRows(this.#context, opened, options.rows, options))
  }

  /**
   * Evaluates a model by a training method, without training: accuracy and margins of pairs, figures of ratings and reward models, or what sampled completions earn.
   * Errors: SLOTH_EVAL_*, and those of opening model, rows and rewards.
   */
  evaluateMethod(request: MethodEvaluationRequest): Promise<MethodEvaluation> {
    return evaluateByMethod(this.#context, this.#models, request)
  }

  /** Writes a model in a format, reads it back and compares. Errors: SLOTH_EXPORT_*, SLOTH_DISK_*. */
  async export(options: ModelChoice & ExportRequest<FormatOf<P>>): Promise<ExportReport> {
    return this.#with(options, (opened) => exportModel(this.#context, opened, options))
  }

  /** Says what a file or folder is. Errors: SLOTH_INSPECT_UNKNOWN, SLOTH_MODEL_NOT_FOUND. */
  inspect(target: string, options: InspectOptions = {}): Promise<Facts> {
    return inspectTarget(this.#context, target, options)
  }

  /** Downloads a model of the hub, or what of it is missing. Errors: SLOTH_HUB_*, SLOTH_DISK_SPACE. */
  pull(spec: string, options: PullOptions = {}): Promise<HubPlan> {
    return pullModel(this.#context, spec, options)
  }

  /** Frees models, backend and plugins; closing twice is harmless. Errors: SLOTH_PLUGIN_TEARDOWN. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#models.dispose()
      await this.#context.close()
    })()
    return this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #resolve(
    choice: ModelChoice & { readonly signal?: AbortSignal },
  ): Promise<{ opened: OpenedModel; owned: boolean }> {
    if (typeof choice.model !== "string") return { opened: choice.model, owned: false }
    const options = { adapter: choice.adapter, signal: choice.signal }
    return { opened: await this.open(choice.model, options), owned: true }
  }

  async #with<R>(
    choice: ModelChoice & { readonly signal?: AbortSignal },
    body: (opened: OpenedModel) => Promise<R>,
  ): Promise<R> {
    const { opened, owned } = await this.#resolve(choice)
    try {
      return await body(opened)
    } finally {
      if (owned) opened.dispose()
    }
  }
}
