import { smollm2Path, SMOLLM2_ABSENT } from "../../tests/support/smollm2.ts"
import { join } from "node:path"
import { peerPython, root, runJob, runOwnJob } from "../lib/child.ts"
import { contest, type Competitor } from "../lib/contest.ts"
import type { BenchContext } from "../lib/context.ts"
import { median, spread } from "../lib/stats.ts"

interface StepResult {
  readonly seconds: readonly number[]
  readonly parts: Readonly<Record<"rollout" | "score" | "train", readonly number[]>>
  readonly tokens: number
  readonly sampled: number
  readonly peakRssBytes: number
  readonly plannedBytes: number
}

interface PeerResult {
  readonly trl: string
  readonly seconds: readonly number[]
  readonly rollout: readonly number[]
  readonly tokens: number
  readonly peakRssBytes: number
}

interface PrefixResult {
  readonly shared: readonly number[]
  readonly apart: readonly number[]
  readonly lossDifference: number
  /** Relative, of all tensors as one vector, and of the tensor where it is largest. */
  readonly gradientDifference: number
  readonly worstTensor: number
}

/** The shape that the bars are about, and a small one. */
const SHAPES = {
  full: { prompts: 2, prompt: 256, group: 8, completion: 64 },
  quick: { prompts: 2, prompt: 64, group: 4, completion: 16 },
} as const
const groupOf = ({ prompts, prompt, group, completion }: (typeof SHAPES)[keyof typeof SHAPES]): string =>
  `GRPO step, ${prompts} prompts of ${prompt} tokens, ${group} completions of ${completion}, LoRA r16, f32`
const TRL_ABSENT =
  "TRL absent, ratios not measured: set SLOTH_PEER_PYTHON=<python with torch, transformers, peft, trl, gguf>"

/** Whole steps beside TRL's, in turn. */
const steps = async ({ threads, quick, rounds, add, say }: BenchContext): Promise<void> => {
  const shape = quick ? SHAPES.quick : SHAPES.full
  const group = groupOf(shape)
  const at = { section: "grpo", group }
  const sizes = Object.entries(shape).flatMap(([name, value]) => [`--${name}`, String(value)])
  const words = [...sizes, "--threads", String(threads)]
  const python = peerPython()
  const competitors: Competitor<StepResult | PeerResult>[] = [
    {
      name: "sloth f32",
      team: "sloth",
      run: () => runOwnJob<StepResult>("grpo.ts", [...words, "--steps", quick ? "1" : "3"]),
    },
  ]
  if (python !== undefined)
    competitors.push({
      name: "TRL f32",
      team: "TRL",
      run: () =>
        runJob<PeerResult>(
          python,
          // A full step takes a minute and 17 GB: the first is measured too.
          [join(root, "bench/peers/grpo.py"), ...words, "--warmup", quick ? "1" : "0", "--steps", quick ? "1" : "2"],
          { env: { SLOTH_TEST_MODEL_GGUF: smollm2Path!, HF_HUB_OFFLINE: "1" } },
        ),
    })
  const outcomes = await contest(
    competitors,
    rounds,
    (r) => 1 / median(r.seconds),
    (text) => say(`${group}: ${text}`),
  )
  const [mine, peer] = [outcomes.get("sloth f32")!, outcomes.get("TRL f32")]
  if (mine.values.length === 0) {
    add({ ...at, name: mine.name, missing: mine.error ?? "did not run" })
    return
  }
  const own = mine.values as readonly StepResult[]
  const parts = (name: "rollout" | "train"): number => median(own.flatMap((v) => v.parts[name]))
  add({
    ...at,
    name: "sloth f32",
    value: spread(own.flatMap(({ seconds }) => seconds)),
    unit: "s",
    note: `rollout ${parts("rollout").toFixed(2)} s, update ${parts("train").toFixed(2)} s`,
  })
  add({
    ...at,
    name: "tokens of all texts",
    value: spread(own.flatMap((v) => v.seconds.map((s) => v.tokens / s))),
    unit: "tok/s",
  })
  add({
    ...at,
    name: "tokens sampled",
    value: spread(own.flatMap((v) => v.parts.rollout.map((s) => v.sampled / s))),
    unit: "tok/s",
  })
  add({
    ...at,
    name: "peak memory",
    value: spread(own.map((v) => v.peakRssBytes / 1e6)),
    unit: "MB",
    note: `planned ${(own[0]!.plannedBytes / 1e6).toFixed(0)} MB`,
  })
  if (peer === undefined || peer.values.length === 0) {
    add({ ...at, name: "TRL", missing: peer?.error ?? TRL_ABSENT })
    return
  }
  const theirs = peer.values as readonly PeerResult[]
  const name = `TRL ${theirs[0]!.trl} f32`
  add({
    ...at,
    name,
    value: spread(theirs.flatMap(({ seconds }) => seconds)),
    unit: "s",
    note: `rollout ${median(theirs.flatMap(({ rollout }) => rollout)).toFixed(1)} s, ${(median(theirs.map((v) => v.peakRssBytes)) / 1e6).toFixed(0)} MB peak`,
  })
  const n = Math.min(own.length, theirs.length)
  const ratios = Array.from({ length: n }, (_, i) => median(theirs[i]!.seconds) / median(own[i]!.seconds))
  add({
    ...at,
    name: `${name} / sloth f32, time of a step`,
    value: spread(ratios),
    unit: "x",
    score: median(ratios),
    scoreOf: "x peer",
    ...(quick ? {} : { bar: { must: 8, aim: 12 } }),
  })
  const shares = Array.from({ length: n }, (_, i) => own[i]!.peakRssBytes / theirs[i]!.peakRssBytes)
  add({
    ...at,
    name: `peak memory / ${name}`,
    value: spread(shares.map((share) => 100 * share)),
    unit: "%",
    score: median(shares),
    scoreOf: "of peer",
    ...(quick ? {} : { bar: { must: 0.1, aim: 0.06, below: true } }),
  })
}

/** What sharing the prompt of a group brings to an update, and that it changes nothing. */
const prefix = async ({ threads, rounds, add, say }: BenchContext): Promise<void> => {
  const group = "update with a shared prompt of 512 tokens, 8 completions of 128"
  const at = { section: "grpo", group }
  say(group)
  const job = await runOwnJob<PrefixResult>("grpo-prefix.ts", [
    "--threads",
    String(threads),
    "--rounds",
    String(rounds),
  ])
  if (!job.ok) {
    add({ ...at, name: "shared", missing: job.error })
    return
  }
  for (const { shared, apart, lossDifference, gradientDifference, worstTensor } of job.values) {
    const ratios = shared.map((s, i) => apart[i]! / s)
    add({ ...at, name: "shared", value: spread(shared), unit: "s" })
    add({ ...at, name: "a copy for each", value: spread(apart), unit: "s" })
    add({
      ...at,
      name: "copies / shared",
      value: spread(ratios),
      unit: "x",
      score: median(ratios),
      scoreOf: "x copies",
      bar: { must: 2 },
    })
    // Both add up the same in f32, in another order: what is left is rounding, which shows most in tensors whose parts cancel.
    for (const [name, difference] of [
      ["loss of both, difference", lossDifference],
      ["gradient of both, relative difference", gradientDifference],
      ["gradient of both, the tensor with the largest relative difference", worstTensor],
    ] as const)
      add({
        ...at,
        name,
        value: spread([difference]),
        unit: "",
        score: difference,
        scoreOf: "apart",
        bar: { must: 1e-5, below: true },
      })
  }
}

const WAITING = "GRPO step with a reward that waits 2 s, 2 prompts of 64 tokens, 4 completions of 32"

/** What rollouts ahead of training bring where a reward waits for something: a judge, a sandbox. */
const waiting = async ({ threads, rounds, add, say }: BenchContext): Promise<void> => {
  const at = { section: "grpo", group: WAITING }
  const words = [
    "--prompts",
    "2",
    "--prompt",
    "64",
    "--group",
    "4",
    "--completion",
    "32",
    "--wait",
    "2",
    "--steps",
    "4",
  ]
  const competitors = [0, 1].map((ahead): Competitor<StepResult> => {
    const name = ahead === 0 ? "rollouts when they are needed" : "one rollout ahead (maxStaleness 1)"
    const own = [...words, "--threads", String(threads), "--ahead", String(ahead)]
    return { name, team: name, run: () => runOwnJob<StepResult>("grpo.ts", own) }
  })
  const outcomes = await contest(
    competitors,
    rounds,
    (r) => 1 / median(r.seconds),
    (text) => say(`${WAITING}: ${text}`),
  )
  for (const { name, values, error } of outcomes.values())
    if (values.length === 0) add({ ...at, name, missing: error ?? "did not run" })
    else add({ ...at, name, value: spread(values.flatMap(({ seconds }) => seconds)), unit: "s" })
  const [needed, ahead] = competitors.map(({ name }) => outcomes.get(name)!.values)
  if (needed!.length === 0 || ahead!.length === 0) return
  const ratios = needed!.map((v, i) => median(v.seconds) / median((ahead![i] ?? ahead![0]!).seconds))
  add({ ...at, name: "needed / ahead", value: spread(ratios), unit: "x" })
}

/** GRPO with SmolLM2-135M: whole steps against TRL, what sharing the prompt of a group brings, and rollouts ahead of training. */
export const grpo = async (context: BenchContext): Promise<void> => {
  if (smollm2Path === undefined) {
    context.add({ section: "grpo", group: "GRPO", name: "SmolLM2-135M Q4_1", missing: SMOLLM2_ABSENT })
    return
  }
  const { filter } = context
  if (filter === undefined || groupOf(context.quick ? SHAPES.quick : SHAPES.full).includes(filter)) await steps(context)
  if (filter === undefined || "shared prompt of 512 tokens".includes(filter)) await prefix(context)
  if (filter === undefined || WAITING.includes(filter)) await waiting(context)
}
