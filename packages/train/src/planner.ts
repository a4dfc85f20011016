import { formatBytes, freeDiskBytes, SlothError } from "@sloth/core"
import { ACTIVATION_POLICIES, KEPT_ROWS, type ActivationPolicy, type MeterReading } from "@sloth/tensor"
import type { CausalLM } from "@sloth/model"
import { measureDisk, measureSpeed, type MachineSpeed } from "./calibrate.ts"
import type { TrainConfig } from "./config.ts"
import { availableMemory, deviceMemory, residentBytes } from "./internal/machine.ts"
import { TrainMeter, type KeptPrompts, type MeterOptions } from "./meter.ts"
import { splitUnits } from "./micro-batch.ts"
import type { TrainModel } from "./model-files.ts"
import type { ObjectiveLoss, TrainingUnit } from "./objective.ts"
import type { Reuse } from "./online.ts"
import type { MemoryPlan, RunPlan, TimePlan } from "./plan.ts"
import { formatSeconds } from "./plan-text.ts"
import { StepPositions } from "./position.ts"
import { warmupOf } from "./schedule.ts"

/** Token budgets the planner tries: matrix products of a CPU run at full speed from about a thousand rows, and more rows only cost memory. */
export const TOKEN_BUDGETS: readonly number[] = [1024, 512, 256]

/** The longest unit that gets a token budget of its own size where a smaller one would cut it. */
const LONGEST_WHOLE = 2048

/** Rows that a split may compute more often than another and still count as fast as that. */
const REPEATED = 1.1

// What the process grows by beside buffers and scratch: compiled code, the heap, the stacks and panels of the backend's threads. 10 to 29 MB, measured on models of 135 and
// 1,236 M parameters with adapters and without.
const GROWTH_BYTES = 20e6

/**
 * Activations that a plan takes without asking whether less would do: measured on a model of 135 M parameters, time per token is the same from 512 tokens a micro-batch
 * upwards and with or without recomputing norms, while memory is not.
 */
const COMFORTABLE_BYTES = 384e6

/**
 * What a plan takes where much is trained: as much more as gradients and states of the optimizer hold anyway. A micro-batch reads every weight and reads and writes every gradient, so that
 * fewer of them and no recomputing are faster there: 6 % of a step of 2,048 tokens that trains all of 135 M parameters in bf16, two micro-batches against four.
 */
const comfortableBytes = (standing: { readonly gradientBytes: number; readonly optimizerBytes: number }): number =>
  COMFORTABLE_BYTES + standing.gradientBytes + standing.optimizerBytes

// A typical machine, for choosing among plans: the choice must not depend on what was measured, or two equal runs could differ in their last bits.
const TYPICAL = { flopsPerSecond: 1e11, bytesPerSecond: 1e10, secondsPerCall: 2e-5, diskBytesPerSecond: 5e8 }

/** Micro-batches of the first step that are metered before the largest: holes come from steps of uneven rows, and most of them from the first few. */
const MICRO_BATCHES_BETWEEN = 4

/** What the planner looks at. */
export interface PlanInput {
  readonly model: TrainModel
  readonly config: TrainConfig
  /** Name of the method, for the printed plan. */
  readonly method: string
  readonly loss: ObjectiveLoss
  readonly units: readonly TrainingUnit[]
  readonly evaluationUnits: readonly TrainingUnit[]
  /** Memory of the device in bytes. */
  readonly memoryBytes: number
  /** Where the run will write; the working folder when absent. */
  readonly directory?: string
  /** The model on its backend, to measure the machine's speed; no forecast of time without it. */
  readonly measure?: CausalLM
  /** For methods that make their units during the run: how they use and cut them, and what making them does. */
  readonly online?: {
    readonly reuse: Reuse
    readonly splitForecast?: (unit: TrainingUnit, tokenBudget: number) => readonly TrainingUnit[]
    readonly rehearse?: (model: CausalLM, teacher: CausalLM | undefined, kept: number) => void
    /** Prompts of a step that can be kept for it, and the tokens of the longest. */
    readonly kept?: KeptPrompts
  }
  /** What rewards hold while the run lasts, in bytes. */
  readonly rewardBytes?: number
  /** True where the method compares with a reference model. */
  readonly reference?: boolean
  /** What the run learns from, where its loss has a teacher. */
  readonly teacher?: TrainModel
  /** Split and policy that an earlier start of the run decided. */
  readonly decided?: Pick<RunPlan, "tokenBudget" | "policy" | "packing" | "kept">
  readonly meter?: MeterOptions
  /** Resident bytes of the process before the model was loaded; now's when absent. */
  readonly runtimeBytes?: number
}

interface Candidate {
  readonly tokenBudget: number
  readonly policy: ActivationPolicy
  readonly reading: MeterReading
  /** Largest number of live bytes while units are made. */
  readonly rolloutPeak: number | undefined
}

/** Tokens of the largest step: of as many of the longest units as it takes. */
const largestStep = (units: readonly TrainingUnit[], batch: number): number =>
  units
    .map((u) => u.tokens.length)
    .sort((a, b) => b - a)
    .slice(0, batch)
    .reduce((a, b) => a + b, 0)

/** A micro-batch as large as they get: the longest unit, then the rest of the tokens in others; every row scored, which is the most there can be. */
const largestMicroBatch = (units: readonly TrainingUnit[], batch: number, tokenBudget: number, packing: boolean) => {
  const longest = largestStep(units, 1)
  const tokens = packing ? Math.max(longest, Math.min(tokenBudget, largestStep(units, batch))) : longest
  const scoredShare = Math.min(1, Math.max(...units.map((u) => u.targets.length / u.tokens.length)))
  const lengths = [longest]
  for (let left = tokens - longest; left > 0; left -= lengths.at(-1)!) lengths.push(Math.min(left, longest))
  return lengths.map((length): TrainingUnit => {
    const scored = Math.max(1, Math.ceil(length * scoredShare))
    return {
      tokens: new Int32Array(length),
      segments: [{ length, parent: null }],
      scoredRows: Int32Array.from({ length: scored }, (_, i) => Math.min(i, length - 1)),
      targets: new Int32Array(scored),
      sourceTokens: length,
      row: 0,
    }
  })
}

/** The budgets to try: where a budget cuts units, the largest unit's own size comes first. */
const wholeBudgets = (units: readonly TrainingUnit[], cuts: boolean): readonly number[] => {
  const largest = Math.min(LONGEST_WHOLE, Math.max(...units.map((u) => u.tokens.length)))
  return cuts && largest > TOKEN_BUDGETS[0]! ? [largest, ...TOKEN_BUDGETS] : TOKEN_BUDGETS
}

/**
 * A budget lowered to as many of the largest units as fit into it. Units that are made during the run may come out shorter than the largest: the room that those leave would be filled
 * with more of them only then, and be paid for in every plan.
 */
const inWholeUnits = (tokenBudget: number, units: readonly TrainingUnit[]): number => {
  const largest = Math.max(...units.map((u) => u.tokens.length))
  return largest > tokenBudget ? tokenBudget : tokenBudget - (tokenBudget % largest)
}

/** Tokens of the longest text of a unit: the longest way from a segment up to its first ancestor. */
const longestText = ({ segments }: TrainingUnit): number => {
  const ends: number[] = []
  for (const { length, parent } of segments) ends.push(length + (parent === null ? 0 : ends[parent]!))
  return Math.max(0, ...ends)
}

/** Seconds that a reading takes on a typical machine, with reading the weights twice. */
const typicalSeconds = (reading: MeterReading, weightBytes: number): number =>
  reading.flops / TYPICAL.flopsPerSecond +
  (reading.elementwiseBytes + 2 * weightBytes) / TYPICAL.bytesPerSecond +
  reading.calls * TYPICAL.secondsPerCall +
  reading.scratchBytes / TYPICAL.diskBytesPerSecond

/**
 * Plans a run by running the real model code on a backend that counts: splits steps into micro-batches, takes the fastest activation policy that fits the memory
 * budget, and forecasts memory, disk and time.
 * Errors: SLOTH_PLAN_NO_SCORED, SLOTH_PLAN_MEMORY, SLOTH_PLAN_DISK, SLOTH_ADAPTER_*.
 */
export const planUnits = async (input: PlanInput): Promise<RunPlan> => {
  const { model, config, loss, units, decided } = input
  if (units.length === 0)
    throw new SlothError("SLOTH_PLAN_NO_SCORED", {
      what: "There is nothing to learn: no row has a scored token.",
      why: "A loss is only made of scored tokens; the first token of a row never is one.",
      next: "Check the mask setting and that rows have answers within maxLength.",
    })
  const runtimeBytes = input.runtimeBytes ?? residentBytes()
  using meter = new TrainMeter(model, config, loss, input.meter, input.reference, input.teacher)
  const budgetBytes = config.memoryBudget ?? Math.floor(deviceMemory(input.memoryBytes) * 0.8)
  const { standing } = meter
  const weightBytes = standing.mappedBytes + standing.weightBytes
  const packing = decided?.packing ?? config.packing
  const { online } = input
  const rolloutPeakOf = (kept: number): number | undefined =>
    online?.rehearse === undefined
      ? undefined
      : meter.rehearse((model, teacher) => online.rehearse!(model, teacher, kept))
  const rolloutPeak = rolloutPeakOf(0)
  /** The units as they are trained on. */
  const cut = (tokenBudget: number, some: readonly TrainingUnit[] = units): readonly TrainingUnit[] =>
    online?.splitForecast === undefined ? some : some.flatMap((unit) => online.splitForecast!(unit, tokenBudget))

  // Completions that share a prompt repeat it in every piece that a group is cut into: a smaller budget can mean more rows.
  const rowsOf = (tokenBudget: number): number => cut(tokenBudget).reduce((n, u) => n + u.tokens.length, 0)

  const positions = new StepPositions(units.length, config, online?.reuse)
  const firstRows = Array.from(positions.indices(1), (i) => units[i]!)
  const measured = (tokenBudget: number, policy: ActivationPolicy, kept?: KeptPrompts): Candidate => {
    const all = cut(tokenBudget)
    const largest = largestMicroBatch(all, config.batch, tokenBudget, packing)
    const sizes = all.map((u) => u.tokens.length).sort((a, b) => b - a)
    const inOne =
      config.batch === 1 || (packing && sizes.slice(0, config.batch).reduce((a, b) => a + b, 0) <= tokenBudget)
    const rows = cut(tokenBudget, firstRows)
    const others = splitUnits(rows, { tokenBudget, packing }).map((indices) => indices.map((i) => rows[i]!))
    return {
      tokenBudget,
      policy,
      reading: meter.measure(
        largest,
        policy,
        others.length > 1 || !inOne,
        others.slice(0, MICRO_BATCHES_BETWEEN),
        kept,
      ),
      rolloutPeak: kept === undefined ? rolloutPeak : rolloutPeakOf(kept.prompts),
    }
  }
  const { rewardBytes = 0 } = input
  const memoryOf = ({ reading, rolloutPeak }: Candidate): MemoryPlan => {
    const trainingBytes = Math.max(reading.peakBytes, held)
    // The cache is given back before the update, so the larger of the two counts; gradients of the last step still lie there meanwhile.
    const rolloutBytes =
      rolloutPeak === undefined ? undefined : Math.max(0, rolloutPeak - held + standing.gradientBytes)
    const liveBytes = Math.max(trainingBytes, held + (rolloutBytes ?? 0))
    // Buffers of unequal size leave holes between them.
    const reserveBytes = Math.max(0, reading.touchedBytes - liveBytes) + reading.keptScratchBytes + GROWTH_BYTES
    return {
      ...standing,
      activationBytes: trainingBytes - held,
      ...(rolloutBytes === undefined ? {} : { rolloutBytes }),
      ...(rewardBytes === 0 ? {} : { rewardBytes }),
      runtimeBytes,
      reserveBytes,
      peakBytes: liveBytes + standing.mappedBytes + rewardBytes + runtimeBytes + reserveBytes,
      budgetBytes,
    }
  }
  const fits = (c: Candidate): boolean => memoryOf(c).peakBytes <= budgetBytes
  /** Seconds of an epoch, up to a factor that all candidates share. */
  const cost = (c: Candidate): number =>
    (typicalSeconds(c.reading, weightBytes) * rowsOf(c.tokenBudget)) /
    largestMicroBatch(cut(c.tokenBudget), config.batch, c.tokenBudget, packing).reduce((n, u) => n + u.tokens.length, 0)

  /** The candidate with prompts kept from the rollout for the step, as many as there are and have room. */
  const keeping = (candidate: Candidate): { readonly candidate: Candidate; readonly kept?: RunPlan["kept"] } => {
    const { kept: possible } = online ?? {}
    if (possible === undefined || candidate.policy === "checkpoint" || candidate.policy === "spill")
      return { candidate }
    const { rows } = possible
    const each = meter.keptBytes(rows)
    const prompts =
      decided === undefined
        ? Math.min(possible.prompts, Math.floor(COMFORTABLE_BYTES / each))
        : (decided.kept?.prompts ?? 0)
    if (prompts === 0) return { candidate }
    // A pass over several prompts is freed only with the last micro-batch that takes of it.
    const alone = units.every(({ segments }) => segments.length > 1 && segments[0]!.length >= KEPT_ROWS)
    const together = config.batch === 1 || (packing && largestStep(units, config.batch) <= candidate.tokenBudget)
    const taken =
      (alone || together) && prompts === possible.prompts && cut(candidate.tokenBudget).length === units.length
    const larger = measured(candidate.tokenBudget, candidate.policy, { prompts, rows, taken })
    return decided !== undefined || fits(larger)
      ? { candidate: larger, kept: { prompts, bytes: prompts * each } }
      : { candidate }
  }

  let chosen: Candidate | undefined
  const budgets =
    decided !== undefined
      ? [decided.tokenBudget]
      : config.tokenBudget !== undefined
        ? [config.tokenBudget]
        : packing
          ? wholeBudgets(units, online?.splitForecast !== undefined).map((budget) =>
              online === undefined ? budget : inWholeUnits(budget, cut(budget)),
            )
          : [TOKEN_BUDGETS[0]!]
  const policies =
    decided !== undefined ? [decided.policy] : config.policy === "auto" ? ACTIVATION_POLICIES : [config.policy]
  const free = policies.filter((p) => p === "keep" || p === "recompute")
  const fewest = Math.min(...budgets.map(rowsOf))
  const quick = (free.length === 0 ? policies : free).flatMap((policy) =>
    budgets
      .filter(
        (budget) => (budget > TOKEN_BUDGETS.at(-1)! || budget === budgets[0]) && rowsOf(budget) <= fewest * REPEATED,
      )
      .map((budget) => ({ budget, policy })),
  )
  // Ordered from what is fastest for tiny models to what is smallest; the last one is as fast as the first for others.
  quick.sort((a, b) => b.budget - a.budget)
  const held = standing.weightBytes + standing.adapterBytes + standing.gradientBytes + standing.optimizerBytes
  let smallest: Candidate | undefined
  for (const { budget, policy } of quick) {
    const c = measured(budget, policy)
    if (smallest === undefined || c.reading.peakBytes < smallest.reading.peakBytes) smallest = c
    if (fits(c) && c.reading.peakBytes - held <= comfortableBytes(standing)) {
      chosen = c
      break
    }
  }
  if (chosen === undefined && smallest !== undefined && fits(smallest)) chosen = smallest
  if (chosen === undefined || smallest === undefined) {
    // Only now are plans compared that cost time; the disk is left alone while memory is enough.
    for (const spills of [false, true]) {
      const all = policies
        .filter((policy) => (policy === "spill") === spills)
        .flatMap((policy) => budgets.map((budget) => measured(budget, policy)))
      for (const c of all) if (smallest === undefined || c.reading.peakBytes < smallest.reading.peakBytes) smallest = c
      chosen ??= all
        .filter(fits)
        .map((c) => ({ c, cost: cost(c) }))
        .sort((a, b) => a.cost - b.cost)[0]?.c
      if (chosen !== undefined) break
    }
  }
  const longest = units.reduce((n, u) => Math.max(n, longestText(u)), 0)
  if (chosen === undefined) {
    smallest = smallest!
    const need = memoryOf(smallest)
    throw new SlothError("SLOTH_PLAN_MEMORY", {
      what: `Training needs ${formatBytes(need.peakBytes)} of memory at the least; the budget is ${formatBytes(budgetBytes)}.`,
      why: `That is with the policy "${smallest.policy}" and micro-batches of ${Math.max(smallest.tokenBudget, longest)} tokens (longest row ${longest}): activations ${formatBytes(
        need.activationBytes,
      )}, weights ${formatBytes(weightBytes)}, gradients ${formatBytes(need.gradientBytes)}, optimizer ${formatBytes(need.optimizerBytes)}.`,
      next: `Shorten rows with maxLength${config.full ? ", train an adapter instead of all weights, use optimizer adamw8bit" : ", lower rank"}${
        policies.length === 1 && smallest.policy !== "spill" ? ", leave policy to the planner" : ""
      }, or raise memoryBudget.`,
      fields: { needBytes: need.peakBytes, budgetBytes, memory: need, policy: smallest.policy, longest },
    })
  }

  const keeps = keeping(chosen)
  chosen = keeps.candidate
  const split = { tokenBudget: chosen.tokenBudget, packing }
  const sample = sampleSteps(meter, units, positions, split, chosen.policy, (some) => cut(split.tokenBudget, some))
  const memory = memoryOf(chosen)
  const epochTokens = units.reduce((n, u) => n + u.sourceTokens, 0)
  const tokens = (epochTokens / positions.stepsPerEpoch) * positions.total

  let time: TimePlan | undefined
  let diskSeconds = 0
  if (input.measure !== undefined) {
    const speed: MachineSpeed = {
      ...(await measureSpeed(input.measure)),
      ...(sample.scratchBytes === 0 ? {} : { diskBytesPerSecond: measureDisk(input.directory ?? ".") }),
    }
    diskSeconds = speed.diskBytesPerSecond === undefined ? 0 : sample.scratchBytes / speed.diskBytesPerSecond
    const secondsPerStep =
      sample.flops / speed.flopsPerSecond +
      (sample.elementwiseBytes + sample.microBatches * 2 * weightBytes) / speed.bytesPerSecond +
      diskSeconds
    time = {
      ...speed,
      secondsPerStep,
      seconds: secondsPerStep * positions.total,
      tokensPerSecond: epochTokens / positions.stepsPerEpoch / secondsPerStep,
    }
  }

  const outputBytes = meter.trainableParameters * 4 + 100_000
  const checkpointBytes = outputBytes + standing.optimizerBytes
  const saves = config.saveEvery === 0 ? 1 : Math.ceil(positions.total / config.saveEvery)
  const kept = Math.min(saves, config.keepCheckpoints) + (input.evaluationUnits.length > 0 ? 1 : 0)
  const spillBytes = chosen.reading.scratchPeak
  const freeBytes = await freeDiskBytes(input.directory ?? ".")
  const disk = {
    checkpointBytes,
    checkpoints: kept + 1,
    outputBytes,
    ...(spillBytes === 0 ? {} : { spillBytes, spilledPerStep: sample.scratchBytes }),
    neededBytes: checkpointBytes * (kept + 1) + outputBytes + spillBytes,
    freeBytes,
  }
  if (disk.neededBytes > freeBytes)
    throw new SlothError("SLOTH_PLAN_DISK", {
      what: `The run needs ${formatBytes(disk.neededBytes)} of disk space; ${formatBytes(freeBytes)} are free.`,
      why: `A checkpoint has ${formatBytes(checkpointBytes)}, and ${disk.checkpoints} can lie there at once${
        spillBytes === 0 ? "" : `; activations that memory has no room for take ${formatBytes(spillBytes)}`
      }.`,
      next: "Free some space, choose another folder with run, or lower keepCheckpoints.",
      fields: { ...disk },
    })

  const warnings: string[] = []
  const available = availableMemory()
  if (memory.peakBytes - memory.runtimeBytes > available)
    warnings.push(
      `Only ${formatBytes(available)} of memory are free at the moment: other programs may be pushed out, or the run may.`,
    )
  if (longest + 1 > model.config.maxPositions)
    warnings.push(`The longest row has ${longest + 1} tokens, but the model was made for ${model.config.maxPositions}.`)
  if (config.steps === undefined && config.batch > units.length)
    warnings.push(`A step has ${config.batch} rows but there are only ${units.length}: every step is the whole data.`)
  if (time !== undefined && diskSeconds > time.secondsPerStep / 2)
    warnings.push(
      `The disk is slow: ${formatSeconds(diskSeconds)} of every step are spent on writing and reading activations. A larger memoryBudget or a shorter maxLength needs no disk.`,
    )
  if (time !== undefined && time.seconds > 24 * 3600)
    warnings.push(`This takes ${formatSeconds(time.seconds)}; steps sets a shorter run.`)

  return {
    model: model.name,
    method: input.method,
    precision: config.precision,
    parameters: meter.parameters,
    trainableParameters: meter.trainableParameters,
    adapter:
      meter.lora === undefined
        ? undefined
        : {
            rank: meter.lora.rank,
            alpha: meter.lora.alpha,
            dropout: meter.lora.dropout,
            rankStabilized: meter.lora.rankStabilized,
            layers: meter.adaptedLayers,
            modulesToSave: meter.lora.modulesToSave,
          },
    rows: units.length,
    evaluationRows: input.evaluationUnits.length,
    epochTokens,
    epochScoredTokens: units.reduce((n, u) => n + u.targets.length, 0),
    longest: units.reduce((n, u) => Math.max(n, u.sourceTokens), 0),
    steps: positions.total,
    stepsPerEpoch: positions.stepsPerEpoch,
    epochs: positions.total / positions.stepsPerEpoch,
    batch: config.batch,
    tokens,
    tokenBudget: chosen.tokenBudget,
    packing,
    policy: chosen.policy,
    ...(keeps.kept === undefined ? {} : { kept: keeps.kept }),
    microBatchesPerStep: sample.microBatches,
    flopsPerStep: sample.flops,
    warmupSteps: warmupOf(config, positions.total),
    memory,
    disk,
    time,
    warnings,
  }
}

/** Means over a few real steps of the first epoch: at most 16 micro-batches are metered, the rest is counted. */
const sampleSteps = (
  meter: TrainMeter,
  units: readonly TrainingUnit[],
  positions: StepPositions,
  split: { tokenBudget: number; packing: boolean },
  policy: ActivationPolicy,
  cut: (units: readonly TrainingUnit[]) => readonly TrainingUnit[],
): { flops: number; elementwiseBytes: number; scratchBytes: number; microBatches: number } => {
  const steps = Math.min(8, positions.total)
  let [microBatches, metered, meteredTokens, tokens, flops, elementwiseBytes, scratchBytes] = [0, 0, 0, 0, 0, 0, 0]
  for (let step = 1; step <= steps; step++) {
    const rows = cut(Array.from(positions.indices(step), (i) => units[i]!))
    const all = splitUnits(rows, split)
    for (const indices of all) {
      const batch = indices.map((i) => rows[i]!)
      const size = batch.reduce((n, u) => n + u.tokens.length, 0)
      microBatches++
      tokens += size
      if (metered >= 16) continue
      const reading = meter.measure(batch, policy, all.length > 1)
      metered++
      meteredTokens += size
      flops += reading.flops
      elementwiseBytes += reading.elementwiseBytes
      scratchBytes += reading.scratchBytes
    }
  }
  const scale = tokens / meteredTokens / steps
  return {
    flops: flops * scale,
    elementwiseBytes: elementwiseBytes * scale,
    scratchBytes: scratchBytes * scale,
    microBatches: microBatches / steps,
  }
}
