import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Backend, BackendOptions } from "./backend.ts"
import type { ConfigSchema } from "./config-fields.ts"
import type { RunEventOf, RunEventType } from "./events.ts"
import type { Logger } from "./logger.ts"

/**
 * The extension points of Sloth. Core knows neither tensors nor models, so a slot whose items work on them is stated here by what core itself
 * needs, its name above all; the package that owns the slot (`@sloth/model`, `@sloth/train`, `@sloth/export`, `@sloth/data`) defines the full
 * interface as an extension of it.
 */

/** A value now or later. */
export type Awaitable<A> = A | Promise<A>

/** What every item of a slot has: an id that is unique in its slot, and a configuration schema where it takes settings. */
export interface Provided {
  readonly name: string
  readonly config?: ConfigSchema
}

/** A model family; `ModelFamily` of `@sloth/model` is the full contract. */
export interface ProvidedModel extends Provided {
  /** `architectures` of a Hugging Face config.json that this family reads, such as "LlamaForCausalLM". */
  readonly architectures: readonly string[]
  /** `general.architecture` of a GGUF file, such as "llama". */
  readonly ggufArchitectures: readonly string[]
}

/** A training method; `Objective` of `@sloth/train` is the full contract. Its name is what `method` takes. */
export interface ProvidedObjective extends Provided {}

/** An output format; `Exporter` of `@sloth/export` is the full contract. Its name is what `format` takes. */
export interface ProvidedExporter extends Provided {
  /** Method syntax on purpose: exporters of a certain kind of trained model fit this slot. */
  export(model: never, to: string, options: never): unknown
}

/** A reader of dataset files; `DatasetReader` of `@sloth/data` is the full contract. */
export interface ProvidedReader extends Provided {
  /** File name endings with the dot, such as ".jsonl". */
  readonly extensions: readonly string[]
}

/** Whether a backend can run here, and why not. */
export type BackendAvailability =
  | { readonly available: true; readonly description?: string }
  | { readonly available: false; readonly reason: string }

/** Makes the backends of one kind; its name is what `backend` takes. */
export interface BackendFactory extends Provided {
  /** Looks, quickly and without opening the device, whether it can run here. */
  probe(): Awaitable<BackendAvailability>
  /** Opens the device. The caller disposes of the backend. */
  create(options: BackendOptions): Awaitable<Backend>
}

/** A message of a conversation. */
export interface RewardMessage {
  readonly role: string
  readonly content: string
}

/** One completion to be judged. */
export interface RewardSample {
  readonly prompt: string | readonly RewardMessage[]
  readonly completion: string
  readonly completionTokens: readonly number[]
  /** Why the completion ended: a stop token or string, or the length limit. */
  readonly finishReason: "stop" | "length"
  /** The dataset row, with every column. */
  readonly row: Readonly<Record<string, unknown>>
}

/** Judges completions. */
export interface Reward extends Provided {
  /** Factor in the sum of rewards; 1 when absent. */
  readonly weight?: number
  /** Memory that it holds while a run lasts, in bytes, for the plan: that of a reward model. */
  readonly memoryBytes?: number
  /** True for a judge that compares the two completions of each prompt: samples come in pairs, and their scores are how likely each is the better one. */
  readonly pairs?: true
  /** One score a sample, in order; null where this reward has nothing to say. */
  score(samples: readonly RewardSample[]): Awaitable<readonly (number | null)[]>
}

/** A prompt for generation, as token ids. */
export interface TokenPrompt {
  readonly tokens: readonly number[]
  /** Completions wanted; 1 when absent. */
  readonly count?: number
}

/** How tokens are drawn. */
export interface SamplingOptions {
  readonly maxTokens: number
  /** 0 takes the most likely token. */
  readonly temperature?: number
  readonly topK?: number
  readonly topP?: number
  readonly minP?: number
  readonly repetitionPenalty?: number
  readonly stopTokens?: readonly number[]
  readonly stop?: readonly string[]
  readonly seed?: number
}

/** One generated completion. */
export interface Completion {
  /** Position of its prompt in the list given. */
  readonly prompt: number
  /** Which of the prompt's completions this is, from 0. */
  readonly index: number
  readonly tokens: readonly number[]
  /** Natural-log probability of each token under the distribution before temperature and filters. */
  readonly logprobs: readonly number[]
  readonly finishReason: "stop" | "length"
}

/** Generates completions during training: ids in, ids and log-probabilities out. */
export interface RolloutEngine extends AsyncDisposable {
  generate(prompts: readonly TokenPrompt[], options: SamplingOptions): AsyncIterable<Completion>
  /** Told after each update, for engines with a copy of the weights: what is generated next comes from the new ones. */
  weightsChanged?(): void
  /**
   * Takes the weights as they are now, once it resolves: what is generated until the next call comes from them, whatever training does meanwhile. Only engines with a copy of the
   * weights can have it; completions are then sampled beside training. An abort throws the signal's reason.
   */
  syncWeights?(signal: AbortSignal): Promise<void>
}

/** What the options of {@link RolloutFactory.create} have for engines that need a copy of the weights. */
export interface RolloutWeights {
  /** Writes the adapter as it is now to a folder, in PEFT form, in place whole or not at all; absent where all weights are trained. */
  readonly saveAdapter?: (folder: string) => Promise<void>
}

/** Makes rollout engines of one kind for a model, whose type the package that owns the engine knows. */
export interface RolloutFactory extends Provided {
  /** True where another program samples: what it samples is a little off the policy that is trained, and takes no memory here. */
  readonly elsewhere?: boolean
  create(model: never, options: never): Awaitable<RolloutEngine>
}

/** Makes environments of one kind for training; `EnvironmentFactory` of `@sloth/rl` is the full contract. Its name is what `environment` takes. */
export interface ProvidedEnvironment extends Provided {
  /** Method syntax on purpose: factories with certain settings fit this slot. */
  create(settings: never): unknown
}

/** What a tracker learns when a run starts. */
export interface RunInfo {
  readonly name: string
  /** The run folder. */
  readonly directory: string
  readonly config: Readonly<Record<string, unknown>>
  /** Step of the checkpoint that the run continues from. */
  readonly resumedFromStep?: number
  readonly logger: Logger
}

/** Receives one event; called in order, must not block. */
export type TrackerSink = (event: RunEventOf<RunEventType>) => void

/** A tracker at work on one run, opened without Effect. */
export interface TrackerSession {
  readonly event: TrackerSink
  /** Called once, after the last event. */
  close?(): Awaitable<void>
}

/** Follows a run, from its events. */
export interface Tracker extends Provided {
  /** Starts following: either a session, or a scoped Effect whose finalizers run after the last event. */
  open(run: RunInfo): Awaitable<TrackerSession> | Effect.Effect<TrackerSink, unknown, Scope.Scope>
}

/** What a callback may ask of the run it watches; requests are served after the current step. */
export interface RunControl {
  /** Ends the run in good order: checkpoint, final adapter, `run-end` with reason "stopped". */
  stop(reason: string): void
  checkpoint(): void
  evaluate(): void
}

/** Watches a run and may steer it. The step loop waits for what a handler returns; a handler that throws ends the run. */
export interface RunCallback extends Provided {
  /** A handler for each type of event it wants. */
  readonly on: {
    readonly [T in RunEventType]?: (event: RunEventOf<T>, control: RunControl) => Awaitable<void>
  }
}

/** What a command of a plugin is given. */
export interface CommandContext<Config = unknown> {
  /** Words after the command that are not flags. */
  readonly arguments: readonly string[]
  /** The command's flags, decoded by its `config`. */
  readonly config: Config
  /** The user wants machine-readable output on stdout. */
  readonly json: boolean
  readonly cwd: string
  readonly logger: Logger
  /** Prints a line on stdout. */
  print(line: string): void
  /** The composed Sloth instance, typed by `@sloth/sloth`. */
  readonly sloth: unknown
}

/** A command of the `sloth` program. */
export interface CommandSpec<Config = unknown> extends Provided {
  readonly description: string
  /** Its flags; each key becomes one. */
  readonly config?: ConfigSchema<Config>
  /** What stands after the command, for help: "<file>". */
  readonly usage?: string
  readonly examples?: readonly { readonly command: string; readonly description: string }[]
  /** Runs it; a returned number is the exit status. */
  run(context: CommandContext<Config>): Awaitable<number | void>
}

/** The slots of a plugin and what goes into each. */
export interface PluginSlots {
  readonly models: ProvidedModel
  readonly backends: BackendFactory
  readonly objectives: ProvidedObjective
  readonly rewards: Reward
  readonly exporters: ProvidedExporter
  readonly trackers: Tracker
  readonly readers: ProvidedReader
  readonly commands: CommandSpec
  readonly rollouts: RolloutFactory
  readonly environments: ProvidedEnvironment
  readonly callbacks: RunCallback
}

/** Names of the plugin slots. */
export type SlotName = keyof PluginSlots
