import type { TrainConfig } from "./config.ts"

/** The settings that shape the learning rate. */
export type ScheduleConfig = Pick<TrainConfig, "schedule" | "warmupSteps" | "warmupRatio">

/** Steps of warm-up of a run of `total` steps. Source: transformers 5, `TrainingArguments.get_warmup_steps`. */
export const warmupOf = (config: Pick<ScheduleConfig, "warmupSteps" | "warmupRatio">, total: number): number =>
  config.warmupSteps > 0 ? config.warmupSteps : Math.ceil(total * config.warmupRatio)

/**
 * Factor of the learning rate at optimizer step `step` (from 1) of `total`. As in transformers, the schedule is read before the step counts, so step 1 uses factor(0):
 * with a warm-up the first step has a learning rate of zero. Source: transformers 5, `optimization.py`.
 */
export const scheduleFactor = (config: ScheduleConfig, step: number, total: number): number => {
  const done = step - 1
  const warmup = warmupOf(config, total)
  if (done < warmup) return done / Math.max(1, warmup)
  const left = Math.max(1, total - warmup)
  switch (config.schedule) {
    case "linear":
      return Math.max(0, (total - done) / left)
    case "cosine":
      return Math.max(0, 0.5 * (1 + Math.cos((Math.PI * (done - warmup)) / left)))
    case "constant":
      return 1
  }
}
