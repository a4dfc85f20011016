import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { configError, decodeConfig, field, withDefault, type BackendOptions, type ConfigIssue } from "@sloth/core"
import type { DatasetOptions } from "@sloth/data"
import type { LoraConfig } from "@sloth/model"

/** Every setting of a training run. `TRAIN_CONFIG_NAMES` says what TRL and Unsloth call each. */
export const TrainConfigSchema = Schema.Struct({
  // --- how long
  steps: field
    .int({
      description: "Optimizer steps of the whole run. Takes the place of epochs.",
      unit: "steps",
      min: 1,
      aka: ["max_steps"],
    })
    .pipe(Schema.optionalKey),
  epochs: field
    .number({ description: "Passes over the data; 0.5 is half of one.", above: 0, aka: ["num_train_epochs"] })
    .pipe(withDefault(1)),
  batch: field
    .int({
      description:
        "Rows in an optimizer step. The planner splits them into micro-batches; the result does not depend on how.",
      unit: "rows",
      min: 1,
      aka: ["per_device_train_batch_size", "gradient_accumulation_steps", "batch_size"],
    })
    .pipe(withDefault(8)),

  // --- data
  maxLength: field
    .int({
      description: "Longest row; what is longer is treated as overlong says.",
      unit: "tokens",
      min: 2,
      aka: ["max_length", "max_seq_length"],
    })
    .pipe(withDefault(1024)),
  overlong: field
    .choice(["truncate", "split", "drop"], {
      description: "What happens to rows over maxLength: keep the start, make several rows, or leave them out.",
      aka: ["truncation_mode"],
    })
    .pipe(withDefault("truncate")),
  mask: field
    .choice(["assistant", "last-assistant", "all"], {
      description: "Which tokens of a conversation are learnt: all answers, the last answer, or everything.",
      aka: ["assistant_only_loss", "completion_only_loss", "train_on_responses_only"],
    })
    .pipe(withDefault("assistant")),
  order: field
    .choice(["shuffle", "sequential"], {
      description: "Order of the rows: a new permutation each epoch, or as they stand.",
      aka: ["train_sampling_strategy"],
    })
    .pipe(withDefault("shuffle")),
  seed: field
    .int({
      description: "Decides the order of rows, the first adapter weights, dropout and the held-out rows.",
      min: 0,
      max: Number.MAX_SAFE_INTEGER,
    })
    .pipe(withDefault(42)),
  evalData: Schema.Union([Schema.String, Schema.Array(Schema.String)])
    .annotate({ description: "File or files to evaluate on.", aka: ["eval_dataset"] })
    .pipe(Schema.optionalKey),
  evalFraction: field
    .number({
      description:
        "Rows held out of the training data for evaluation: a share below 1, or a number of rows. 0 holds none out.",
      min: 0,
      aka: ["test_size"],
    })
    .pipe(withDefault(0)),

  // --- what is trained
  full: field
    .boolean({
      description: "Train every weight of the model instead of an adapter.",
      aka: ["full_finetuning"],
    })
    .pipe(withDefault(false)),
  adapter: field
    .text({
      description: "Folder of a PEFT adapter to start from; its rank, alpha and targets are kept.",
    })
    .pipe(Schema.optionalKey),
  referenceModel: field
    .choice(["start", "base"], {
      description:
        "What methods with a reference compare with where a run starts from an adapter: the model with that adapter as it was, or the model below it.",
    })
    .pipe(withDefault("start")),
  rank: field.int({ description: "Rank of the LoRA.", min: 1, aka: ["r", "lora_r"] }).pipe(withDefault(16)),
  alpha: field
    .number({
      description: "Numerator of the LoRA's scale, which is alpha / rank.",
      above: 0,
      aka: ["lora_alpha"],
    })
    .pipe(withDefault(32)),
  dropout: field
    .number({
      description: "Probability that an input of the LoRA is dropped while training.",
      min: 0,
      below: 1,
      aka: ["lora_dropout"],
    })
    .pipe(withDefault(0)),
  targets: Schema.Union([Schema.String, Schema.Array(Schema.String)])
    .annotate({
      description:
        'Linear layers that get a LoRA: "all-linear", names such as q_proj, or a regular expression over module paths written /.../.',
      aka: ["target_modules", "lora_target_modules"],
    })
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed("all-linear" as const))),
  layers: Schema.Array(Schema.Int.check(Schema.isGreaterThanOrEqualTo(0)))
    .annotate({
      description: "Only these layers get a LoRA, counted from 0; all when absent.",
      aka: ["layers_to_transform"],
    })
    .pipe(Schema.optionalKey),
  rankStabilized: field
    .boolean({ description: "Scale by alpha / sqrt(rank) (rsLoRA).", aka: ["use_rslora"] })
    .pipe(withDefault(false)),
  modulesToSave: field
    .list(Schema.String, {
      description: "Modules that are trained and saved whole beside the LoRA, such as embed_tokens and lm_head.",
      aka: ["modules_to_save"],
    })
    .pipe(withDefault([])),

  // --- optimizer
  optimizer: field
    .choice(["adamw", "adamw8bit"], {
      description: "AdamW with states in 32 bits, or in 8 bits by blocks (a quarter of the memory).",
      aka: ["optim"],
    })
    .pipe(withDefault("adamw")),
  learningRate: field
    .number({ description: "Step size at the top of the schedule.", min: 0, aka: ["learning_rate", "lr"] })
    .pipe(withDefault(2e-4)),
  schedule: field
    .choice(["linear", "cosine", "constant"], {
      description: "How the learning rate falls after the warm-up: to zero in a line, along a cosine, or not.",
      aka: ["lr_scheduler_type"],
    })
    .pipe(withDefault("linear")),
  warmupSteps: field
    .int({
      description: "Steps over which the learning rate rises from zero.",
      unit: "steps",
      min: 0,
      aka: ["warmup_steps"],
    })
    .pipe(withDefault(0)),
  warmupRatio: field
    .number({
      description: "The same as a share of all steps, rounded up.",
      min: 0,
      max: 1,
      aka: ["warmup_ratio"],
    })
    .pipe(withDefault(0)),
  weightDecay: field
    .number({
      description: "Decoupled weight decay; norms and biases are left alone.",
      min: 0,
      aka: ["weight_decay"],
    })
    .pipe(withDefault(0)),
  beta1: field
    .number({ description: "Decay of AdamW's first moment.", min: 0, below: 1, aka: ["adam_beta1"] })
    .pipe(withDefault(0.9)),
  beta2: field
    .number({ description: "Decay of AdamW's second moment.", min: 0, below: 1, aka: ["adam_beta2"] })
    .pipe(withDefault(0.999)),
  epsilon: field
    .number({ description: "Added to the root of the second moment.", above: 0, aka: ["adam_epsilon"] })
    .pipe(withDefault(1e-8)),
  maxGradNorm: field
    .number({
      description: "Gradients are scaled down to this global L2 norm; 0 switches clipping off.",
      min: 0,
      aka: ["max_grad_norm"],
    })
    .pipe(withDefault(1)),
  loraPlusRatio: field
    .number({
      description: "Learning rate of the LoRA's B matrices over that of its A matrices (LoRA+).",
      above: 0,
      aka: ["loraplus_lr_ratio"],
    })
    .pipe(withDefault(1)),
  embeddingLearningRate: field
    .number({
      description: "Step size of embedding tables and output layers that are trained whole; learningRate when absent.",
      min: 0,
      aka: ["embedding_learning_rate", "loraplus_lr_embedding"],
    })
    .pipe(Schema.optionalKey),

  // --- engine
  threads: field
    .int({ description: "Threads of the backend; all cores when absent. Results do not depend on it.", min: 1 })
    .pipe(Schema.optionalKey),
  memoryBudget: field
    .int({
      description: "Memory the run may take; 80 % of the device's when absent.",
      unit: "bytes",
      min: 1,
    })
    .pipe(Schema.optionalKey),
  tokenBudget: field
    .int({
      description:
        "Most tokens in a micro-batch; the planner chooses when absent. A longer row makes a micro-batch of its own.",
      unit: "tokens",
      min: 1,
    })
    .pipe(Schema.optionalKey),
  precision: field
    .choice(["f32", "bf16", "int8"], {
      description:
        "Precision of the large products, forward and backward: bf16 rounds their operands (sums in f32, everything else f32) where the processor has such instructions; int8 is for generation only.",
      aka: ["bf16"],
    })
    .pipe(withDefault("f32")),
  policy: field
    .choice(["auto", "keep", "recompute", "checkpoint", "spill"], {
      description:
        "What the forward pass keeps for the backward pass: everything, all but cheap values, block inputs only, or those on disk. auto takes the fastest that fits, and the disk last.",
      aka: ["gradient_checkpointing", "use_gradient_checkpointing"],
    })
    .pipe(withDefault("auto")),
  packing: field
    .boolean({
      description: "Put several rows in a micro-batch (they do not see each other); false runs one at a time.",
      aka: ["padding_free"],
    })
    .pipe(withDefault(true)),

  // --- the run
  run: field
    .text({ description: "Run folder; a new one under runs/ when absent.", aka: ["output_dir", "run_name"] })
    .pipe(Schema.optionalKey),
  logEvery: field
    .int({
      description: "Steps between step events; the first and the last are always written.",
      unit: "steps",
      min: 1,
      aka: ["logging_steps"],
    })
    .pipe(withDefault(1)),
  evalEvery: field
    .int({
      description: "Steps between evaluations; 0 evaluates at the end only.",
      unit: "steps",
      min: 0,
      aka: ["eval_steps"],
    })
    .pipe(withDefault(0)),
  saveEvery: field
    .int({
      description: "Steps between checkpoints; 0 saves at the end only.",
      unit: "steps",
      min: 0,
      aka: ["save_steps"],
    })
    .pipe(withDefault(100)),
  keepCheckpoints: field
    .int({
      description: "Newest checkpoints that are kept; the best one by evaluation is kept beside them.",
      min: 1,
      aka: ["save_total_limit"],
    })
    .pipe(withDefault(2)),
})

/** A resolved training configuration: every key present, defaults filled in. */
export type TrainConfig = typeof TrainConfigSchema.Type

/** What a user writes: any subset of the keys. */
export type TrainConfigInput = Partial<TrainConfig>

const ADAPTER_KEYS = [
  "adapter",
  "rank",
  "alpha",
  "dropout",
  "targets",
  "layers",
  "rankStabilized",
  "modulesToSave",
  "loraPlusRatio",
] as const satisfies readonly (keyof TrainConfig)[]

/**
 * Decodes a training configuration and refuses keys that would do nothing beside others (a rank with full fine-tuning, two warm-ups).
 * Errors: SLOTH_CONFIG_INVALID with every wrong field.
 */
export const resolveTrainConfig = (input: unknown): TrainConfig => {
  const config = decodeConfig(TrainConfigSchema, input, { name: "train", help: "docs/train.md lists all keys." })
  const given = input as TrainConfigInput
  const issues: ConfigIssue[] = []
  const refuse = (key: keyof TrainConfig, why: string): void => {
    issues.push({
      path: [key],
      key,
      problem: "rule",
      expected: undefined,
      received: given[key],
      message: `${key}: ${why}`,
    })
  }
  if (config.full)
    for (const key of ADAPTER_KEYS)
      if (given[key] !== undefined) refuse(key, "has no effect with full fine-tuning, which trains no adapter")
  if (given.steps !== undefined && given.epochs !== undefined) refuse("epochs", "has no effect where steps is given")
  if (config.warmupSteps > 0 && config.warmupRatio > 0) refuse("warmupRatio", "give either it or warmupSteps")
  if (config.evalData !== undefined && config.evalFraction > 0) refuse("evalFraction", "give either it or evalData")
  if (config.precision === "int8")
    refuse("precision", "int8 has no gradients, it is for generation; train with f32 or bf16")
  if (issues.length > 0) throw configError("train", issues, "docs/train.md lists all keys.")
  return config
}

/** Reads back a configuration that {@link resolveTrainConfig} made and a run stored. Errors: SLOTH_CONFIG_INVALID. */
export const readTrainConfig = (stored: unknown): TrainConfig =>
  decodeConfig(TrainConfigSchema, stored, { name: "the run's config.json" })

/** The adapter's part of a training configuration. */
export const loraConfigOf = (config: TrainConfig): LoraConfig => ({
  rank: config.rank,
  alpha: config.alpha,
  dropout: config.dropout,
  targets: config.targets,
  ...(config.layers === undefined ? {} : { layers: config.layers }),
  rankStabilized: config.rankStabilized,
  modulesToSave: config.modulesToSave,
})

/** The settings of a backend's factory. */
export const backendOptionsOf = (config: TrainConfig): BackendOptions => ({
  ...(config.threads === undefined ? {} : { threads: config.threads }),
  ...(config.memoryBudget === undefined ? {} : { memoryBudget: config.memoryBudget }),
  precision: config.precision,
})

/** The settings of `openDataset` for the training rows. */
export const datasetOptionsOf = (
  config: TrainConfig,
): Pick<DatasetOptions, "mask" | "maxLength" | "overlong" | "heldOut" | "seed"> => ({
  mask: config.mask,
  maxLength: config.maxLength,
  overlong: config.overlong,
  heldOut: config.evalFraction,
  seed: config.seed,
})
