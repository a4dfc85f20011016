/**
 * `bun bench/grpo-curve.ts`: reward curves of GRPO on SmolLM2-135M beside TRL's, which are kept in tests/golden/smollm2/grpo-curve.json. A seed takes some minutes.
 *
 *   --seeds 0,1,2    seeds of Sloth's runs
 *   --json F         writes Sloth's curves; with --keep it takes those of F that are there and runs only the others
 *   --svg F          writes the picture (bench/results/grpo-curve.svg)
 *   --threads N
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { availableParallelism } from "node:os"
import { dirname, join } from "node:path"
import { goldenJson } from "../tests/support/golden.ts"
import { smollm2Path, SMOLLM2_ABSENT } from "../tests/support/smollm2.ts"
import { root, runOwnJob } from "./lib/child.ts"
import { curvePicture, summarise, type CurveGolden, type CurveStep, type CurveSummary } from "./lib/grpo-curve.ts"
import { flag, number, text } from "./lib/options.ts"

if (smollm2Path === undefined) {
  console.error(SMOLLM2_ABSENT)
  process.exit(2)
}
const golden = goldenJson<CurveGolden>("smollm2", "grpo-curve.json")
const seeds = (text("seeds") ?? "0,1,2").split(",").map(Number)
if (seeds.some((seed) => !Number.isInteger(seed) || seed < 0)) {
  console.error(`--seeds takes whole numbers, such as 0,1,2; not ${text("seeds")}.`)
  process.exit(2)
}
interface Curve {
  readonly seed: number
  readonly steps: readonly CurveStep[]
}
const json = text("json")
const kept: readonly Curve[] =
  flag("keep") && json !== undefined && existsSync(json)
    ? (JSON.parse(readFileSync(json, "utf8")) as { curves: Curve[] }).curves
    : []
const curves: Curve[] = []
for (const seed of seeds) {
  const known = kept.find((curve) => curve.seed === seed)
  if (known !== undefined) {
    curves.push(known)
    continue
  }
  const words = ["--seed", String(seed), "--threads", String(number("threads", availableParallelism()))]
  const job = await runOwnJob<CurveStep>("grpo-curve.ts", words, {
    onValue: ({ step, reward }) => {
      if (step % 10 === 0) console.error(`- seed ${seed}, step ${step}: reward ${reward.toFixed(3)}`)
    },
  })
  if (!job.ok) {
    console.error(job.error)
    process.exit(1)
  }
  curves.push({ seed, steps: job.values })
  if (json !== undefined) {
    mkdirSync(dirname(json), { recursive: true })
    writeFileSync(json, `${JSON.stringify({ settings: golden.settings, curves })}\n`)
  }
}
const { settings, header } = golden
const [ours, theirs] = [curves.map(({ steps }) => steps), golden.curves.map(({ steps }) => steps)]
const between = (values: readonly number[], digits: number): string =>
  `${(values.reduce((a, b) => a + b, 0) / values.length).toFixed(digits)} (${Math.min(...values).toFixed(digits)} to ${Math.max(...values).toFixed(digits)})`
const row = (name: string, { first, last, rise, half }: CurveSummary): string =>
  `| ${name} | ${between(first, 3)} | ${between(last, 3)} | ${between(rise, 3)} | ${between(half, 0)} |`
console.log(
  [
    `${settings.steps} steps of ${settings.prompts} prompts × ${settings.group} completions of ${settings.completion} tokens, LoRA r${settings.rank}, learning rate ${settings.learningRate}; reward: share of words with a capital`,
    "| | steps 1 to 10 | last 10 steps | rise | half way at step |",
    "| --- | --- | --- | --- | --- |",
    row(`Sloth, ${ours.length} seeds`, summarise(ours)),
    row(`TRL ${header.versions["trl"]}, ${theirs.length} seeds`, summarise(theirs)),
  ].join("\n"),
)
const svg = text("svg") ?? join(root, "bench/results/grpo-curve.svg")
mkdirSync(dirname(svg), { recursive: true })
writeFileSync(
  svg,
  curvePicture("GRPO on SmolLM2-135M: mean reward of a step", [
    { name: "Sloth", colour: "#2f7d5b", curves: ours },
    { name: `TRL ${header.versions["trl"]}`, colour: "#c77d1a", curves: theirs },
  ]),
)
console.log(`picture: ${svg}`)
