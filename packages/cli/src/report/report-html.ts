import { formatBytes } from "@sloth/core"
import { formatSeconds } from "@sloth/train"
import { escapeHtml } from "./escape.ts"
import { lineChart, smoothed, type LineChart, type Point } from "./line-chart.ts"
import type { ReportData, ReportSetting } from "./report-data.ts"
import { stackedChart, stackedLegend } from "./stacked-chart.ts"
import { count, large } from "../terminal/text.ts"
import { reportScript, reportStyle } from "./style.ts"

const tile = (value: string, name: string): string =>
  `<div class="tile"><b>${escapeHtml(value)}</b><span>${escapeHtml(name)}</span></div>`

const chartCard = (chart: LineChart, legend = ""): string =>
  `<section class="card"><div class="top"><h2>${escapeHtml(chart.title)}</h2>${legend}</div>${lineChart(chart)}<div class="reading"></div></section>`

const statusPill = (status: ReportData["status"]): string => {
  const kind = status === "completed" ? "" : status === "failed" ? " bad" : " warn"
  return `<span class="pill${kind}">${status}</span>`
}

const rewardTile = (steps: ReportData["steps"]): string[] => {
  const rewards = steps.flatMap(({ metrics }) => metrics?.["reward"] ?? [])
  const mean = (values: readonly number[]): string => (values.reduce((a, b) => a + b, 0) / values.length).toFixed(3)
  return rewards.length === 0
    ? []
    : [
        tile(
          mean(rewards.slice(-10)),
          rewards.length > 10 ? `mean reward, from ${mean(rewards.slice(0, 10))}` : "mean reward",
        ),
      ]
}

const tiles = (data: ReportData): string => {
  const { steps, evaluations, plan } = data
  const last = steps.at(-1)
  if (last === undefined) return ""
  const seconds = steps.reduce((n, s) => n + s.seconds, 0)
  const tokens = steps.reduce((n, s) => n + s.tokens, 0)
  const best = evaluations.length === 0 ? undefined : Math.min(...evaluations.map((e) => e.loss))
  // Where completions are sampled, what is low in an evaluation is minus the reward.
  const sampled = steps.some(({ metrics }) => metrics?.["reward"] !== undefined)
  return `<div class="tiles">${[
    ...rewardTile(steps),
    tile(last.loss.toFixed(4), steps.length > 1 ? `loss, from ${steps[0]!.loss.toFixed(4)}` : "loss"),
    ...(best === undefined
      ? []
      : [sampled ? tile((-best).toFixed(3), "best held-out reward") : tile(best.toFixed(4), "best evaluation loss")]),
    tile(plan === undefined ? count(last.step) : `${count(last.step)} / ${count(plan.steps)}`, "steps"),
    tile(formatSeconds(seconds), `${large(tokens)} tokens, ${large(tokens / seconds)} a second`),
    tile(formatBytes(Math.max(...steps.map((s) => s.peakRssBytes))), "peak memory"),
    ...(plan === undefined
      ? []
      : [tile(large(plan.trainableParameters), `of ${large(plan.parameters)} parameters trained`)]),
  ].join("")}</div>`
}

/** Curves of what rollouts and rewards did, for methods that have them. */
const rewardCharts = ({ steps, evaluations }: ReportData): string => {
  const points = (name: string) =>
    steps.flatMap(({ step, metrics }) => (metrics?.[name] === undefined ? [] : [{ x: step, y: metrics[name] }]))
  const rewards = points("reward")
  if (rewards.length === 0) return ""
  const names = [...new Set(steps.flatMap(({ metrics }) => Object.keys(metrics ?? {})))]
  const own = names.flatMap((name) => rewardOf(name) ?? [])
  const few = (y: number): string => (Math.abs(y) >= 10 ? y.toFixed(0) : y.toPrecision(2))
  const small = { width: 320, height: 170, smooth: true, format: few }
  const charts = [
    ["reward_std", "Spread of rewards (standard deviation)"],
    ["frac_reward_zero_std", "Groups whose rewards are all equal (share)"],
    ["completions/mean_length", "Length of completions (tokens)"],
    ["completions/clipped_ratio", "Completions cut at the limit (share)"],
    ["kl", "KL divergence from the start (nats a token)"],
    ["entropy", "Entropy (nats a token)"],
    ["clip_ratio/region_mean", "Clipped ratios (share of tokens)"],
    ["seconds/wait", "Seconds of waiting for a rollout made ahead"],
    ["staleness", "Steps the sampling weights are behind"],
  ] as const
  // Where few steps are, every one counts; of many the band is as unsteady as the values, and is smoothed like them.
  const spread = points("reward_std")
  const band = bandOf(rewards, spread)
  const held = evaluations.flatMap(({ step, metrics }) =>
    metrics?.["reward"] === undefined ? [] : [{ x: step, y: metrics["reward"] }],
  )
  return `${chartCard(
    {
      title: "Mean reward",
      points: rewards,
      smooth: true,
      band,
      ...(held.length === 0 ? {} : { marks: { name: "held-out rows", points: held } }),
      format: few,
      width: 1040,
      height: 320,
    },
    `<span class="legend"><i></i>smoothed<i class="r"></i>each rollout${band.length === 0 ? "" : '<i class="b"></i>one standard deviation of completions'}${held.length === 0 ? "" : '<i class="e"></i>held-out rows'}</span>`,
  )}<div class="grid3">${[
    ...(own.length < 2
      ? []
      : own.map((reward) => {
          const line = points(`rewards/${reward}/mean`)
          return { title: `Reward ${reward}`, points: line, band: bandOf(line, points(`rewards/${reward}/std`)) }
        })),
    ...charts.map(([name, title]) => ({ title, points: points(name), band: [] })),
  ]
    .filter((chart) => chart.points.length > 0)
    .map((chart) => chartCard({ ...small, ...chart, zero: chart.points.every(({ y }) => y >= 0) }))
    .join("")}</div>${timeCard(steps)}${otherCharts(
    steps,
    names.filter((name) => !DRAWN.includes(name) && !/^(rewards\/.+\/(mean|std)|seconds\/.+)$/.test(name)),
  )}`
}

/** The reward that a figure is the mean of. */
const rewardOf = (figure: string): string | undefined => /^rewards\/(.+)\/mean$/.exec(figure)?.[1]

/** One standard deviation around a mean. Where few steps are, every one counts; of many the band is as unsteady as the values, and is smoothed like them. */
const bandOf = (means: readonly Point[], spread: readonly Point[]): NonNullable<LineChart["band"]> => {
  if (spread.length !== means.length) return []
  const sigma = Math.max(1, means.length / 100)
  const [centre, width] = means.length > 4 ? [smoothed(means, sigma), smoothed(spread, sigma)] : [means, spread]
  return centre.map(({ x, y }, i) => ({ x, low: y - width[i]!.y, high: y + width[i]!.y }))
}

/** Where the time of steps went. */
const timeCard = (steps: ReportData["steps"]): string => {
  const ahead = steps.some(({ metrics }) => metrics?.["seconds/wait"] !== undefined)
  const parts = ["rollout", "rewards", "update", ...(ahead ? [] : ["the rest"])]
  const rows = steps.map(({ step, seconds, metrics }) => {
    const [rollout, score, train] = ["rollout", "score", "train"].map((part) => metrics?.[`seconds/${part}`] ?? 0)
    const values = [rollout!, score!, train!]
    const rest = Math.max(0, seconds - values.reduce((a, b) => a + b, 0))
    return { x: step, values: ahead ? values : [...values, rest] }
  })
  if (rows.length === 0) return ""
  const total = parts.map((_, k) => rows.reduce((n, { values }) => n + values[k]!, 0))
  const all = total.reduce((a, b) => a + b, 0) || 1
  const shares = parts.map((part, k) => `${part} ${Math.round((100 * total[k]!) / all)} %`)
  const title = ahead ? "Seconds of what ran side by side" : "Seconds of a step"
  const format = (y: number): string => (y >= 10 ? y.toFixed(0) : y >= 1 ? y.toFixed(1) : y.toPrecision(2))
  return `<section class="card"><div class="top"><h2>${title}</h2>${stackedLegend(shares)}</div>${stackedChart({ title, parts, rows, format, width: 1040, height: 240 })}<div class="reading"></div></section>`
}

/** Figures that have a chart of their own, or say what another says. */
const DRAWN: readonly string[] = [
  "reward",
  "reward_std",
  "frac_reward_zero_std",
  "completions/mean_length",
  "completions/clipped_ratio",
  "kl",
  "entropy",
  "clip_ratio/region_mean",
  "staleness",
]

/** Charts of all figures that are left, folded away. */
const otherCharts = (steps: ReportData["steps"], names: readonly string[]): string => {
  const cards = names.flatMap((name) => {
    const points = steps.flatMap(({ step, metrics }) => {
      const y = metrics?.[name]
      return y === undefined || !Number.isFinite(y) ? [] : [{ x: step, y }]
    })
    return points.length === 0 ? [] : [figureCard(name, points, [])]
  })
  return cards.length === 0
    ? ""
    : `<details class="card"><summary>${cards.length} more figures</summary><div class="grid3">${cards.join("")}</div></details>`
}

const figureCard = (title: string, points: readonly Point[], marks: readonly Point[]): string =>
  chartCard({
    title,
    points,
    smooth: true,
    ...(marks.length === 0 ? {} : { marks: { name: "evaluation", points: marks } }),
    format: (y) => (Math.abs(y) >= 100 ? count(y) : Number(y.toPrecision(3)).toString()),
    width: 320,
    height: 170,
  })

/** The best and the worst completions of the last rollout. */
const completionsCard = ({ completions }: ReportData): string => {
  if (completions.length === 0) return ""
  const names = Object.keys(completions[0]!.rewards)
  const score = (value: number | null | undefined): string =>
    value === null || value === undefined ? "none" : String(Number(value.toFixed(3)))
  const rows = completions
    .map(
      ({ prompt, completion, reward, rewards, times }) =>
        `<tr><td class="n">${score(reward)}</td>${names.length > 1 ? names.map((name) => `<td class="n">${score(rewards[name])}</td>`).join("") : ""}<td>${escapeHtml(prompt.slice(-300))}</td><td>${escapeHtml(completion.trim() === "" ? "(nothing)" : completion.trim().slice(0, 600))}${times > 1 ? ` <span class="none">×${times}</span>` : ""}</td></tr>`,
    )
    .join("")
  return `<section class="card"><h2>Completions of step ${completions[0]!.step}, best and worst</h2><div class="scroll"><table><thead><tr><th>reward</th>${names.length > 1 ? names.map((name) => `<th>${escapeHtml(name)}</th>`).join("") : ""}<th>prompt</th><th>completion</th></tr></thead><tbody>${rows}</tbody></table></div></section>`
}

/** A chart for each figure that the method told of its steps, with those of its evaluations. */
const metricCharts = ({ steps, evaluations }: ReportData): string => {
  const names = [...new Set(steps.flatMap(({ metrics }) => Object.keys(metrics ?? {})))]
  // What rollouts and rewards did is drawn above.
  if (names.includes("reward")) return ""
  const points = (
    of: readonly { readonly step: number; readonly metrics?: Readonly<Record<string, number>> }[],
    name: string,
  ) =>
    of.flatMap(({ step, metrics }) => {
      const y = metrics?.[name]
      return y === undefined || !Number.isFinite(y) ? [] : [{ x: step, y }]
    })
  const cards = names.flatMap((name) => {
    const line = points(steps, name)
    if (line.length === 0) return []
    const marks = points(evaluations, name)
    return [figureCard(name, line, marks)]
  })
  return cards.length === 0 ? "" : `<div class="grid3">${cards.join("")}</div>`
}

/** Methods whose loss is a mean over scored tokens. */
const PER_TOKEN: readonly (string | undefined)[] = [undefined, "sft", "pretrain"]

const charts = (data: ReportData): string => {
  const { steps, method } = data
  // Evaluations of methods that sample are rewards, drawn above, and no losses.
  const evaluations = steps.some(({ metrics }) => metrics?.["reward"] !== undefined) ? [] : data.evaluations
  const series = (y: (step: (typeof steps)[number]) => number) => steps.map((step) => ({ x: step.step, y: y(step) }))
  const legend = `<span class="legend"><i></i>smoothed<i class="r"></i>each step${evaluations.length > 0 ? '<i class="e"></i>evaluation' : ""}</span>`
  const small = { width: 320, height: 170 }
  return `${rewardCharts(data)}${chartCard(
    {
      title: PER_TOKEN.includes(method) ? "Loss (nats per scored token)" : `Loss of ${method}`,
      points: series((s) => s.loss),
      smooth: true,
      ...(evaluations.length === 0
        ? {}
        : { marks: { name: "evaluation", points: evaluations.map((e) => ({ x: e.step, y: e.loss })) } }),
      format: (y) => y.toFixed(Math.abs(y) < 10 ? 2 : 1),
      width: 1040,
      height: 320,
    },
    legend,
  )}<div class="grid3">${[
    chartCard({
      ...small,
      title: "Learning rate",
      points: series((s) => s.learningRate),
      format: (y) => (y === 0 ? "0" : y.toExponential(1)),
      zero: true,
    }),
    chartCard({
      ...small,
      title: "Tokens per second",
      points: series((s) => s.tokensPerSecond),
      format: count,
      zero: true,
      smooth: true,
    }),
    chartCard({
      ...small,
      title: "Gradient norm",
      points: series((s) => s.gradNorm),
      format: (y) => (y >= 10 ? y.toFixed(0) : y.toPrecision(2)),
      zero: true,
      smooth: true,
    }),
  ].join("")}</div>${metricCharts(data)}`
}

const samples = (data: ReportData): string => {
  if (data.samples.length === 0) return ""
  const answer = (kind: string, text: string | undefined): string =>
    text === undefined
      ? ""
      : `<div class="answer ${kind}"><small>${kind}</small>${escapeHtml(text.trim() === "" ? "(nothing)" : text.trim())}</div>`
  return `<section class="card"><h2>Before and after</h2>${data.samples
    .map(
      ({ prompt, before, after }) =>
        `<div class="sample"><q>${escapeHtml(prompt)}</q><div class="pair">${answer("before", before)}${answer("after", after)}</div></div>`,
    )
    .join("")}</section>`
}

const exportsTable = ({ exports }: ReportData): string => {
  if (exports.length === 0) return ""
  const rows = exports
    .map(
      ({ format, path, bytes, verified, maxLogprobDifference }) =>
        `<tr><td>${escapeHtml(format)}</td><td><code>${escapeHtml(path)}</code></td><td class="n">${bytes === undefined ? "" : formatBytes(bytes)}</td><td class="n">${verified ? '<span class="ok">verified</span>' : "not verified"}</td><td class="n">${maxLogprobDifference === undefined ? "" : maxLogprobDifference === 0 ? "none" : `${maxLogprobDifference.toExponential(1)} nats`}</td></tr>`,
    )
    .join("")
  return `<section class="card"><h2>Exports</h2><div class="scroll"><table><thead><tr><th>format</th><th>file</th><th>size</th><th>read back</th><th>largest log-prob difference</th></tr></thead><tbody>${rows}</tbody></table></div></section>`
}

const dataCard = (data: ReportData): string => {
  const { plan } = data
  const lines = [
    ...(data.statement === undefined ? [] : [`<p>${escapeHtml(data.statement)}</p>`]),
    ...(plan === undefined
      ? []
      : [
          `<p>${count(plan.rows)} rows, ${count(plan.epochTokens)} tokens, ${count(plan.epochScoredTokens)} of them scored; the longest row has ${count(plan.longest)} tokens.${plan.evaluationRows > 0 ? ` ${count(plan.evaluationRows)} rows are only evaluated.` : ""}</p>`,
        ]),
    ...(data.data.length === 0
      ? []
      : [`<p>${data.data.map((path) => `<code>${escapeHtml(path)}</code>`).join(" ")}</p>`]),
  ]
  return lines.length === 0 ? "" : `<section class="card"><h2>Data</h2>${lines.join("")}</section>`
}

const settingRows = (settings: readonly ReportSetting[]): string =>
  settings
    .map(
      ({ key, value, description, changed }) =>
        `<tr${changed ? ' class="changed"' : ""}><td>${escapeHtml(key)}</td><td><code>${escapeHtml(value)}</code></td><td class="none">${escapeHtml(description)}</td></tr>`,
    )
    .join("")

const settingsCard = (data: ReportData): string => {
  const table = (settings: readonly ReportSetting[]): string =>
    `<div class="scroll"><table><thead><tr><th>setting</th><th>value</th><th></th></tr></thead><tbody>${settingRows(settings)}</tbody></table></div>`
  const own = data.settings.filter(({ changed }) => changed)
  const rest = data.settings.filter(({ changed }) => !changed)
  return `${data.methodSettings.length === 0 ? "" : `<details class="card"><summary>Settings of ${escapeHtml(data.method ?? "the method")}</summary><div>${table(data.methodSettings)}</div></details>`}<section class="card"><h2>Settings</h2>${own.length === 0 ? "" : table(own)}${rest.length === 0 ? "" : `<details><summary>${rest.length} more at their defaults</summary>${table(rest)}</details>`}</section>`
}

const warningsCard = ({ warnings }: ReportData): string =>
  warnings.length === 0
    ? ""
    : `<section class="card"><h2>Warnings</h2><div class="scroll"><table><tbody>${warnings
        .map(
          ({ step, code, message }) =>
            `<tr><td class="n">${step === undefined ? "" : `step ${step}`}</td><td class="n"><code>${escapeHtml(code)}</code></td><td>${escapeHtml(message)}</td></tr>`,
        )
        .join("")}</tbody></table></div></section>`

/** A run as one HTML page that needs nothing else: no network, no files beside it. */
export const reportHtml = (data: ReportData): string => {
  const { config, plan } = data
  const adapter = plan?.adapter
  const what = [
    ...(data.model === undefined ? [] : [data.model]),
    ...(data.method === undefined ? [] : [data.method]),
    ...(adapter === undefined || adapter === null
      ? plan === undefined
        ? []
        : ["all weights"]
      : [`LoRA rank ${adapter.rank}, alpha ${adapter.alpha}`]),
    new Date(config.createdAt).toUTCString(),
  ].join(" · ")
  const hashes = Object.entries(config.hashes)
    .map(([name, hash]) => `${name} ${hash.slice(0, 12)}`)
    .join(", ")
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>${escapeHtml(config.name)}</title><style>${reportStyle}</style></head>
<body><main><div class="head"><h1>${escapeHtml(config.name)}</h1>${statusPill(data.status)}</div><p class="sub">${escapeHtml(what)}${data.message === undefined ? "" : `<br>${escapeHtml(data.message)}`}</p>
${tiles(data)}
${charts(data)}
${samples(data)}
${completionsCard(data)}
${exportsTable(data)}
${warningsCard(data)}
${dataCard(data)}
${settingsCard(data)}
<footer>Sloth ${escapeHtml(config.sloth.version)} · ${escapeHtml(
    Object.entries(config.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", "),
  )}<br>SHA-256: ${escapeHtml(hashes)}</footer>
</main><script>${reportScript}</script></body></html>
`
}
