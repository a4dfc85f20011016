import { existsSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { isRunDirectory, SlothError } from "@sloth/core"
import type { Example } from "@sloth/data"
import type { EvaluateSamplingOptions, PromptExample, SamplingEvaluation } from "@sloth/rl"
import type { Objective } from "@sloth/train"
import type { SlothContext } from "./context.ts"
import { resolveEnvironment, type EnvironmentChoice } from "./environments.ts"
import type { OpenModels } from "./opened-model.ts"
import { openJudge } from "./reward-models.ts"
import { resolveRewards, type RewardChoice } from "./rewards.ts"
import { readRunRecord, type RunRecord } from "./run-record.ts"
import type { Rows } from "./score.ts"
import { openEpisodes } from "./train.ts"

/** What evaluating by a training method takes. What a run of that method says is taken from it where it is absent. */
export interface MethodEvaluationRequest {
  /** What `open` takes. */
  readonly model: string
  readonly adapter?: string
  /** Rows of the method's kind; an environment may bring its own. */
  readonly rows?: Rows
  readonly method: string
  readonly settings?: unknown
  readonly rewards?: readonly RewardChoice[]
  readonly environment?: EnvironmentChoice
  readonly environmentSettings?: unknown
  /** Name of the engine that generates; the model in place when absent. */
  readonly rollout?: string
  /** Completions of each prompt; 4 when absent. */
  readonly samples?: number
  /** Seed of sampling; 0 when absent. */
  readonly seed?: number
  /** Most tokens of a row; the model's context when absent. */
  readonly maxLength?: number
  readonly template?: string
  readonly tokenBudget?: number
  /** File to write the completions to, one a line, as in `samples.jsonl`. */
  readonly write?: string
  /** As `onStuck` of training. */
  readonly onStuck?: (error: SlothError) => string
  readonly signal?: AbortSignal
}

/** How a model does by the measure of a training method. */
export interface MethodEvaluation {
  readonly method: string
  /** The method's loss over all rows; absent for methods that sample. */
  readonly loss?: number
  readonly rows: number
  readonly metrics: Readonly<Record<string, number>>
  readonly seconds: number
  /** Completions with what they earned, for methods that sample. */
  readonly records?: SamplingEvaluation["records"]
}

/** The record of a run of this method; undefined for anything else. */
const recordOf = (context: SlothContext, model: string, method: string): RunRecord | undefined => {
  const path = resolve(context.cwd, model)
  if (!existsSync(path) || !isRunDirectory(path)) return undefined
  const record = readRunRecord(path)
  return record.method === method ? record : undefined
}

/** The adapter that a run started from and compares with, where it still lies there. Errors: SLOTH_EVAL_REFERENCE. */
const startOf = (record: RunRecord | undefined): string | undefined => {
  const { adapter, referenceModel = "start" } = (record?.config.config ?? {}) as Readonly<Record<string, unknown>>
  if (typeof adapter !== "string" || referenceModel !== "start") return undefined
  if (existsSync(join(adapter, "adapter_config.json"))) return adapter
  throw new SlothError("SLOTH_EVAL_REFERENCE", {
    what: `The adapter ${adapter}, which this run compares with, is not there any more.`,
    next: "Restore it.",
    fields: { adapter },
  })
}

/**
 * Evaluates a model by a training method without training: the loss and figures of pairs and ratings (accuracy, margins), the accuracy of a reward model, or what sampled completions
 * earn. Errors: SLOTH_EVAL_REFERENCE for a method that compares with a reference where the model has no adapter, SLOTH_EVAL_NO_ROWS, those of opening model, rows and rewards.
 */
export const evaluateByMethod = async (
  context: SlothContext,
  models: OpenModels,
  request: MethodEvaluationRequest,
): Promise<MethodEvaluation> => {
  const [
    { decodeSettings, evaluateUnits, isOnline, openMethodData, resolveTrainConfig, wantsReference, wantsScoreHead },
    rl,
  ] = await Promise.all([import("@sloth/train"), import("@sloth/rl")])
  const started = performance.now()
  const { method, signal } = request
  const objective = context.registry.get("objectives", method) as Objective<Example>
  const record = recordOf(context, request.model, method)
  const given = {
    ...(record?.settings as Readonly<Record<string, unknown>> | undefined),
    ...(request.settings as Readonly<Record<string, unknown>> | undefined),
  }
  const settings = objective.config === undefined ? undefined : given
  const decoded = decodeSettings(objective, settings)
  const online = isOnline(objective)
  const loss = objective.loss(decoded)
  const start = wantsReference(loss) ? startOf(record) : undefined
  const played = online ? (request.environment ?? record?.environment) : undefined
  const chosen =
    played === undefined
      ? undefined
      : await resolveEnvironment(
          context.registry,
          context.cwd,
          played,
          request.environmentSettings ?? record?.environmentSettings,
        )
  const rows = request.rows ?? chosen?.environment.rows
  if (rows === undefined)
    throw new SlothError("SLOTH_EVAL_NO_ROWS", { what: "No rows were named.", next: "Name a file with --data." })
  using opened = await models.open(context, request.model, {
    ...(request.adapter === undefined ? {} : { adapter: request.adapter }),
    ...(start === undefined ? {} : { referenceAdapter: start }),
    ...(signal === undefined ? {} : { signal }),
  })
  const { model, tokenizer, files } = opened
  if (wantsReference(loss) && !online && opened.lora === undefined)
    throw new SlothError("SLOTH_EVAL_REFERENCE", {
      what: `The method "${method}" compares a model with its reference, and ${request.model} has no adapter: it would be compared with itself.`,
      next: "Evaluate the run, or the base model with --adapter; orpo, cpo and simpo need no reference.",
      fields: { method, model: request.model },
    })
  if (wantsScoreHead(loss) && !online) void model.scoreHead
  const template = request.template ?? record?.template
  const config = resolveTrainConfig({ maxLength: request.maxLength ?? record?.maxLength ?? files.config.maxPositions })
  const how = {
    settings,
    tokenizer,
    registry: await context.readers(),
    ...(template === undefined ? {} : { template }),
    ...(signal === undefined ? {} : { signal }),
  }
  const source =
    typeof rows === "string"
      ? resolve(context.cwd, rows)
      : rows.every((row) => typeof row === "string")
        ? rows.map((path) => resolve(context.cwd, path))
        : rows
  using _watch = request.onStuck === undefined || !online ? undefined : rl.endStuckProcess(request.onStuck)
  const rollout = request.rollout === undefined ? undefined : context.registry.get("rollouts", request.rollout)
  const episodes =
    chosen === undefined ? undefined : await openEpisodes(objective, chosen, source as never, config, how, rollout)
  const data = episodes?.data ?? (await openMethodData(objective, source as never, config, how))
  const done = (more: Omit<MethodEvaluation, "method" | "rows" | "seconds">): MethodEvaluation => ({
    method,
    rows: data.examples.length,
    seconds: (performance.now() - started) / 1000,
    ...more,
  })
  if (!online) {
    const units = await objective.prepare(data.examples as readonly Example[], { settings: decoded, signal })
    const result = await evaluateUnits(model, units, {
      loss,
      ...(request.tokenBudget === undefined ? {} : { tokenBudget: request.tokenBudget }),
      ...(signal === undefined ? {} : { signal }),
    })
    return done({
      loss: result.loss,
      metrics: result.perplexity === undefined ? result.metrics : { ...result.metrics, perplexity: result.perplexity },
    })
  }
  const { rewards, opened: judges } = await resolveRewards(
    context.registry,
    context.cwd,
    request.rewards ?? record?.rewards ?? [],
    (spec) => openJudge(context, spec, models),
  )
  try {
    const { records, metrics } = await rl.evaluateSampling(
      data.examples as unknown as readonly PromptExample[],
      {
        model,
        tokenizer,
        rewards: episodes === undefined ? rewards : [episodes.reward, ...rewards],
        rollout: episodes?.rollout ?? rollout,
        signal,
      },
      {
        method,
        settings: decoded as EvaluateSamplingOptions["settings"],
        samples: request.samples ?? 4,
        seed: request.seed ?? 0,
      },
    )
    if (request.write !== undefined)
      writeFileSync(resolve(context.cwd, request.write), records.map((line) => `${JSON.stringify(line)}\n`).join(""))
    return done({ metrics, records })
  } finally {
    for (const judge of judges) judge.dispose()
  }
}
