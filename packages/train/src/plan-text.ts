import { formatBytes } from "@sloth/core"
import type { RunPlan } from "./plan.ts"

const count = (n: number): string => Math.round(n).toLocaleString("en-US")

/** 134.5 M, 1.24 B. */
const large = (n: number): string =>
  n >= 1e9
    ? `${(n / 1e9).toFixed(2)} B`
    : n >= 1e6
      ? `${(n / 1e6).toFixed(2)} M`
      : n >= 1e4
        ? `${(n / 1e3).toFixed(1)} K`
        : count(n)

/** Seconds as people say them: "0.8 s", "12 min", "3 h 20 min". */
export const formatSeconds = (seconds: number): string => {
  if (seconds < 0.1) return `${(seconds * 1000).toFixed(0)} ms`
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  if (seconds < 120) return `${Math.round(seconds)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 120) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 48) return `${hours} h ${minutes % 60} min`
  return `${Math.floor(hours / 24)} d ${hours % 24} h`
}

const POLICIES = {
  keep: "all activations kept",
  recompute: "cheap activations made again in the backward pass",
  checkpoint: "blocks run again in the backward pass, what follows attention in pieces of rows",
  spill:
    "blocks run again in the backward pass, what follows attention in pieces of rows; inputs of blocks and results of attention wait on disk",
} as const

/** A plan as lines of text for a terminal. */
export const formatPlan = (plan: RunPlan): string => {
  const { memory, disk, time, adapter } = plan
  const share = (100 * plan.trainableParameters) / plan.parameters
  const what =
    adapter === undefined
      ? "all weights"
      : `LoRA rank ${adapter.rank}, alpha ${adapter.alpha}${adapter.rankStabilized ? " (rsLoRA)" : ""}${
          adapter.dropout > 0 ? `, dropout ${adapter.dropout}` : ""
        } on ${adapter.layers} layers${adapter.modulesToSave.length > 0 ? ` and ${adapter.modulesToSave.join(", ")} whole` : ""}`
  const parts = [
    ["weights mapped from files", memory.mappedBytes],
    ["weights in memory", memory.weightBytes],
    ["adapter", memory.adapterBytes],
    ["gradients", memory.gradientBytes],
    ["optimizer", memory.optimizerBytes],
    ["activations", memory.activationBytes],
    ["rollout (at another time than activations)", memory.rolloutBytes ?? 0],
    ["reward models", memory.rewardBytes ?? 0],
    ["runtime", memory.runtimeBytes],
    ["reserve", memory.reserveBytes],
  ] as const
  const { kept } = plan
  const lines: (readonly [string, string])[] = [
    ["model", `${plan.model}, ${large(plan.parameters)} parameters`],
    [
      "training",
      `${plan.method}: ${what}, ${large(plan.trainableParameters)} parameters trained (${share.toFixed(share < 1 ? 2 : 1)} %)`,
    ],
    ...(plan.precision === "bf16"
      ? [
          [
            "precision",
            "bf16: operands of the large products are rounded to 8 bits, their sums and everything else are f32",
          ] as const,
        ]
      : []),
    [
      "data",
      `${count(plan.rows)} rows, ${count(plan.epochTokens)} tokens, ${count(plan.epochScoredTokens)} scored, longest ${count(plan.longest)}${
        plan.evaluationRows > 0 ? `; ${count(plan.evaluationRows)} rows for evaluation` : ""
      }`,
    ],
    [
      "steps",
      `${count(plan.steps)} of ${count(plan.batch)} rows (${plan.epochs.toFixed(plan.epochs % 1 === 0 ? 0 : 2)} epochs of ${count(plan.stepsPerEpoch)})${
        plan.warmupSteps > 0 ? `, ${count(plan.warmupSteps)} of them warm-up` : ""
      }, about ${large(plan.tokens)} tokens`,
    ],
    [
      "micro-batches",
      `${plan.packing ? `up to ${count(plan.tokenBudget)} tokens${plan.longest > plan.tokenBudget ? `, longer rows alone (up to ${count(plan.longest)})` : ""}` : "one row each"}, ${plan.microBatchesPerStep.toFixed(1)} a step; ${POLICIES[plan.policy]}`,
    ],
    ...(kept === undefined
      ? []
      : [
          [
            "prompts",
            `${count(kept.prompts)} of each rollout ${kept.prompts === 1 ? "is" : "are"} computed once for rollout and update, kept in ${formatBytes(kept.bytes)}`,
          ] as const,
        ]),
    [
      "memory",
      `${formatBytes(memory.peakBytes)} of ${formatBytes(memory.budgetBytes)}: ${parts
        .filter(([, bytes]) => bytes > 0)
        .map(([name, bytes]) => `${name} ${formatBytes(bytes)}`)
        .join(", ")}`,
    ],
    [
      "disk",
      `${formatBytes(disk.neededBytes)} of ${formatBytes(disk.freeBytes)} free: up to ${disk.checkpoints} checkpoints of ${formatBytes(disk.checkpointBytes)}, result ${formatBytes(disk.outputBytes)}${
        disk.spillBytes === undefined
          ? ""
          : `, activations ${formatBytes(disk.spillBytes)} (${formatBytes(disk.spilledPerStep ?? 0)} written and read a step${
              time?.diskBytesPerSecond === undefined ? "" : ` at ${formatBytes(time.diskBytesPerSecond)}/s`
            })`
      }`,
    ],
  ]
  if (time !== undefined)
    lines.push([
      "time",
      `${formatSeconds(time.seconds)}: ${formatSeconds(time.secondsPerStep)} a step, ${count(time.tokensPerSecond)} tokens/s, from ${(time.flopsPerSecond / 1e9).toFixed(1)} GFLOP/s measured${
        memory.rolloutBytes === undefined ? "" : "; rollouts and rewards come on top"
      }`,
    ])
  return [
    ...lines.map(([name, text]) => `${name.padEnd(14)} ${text}`),
    ...plan.warnings.map((w) => `${"note".padEnd(14)} ${w}`),
  ].join("\n")
}
