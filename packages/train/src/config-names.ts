import type { TrainConfig } from "./config.ts"

/** What other tools call a setting; undefined where they have no such setting. */
export interface ConfigNames {
  /** Name in TRL 1.13 (SFTConfig, LoraConfig of PEFT). */
  readonly trl: string | undefined
  /** Name in Unsloth 2026.x. */
  readonly unsloth: string | undefined
  /** How the meaning differs, where it does. */
  readonly note?: string
}

const same = (name: string | undefined, note?: string): ConfigNames => ({
  trl: name,
  unsloth: name,
  ...(note === undefined ? {} : { note }),
})

/** Every key of the training configuration with its name in TRL and Unsloth. */
export const TRAIN_CONFIG_NAMES: { readonly [K in keyof TrainConfig]-?: ConfigNames } = {
  steps: same("max_steps"),
  epochs: same("num_train_epochs", "1 here, 3 there"),
  batch: same("per_device_train_batch_size × gradient_accumulation_steps", "one number: the split is the planner's"),
  maxLength: { trl: "max_length", unsloth: "max_seq_length" },
  overlong: { trl: "truncation_mode, packing_strategy bfd_split", unsloth: undefined },
  mask: { trl: "assistant_only_loss, completion_only_loss", unsloth: "train_on_responses_only" },
  order: same("train_sampling_strategy", "shuffle is random there; the permutations differ"),
  seed: same("seed, data_seed"),
  evalData: same("eval_dataset"),
  evalFraction: { trl: "datasets' train_test_split(test_size)", unsloth: undefined },
  full: { trl: "no peft_config", unsloth: "full_finetuning" },
  adapter: { trl: "PeftModel.from_pretrained(is_trainable=True)", unsloth: "model_name of an adapter" },
  referenceModel: {
    trl: undefined,
    unsloth: undefined,
    note: "TRL's trainers copy the adapter of a PeftModel as the reference: start here",
  },
  rank: same("r"),
  alpha: same("lora_alpha"),
  dropout: same("lora_dropout"),
  targets: same("target_modules"),
  layers: same("layers_to_transform"),
  rankStabilized: same("use_rslora"),
  modulesToSave: same("modules_to_save"),
  optimizer: same("optim", "adamw_torch and adamw_8bit there"),
  learningRate: same("learning_rate"),
  schedule: same("lr_scheduler_type", "constant with a warm-up is constant_with_warmup there"),
  warmupSteps: same("warmup_steps"),
  warmupRatio: same("warmup_ratio", "a warmup_steps below 1 in newer releases"),
  weightDecay: same("weight_decay"),
  beta1: same("adam_beta1"),
  beta2: same("adam_beta2"),
  epsilon: same("adam_epsilon"),
  maxGradNorm: same("max_grad_norm"),
  loraPlusRatio: { trl: "loraplus_lr_ratio", unsloth: "loraplus_lr_ratio" },
  embeddingLearningRate: { trl: "loraplus_lr_embedding", unsloth: "embedding_learning_rate" },
  threads: { trl: "torch.set_num_threads", unsloth: undefined },
  memoryBudget: same(undefined),
  tokenBudget: same(undefined, "the nearest thing is per_device_train_batch_size"),
  precision: {
    trl: "bf16",
    unsloth: "bf16, dtype",
    note: "the default there; weights and everything but products stay f32 here",
  },
  policy: { trl: "gradient_checkpointing", unsloth: "use_gradient_checkpointing" },
  packing: same("padding_free", "no row is cut and no row sees another; packing there makes longer rows instead"),
  run: same("output_dir"),
  logEvery: same("logging_steps", "1 here, 10 there"),
  evalEvery: same("eval_steps"),
  saveEvery: same("save_steps", "100 here, 500 there"),
  keepCheckpoints: same("save_total_limit"),
}
