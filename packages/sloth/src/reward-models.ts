import { existsSync } from "node:fs"
import { basename, join } from "node:path"
import { SlothError, type Reward } from "@sloth/core"
import type { ModelFiles } from "@sloth/model"
import type { SlothContext } from "./context.ts"
import { openFiles, type OpenedModel, type OpenModels } from "./opened-model.ts"
import { resolveModel, type ResolvedModel } from "./resolve-model.ts"
import { readRunRecord } from "./run-record.ts"

/** A reward model as a reward, and its end. */
export interface OpenedJudge {
  readonly reward: Reward
  readonly opened: OpenedModel | undefined
}

/** Tokens of a pass when texts are scored. */
const PASS_TOKENS = 2048

/** Memory of a reward model while it scores, in bytes, counted by running it on a backend that only counts. */
const memoryOf = async (files: ModelFiles, adapter: string | undefined): Promise<number> => {
  const [{ createMeterBackend, Engine }, { buildMicroBatch, disposeOutputs, frozenOutputs }, { loadPeftAdapter }] =
    await Promise.all([import("@sloth/tensor"), import("@sloth/train"), import("@sloth/model")])
  const backend = createMeterBackend()
  using model = files.build(new Engine(backend))
  if (adapter !== undefined) loadPeftAdapter(model, adapter)
  const length = Math.min(PASS_TOKENS, files.config.maxPositions)
  const unit = {
    tokens: new Int32Array(length),
    segments: [{ length, parent: null }],
    scoredRows: Int32Array.of(length - 1),
    targets: new Int32Array(1),
    sourceTokens: length,
    row: 0,
  }
  backend.restart()
  disposeOutputs(frozenOutputs(model, buildMicroBatch([unit]), { logprobs: false, values: true }))
  return backend.reading().peakBytes + backend.memory.stats().mappedBytes
}

/** True where a model brings a score head: in its own files, in its adapter, or in the weights that a run trained whole. */
const hasHead = async (source: ResolvedModel, files: ModelFiles): Promise<boolean> => {
  const { readPeftConfig, readSafetensors, SCORE_WEIGHT } = await import("@sloth/model")
  if (files.scoreHead !== undefined) return true
  if (source.adapter !== undefined && readPeftConfig(source.adapter).scoreHead) return true
  const weights = source.weights === undefined ? undefined : join(source.weights, "model.safetensors")
  return (
    weights !== undefined &&
    existsSync(weights) &&
    readSafetensors(weights).tensors.some(({ name }) => name === SCORE_WEIGHT)
  )
}

/**
 * Makes a reward of a reward model: a run of the method reward or prm, a sequence classifier of transformers with one output, or one of the hub. Without `models` it is only looked at,
 * for a plan, and cannot score. Errors: SLOTH_REWARD_MODEL for a model without a score head; those of opening a model.
 */
export const openJudge = async (
  context: SlothContext,
  spec: string,
  models: OpenModels | undefined,
): Promise<OpenedJudge> => {
  const { processRewardScorer, rewardModelScorer } = await import("@sloth/rl")
  const source = await resolveModel(context, spec)
  const files = await openFiles(context, source)
  if (!(await hasHead(source, files)))
    throw new SlothError("SLOTH_REWARD_MODEL", {
      what: `${spec} is no reward model: it has no score head.`,
      why: "Rewards by folder are runs of the method reward or prm, or sequence classifiers with one label.",
      next: "Train one with sloth train --method reward, or name a file or a reward of the library.",
      fields: { model: spec },
    })
  const name = basename(source.run ?? spec).replace(/[^\w.-]+/g, "_")
  const memoryBytes = await memoryOf(files, source.adapter)
  if (models === undefined) {
    const score = (): never => {
      throw new SlothError("SLOTH_REWARD_MODEL", { what: `${spec} was only looked at for a plan.` })
    }
    return { reward: { name, memoryBytes, score }, opened: undefined }
  }
  const opened = await models.open(context, spec)
  const steps = source.run !== undefined && readRunRecord(source.run).method === "prm"
  const reward = steps ? processRewardScorer(opened, { name }) : rewardModelScorer(opened, { name })
  return { reward: { ...reward, memoryBytes }, opened }
}
