import { join } from "node:path"
import { decodeConfig, type Completion, type Reward, type RolloutEngine, type RolloutFactory } from "@sloth/core"
import { LocalRollout, MixtureRollout } from "@sloth/infer"
import type { CausalLM, Tokenizer } from "@sloth/model"
import {
  gkd,
  grpo,
  nashMd,
  onlineDpo,
  ppoAdvantages,
  ppoObjectiveLoss,
  rloo,
  sampledUnits,
  xpo,
  type SampledUnit,
} from "@sloth/rl"
import {
  buildMicroBatch,
  disposeOutputs,
  divergencePass,
  readLogprobs,
  readOutputs,
  recordedOutputs,
  resolveTrainConfig,
  unitSize,
  type LogprobLoss,
  type OnlineObjective,
  type SourceContext,
  type TrainingUnit,
} from "@sloth/train"
import { letters } from "../../packages/infer/testing/letters.ts"
import { floatsOf, goldenDir, goldenJson, relativeError } from "./golden.ts"

interface Row {
  readonly prompt: number[]
  readonly completion: number[]
}

interface Case {
  readonly loss: number
  readonly gradNorm: number
  readonly tensors: number
  /** TRL's own settings. */
  readonly trl: Readonly<Record<string, never>> & { readonly [name: string]: number | string | boolean }
  readonly scores: number[]
  readonly rows: readonly Row[]
  readonly advantages: number[] | number[][]
  readonly shift: number
  /** Tokens that TRL divides by. */
  readonly items: number
  readonly tokens: number
  readonly who: "student" | "teacher" | "rows"
  readonly rollouts: readonly (readonly (readonly number[][])[])[]
  readonly head: number[]
  readonly old: number[][]
  readonly reference: number[][]
  readonly values: number[][]
}

interface Golden {
  readonly prompts: readonly number[][]
  readonly pairs: readonly number[][]
  readonly maxCompletionLength: number
  readonly [name: `case:${string}`]: Case
}

/** What a step differs by from TRL's. */
export interface OnlineDifference {
  readonly name: string
  /** Relative to the loss, or to 1 where that is larger. */
  readonly loss: number
  /** Worst relative error of the gradient of a tensor that is trained. */
  readonly gradient: number
  readonly tensors: number
  /** Largest difference of an advantage, where TRL has them. */
  readonly advantages?: number
}

/** TRL's names of settings, and ours. */
const NAMES: Readonly<Record<string, string>> = {
  loss_type: "loss",
  missing_eos_penalty: "missingEndPenalty",
  epsilon_high: "clipHigh",
  normalize_advantages: "normalizeAdvantages",
}
const ours = (trl: Case["trl"]): Record<string, unknown> =>
  Object.fromEntries(Object.entries(trl).map(([name, value]) => [NAMES[name] ?? name, value]))

const END = 2
const tokenizer: Tokenizer = {
  ...letters,
  fingerprint: "letters",
  endOfGeneration: new Set([END]),
  decode: (ids) => ids.map((id) => `<${id}>`).join(""),
}

/** An engine that says what is given, a list a prompt. */
const saying = (given: (prompt: readonly number[]) => readonly number[][]): RolloutEngine => ({
  async *generate(prompts) {
    for (const [prompt, { tokens, count = 1 }] of prompts.entries()) {
      const said = given(tokens)
      for (let index = 0; index < count; index++)
        yield {
          prompt,
          index,
          tokens: said[index]!,
          logprobs: said[index]!.map(() => 0),
          finishReason: said[index]!.at(-1) === END ? "stop" : "length",
        } satisfies Completion
    }
  },
  [Symbol.asyncDispose]: () => Promise.resolve(),
})

/** A reward that has the scores of completions by their tokens. */
const scoresOf = (score: (tokens: readonly number[]) => number): Reward => ({
  name: "given",
  score: (samples) => samples.map(({ completionTokens }) => score(completionTokens)),
})
const even = (tokens: readonly number[]): number => tokens.filter((id) => id % 2 === 0).length / tokens.length

/** The units of steps `1..steps`, by the method's own source: sampling, scoring, advantages, replay. */
const collect = async <Unit extends TrainingUnit>(
  model: CausalLM,
  objective: OnlineObjective<never>,
  rows: readonly unknown[],
  given: {
    readonly settings: object
    readonly rewards?: readonly Reward[]
    readonly rollout: RolloutFactory
    readonly teacher?: CausalLM
    readonly steps?: number
  },
): Promise<{ readonly units: readonly Unit[]; readonly settings: unknown }> => {
  const { steps = 1, rewards = [], rollout, teacher } = given
  const settings = decodeConfig(objective.config!, given.settings, { name: objective.name })
  const context: SourceContext = {
    model,
    tokenizer,
    config: resolveTrainConfig({ batch: rows.length }),
    steps,
    settings,
    split: { tokenBudget: 2048, packing: true, policy: "keep" },
    rewards,
    ...(teacher === undefined ? {} : { teacher }),
    rollout,
    signal: undefined,
    warn: () => Promise.resolve(),
    record: () => {},
    show: () => Promise.resolve(),
  }
  await using source = await objective.online.open(rows as never, [], context)
  let units: readonly Unit[] = []
  for (let step = 1; step <= steps; step++) {
    units = (await source.collect(step, () => Int32Array.from(rows, (_, i) => i))).units as readonly Unit[]
    await source.trained?.(step, {})
  }
  return { units, settings }
}

/** A step of a loss over units: its value, and gradients in the model. */
const hostStep = async (
  model: CausalLM,
  loss: LogprobLoss<SampledUnit>,
  units: readonly SampledUnit[],
): Promise<number> => {
  const { engine } = model
  const batch = buildMicroBatch(units)
  const { temperature = 1 } = loss
  const reference =
    loss.reference === true ? (await readLogprobs(model, batch, { adapters: false, temperature })).logprobs : undefined
  const wanted = { entropy: loss.entropy ?? false, values: loss.values ?? false }
  const { outputs, tape } = recordedOutputs(model, batch, wanted, { policy: "keep", temperature })
  const read = await readOutputs(outputs)
  const result = loss.compute({
    units,
    starts: batch.starts,
    indices: units.map((_, i) => i),
    logprobs: read.logprobs!,
    reference,
    entropy: read.entropy,
    values: read.values,
    normaliser: units.reduce((n, unit) => n + unitSize(loss, unit), 0),
    step: 1,
  })
  engine.scope(() =>
    tape.backward([
      { tensor: outputs.logprobs!, gradient: engine.from(Float32Array.from(result.dlogp)) },
      ...(result.dvalues === undefined
        ? []
        : [
            {
              tensor: outputs.values!,
              gradient: engine.from(Float32Array.from(result.dvalues), outputs.values!.shape),
            },
          ]),
    ]),
  )
  tape.dispose()
  disposeOutputs(outputs)
  return result.loss
}

/** Makes the steps of TRL's trainers over the same completions; `model` is the tiny one with its adapter, `teacher` the other tiny one. */
export const onlineDifferences = async (model: CausalLM, teacher: CausalLM): Promise<OnlineDifference[]> => {
  const golden = goldenJson<Golden>("tiny", "online-steps.json")
  const tensors = floatsOf(join(goldenDir, "tiny", "online-steps.safetensors"))
  const { prompts, pairs, maxCompletionLength } = golden
  const examples = (given: readonly (readonly number[])[]) =>
    given.map((tokens, row) => ({ tokens, prompt: `prompt ${row}`, columns: {}, row }))
  const factory = (given: (prompt: readonly number[], adapters: boolean) => readonly number[][]): RolloutFactory => ({
    name: "given",
    create: (_model: never, options: never) =>
      saying((prompt) => given(prompt, (options as { readonly adapters?: boolean }).adapters ?? true)),
  })
  const placeOf = (prompt: readonly number[]): number => prompts.findIndex((tokens) => tokens.join() === prompt.join())

  /** The two completions of each prompt; of methods with an opponent the second is the opponent's. */
  const pairStep = async (
    objective: typeof onlineDpo | typeof xpo | typeof nashMd,
    { trl, scores }: Case,
  ): Promise<number> => {
    const own = (prompt: readonly number[]) => pairs[placeOf(prompt)]!
    const other = (prompt: readonly number[]) => pairs[placeOf(prompt) + prompts.length]!
    const alone = objective !== onlineDpo
    const sampled = MixtureRollout.prototype.generate
    if (objective === nashMd)
      MixtureRollout.prototype.generate = saying((prompt) => [other(prompt)]).generate as typeof sampled
    try {
      const { units, settings } = await collect<SampledUnit>(model, objective as never, examples(prompts), {
        // The log-probs of Nash-MD are those of the distribution that is sampled; TRL's know no temperature.
        settings: { ...ours(trl), maxCompletionLength, ...(objective === nashMd ? { temperature: 1 } : {}) },
        rewards: [scoresOf((tokens) => scores[pairs.findIndex((p) => p.join() === tokens.join())]!)],
        rollout: factory((prompt, adapters) =>
          alone ? [adapters ? own(prompt) : other(prompt)] : [own(prompt), other(prompt)],
        ),
      })
      return await hostStep(model, objective.loss(settings) as LogprobLoss<SampledUnit>, units)
    } finally {
      MixtureRollout.prototype.generate = sampled
    }
  }

  let advantages: number | undefined
  const rlooStep = async ({ trl, shift, rows, advantages: wanted }: Case): Promise<number> => {
    const group = (prompt: readonly number[]) =>
      rows.filter((row) => row.prompt.join() === prompt.join()).map(({ completion }) => completion)
    const { units, settings } = await collect<SampledUnit>(model, rloo as never, examples(prompts), {
      settings: { ...ours(trl), numGenerations: 4, maxCompletionLength },
      rewards: [scoresOf(even)],
      rollout: factory(group),
    })
    const place = (unit: SampledUnit, tokens: ArrayLike<number>): number =>
      rows.findIndex(
        ({ prompt, completion }) =>
          completion.join() === Array.from(tokens).join() && prompts[unit.row]!.join() === prompt.join(),
      )
    advantages = 0
    const moved = units.map((unit) => ({
      ...unit,
      samples: unit.samples.map((sample) => {
        const i = place(unit, sample.tokens)
        advantages = Math.max(advantages!, Math.abs((sample.advantage as number) - (wanted as number[])[i]!))
        // The loss knows the sum over a completion only.
        const old = Float64Array.from(sample.old!)
        old[0]! += shift * Math.sin(0.9 * i)
        return { ...sample, old }
      }),
    }))
    return hostStep(model, rloo.loss(settings) as LogprobLoss<SampledUnit>, moved)
  }

  const ppoStep = async ({ trl, rows, old, reference, values, scores, head, ...given }: Case): Promise<number> => {
    model.addScoreHead(0, Float32Array.from(head), true)
    const doubles = (all: number[][]) => all.map((row) => Float64Array.from(row))
    // What TRL moved: log-probs and values of the rollout are those that it saw.
    const { advantages: found, returns } = ppoAdvantages(
      Float64Array.from(scores),
      rows.map(({ completion }) => completion.length),
      old.map((row, i) => Float64Array.from(row, (x, t) => x - reference[i]![t]!)),
      { masks: [], finish: [], values: doubles(values) },
      {
        klCoef: 0.05,
        klEstimator: (trl["kl_estimator"] as "k3" | undefined) ?? "k1",
        gamma: Number(trl["gamma"] ?? 1),
        lambda: Number(trl["lam"] ?? 0.95),
        whitenRewards: trl["whiten_rewards"] !== undefined,
        missingEndPenalty: 0,
      },
    )
    advantages = 0
    for (const [i, row] of found.entries())
      for (const [t, a] of row.entries())
        advantages = Math.max(advantages, Math.abs(a - (given.advantages as number[][])[i]![t]!))
    const units = rows.flatMap(({ prompt, completion }, i) =>
      sampledUnits(
        prompt,
        [
          {
            tokens: completion,
            old: Float64Array.from(old[i]!),
            advantage: found[i]!,
            value: Float64Array.from(values[i]!),
            returns: returns[i]!,
          },
        ],
        i,
      ),
    )
    const loss = ppoObjectiveLoss({
      clip: 0.2,
      valueClip: 0.2,
      valueCoef: Number(trl["vf_coef"] ?? 0.1),
      maxCompletionLength,
      temperature: Number(trl["temperature"] ?? 0.7),
    })
    return hostStep(model, loss, units)
  }

  const replayStep = async ({ trl, rollouts }: Case): Promise<number> => {
    let call = 0
    const groups = (prompt: readonly number[]) => rollouts[Math.floor(call++ / prompts.length)]![placeOf(prompt)]!
    const { units, settings } = await collect<SampledUnit>(model, grpo as never, examples(prompts), {
      settings: { ...ours(trl), numGenerations: 4, maxCompletionLength, replayBuffer: 2 },
      rewards: [scoresOf(even)],
      rollout: factory(groups as never),
      steps: 2,
    })
    return hostStep(model, grpo.loss(settings) as LogprobLoss<SampledUnit>, units)
  }

  const gkdStep = async ({ trl, who, rows, items }: Case): Promise<number> => {
    // What rows answer themselves must not matter where somebody else answers.
    const given = rows.map(({ prompt, completion }, row) => {
      const tokens = Int32Array.from([...prompt, ...(who === "rows" ? completion : [9, 9])])
      return { tokens, mask: Uint8Array.from(tokens, (_, t) => (t < prompt.length ? 0 : 1)), row }
    })
    const answers = (prompt: readonly number[]) => [rows[placeOf(prompt)]!.completion]
    const sampled = LocalRollout.prototype.generate
    if (who === "teacher") LocalRollout.prototype.generate = saying(answers).generate as typeof sampled
    const { units } = await collect<TrainingUnit>(model, gkd as never, given, {
      settings: {
        ...ours(trl),
        lambda: who === "student" ? 1 : 0,
        seqKd: who === "teacher",
        maxCompletionLength,
      },
      rollout: factory((prompt, adapters) => (who === "student" && adapters ? answers(prompt) : [])),
      teacher,
    }).finally(() => {
      LocalRollout.prototype.generate = sampled
    })
    const batch = buildMicroBatch(units)
    // TRL divides by the tokens of the rows' own answers, whoever answered: what is scored here is another number.
    const coef = new Float32Array(batch.targets.length).fill(1 / items)
    const { engine } = model
    using sums = engine.keep(engine.zeros([1], "f64"))
    divergencePass(model, batch, { teacher, beta: Number(trl["beta"] ?? 0.5) }, coef, { policy: "keep" }, sums, 0)
    return ((await sums.read()) as Float64Array)[0]!
  }

  const steps: readonly (readonly [start: string, run: (given: Case) => Promise<number>])[] = [
    ["online-dpo", (given) => pairStep(onlineDpo, given)],
    ["xpo", (given) => pairStep(xpo, given)],
    ["nash-md", (given) => pairStep(nashMd, given)],
    ["rloo", rlooStep],
    ["replay", replayStep],
    ["gkd", gkdStep],
    ["ppo", ppoStep],
  ]
  const out: OnlineDifference[] = []
  // PPO comes last: its head stays on the model.
  const names = Object.keys(golden).flatMap((key) => (key.startsWith("case:") ? [key.slice("case:".length)] : []))
  for (const [start, run] of steps)
    for (const name of names.filter((n) => n === start || n.startsWith(`${start}-`))) {
      const wanted = golden[`case:${name}`]!
      advantages = undefined
      const loss = await run(wanted)
      const found = model.trainables()
      let gradient = 0
      for (const { name: tensor, tensor: parameter } of found) {
        const values = tensors.get(`${name}.${tensor}`)?.values
        if (values === undefined) throw new Error(`${name}: no gradient of ${tensor}`)
        gradient = Math.max(gradient, relativeError(await parameter.grad!.readFloats(), values))
      }
      model.clearGradients()
      if (found.length !== wanted.tensors) throw new Error(`${name}: ${found.length} tensors, not ${wanted.tensors}`)
      out.push({
        name,
        loss: Math.abs(loss - wanted.loss) / Math.max(1, Math.abs(wanted.loss)),
        gradient,
        tensors: found.length,
        ...(advantages === undefined ? {} : { advantages }),
      })
    }
  return out
}
