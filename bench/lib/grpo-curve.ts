/** A step of a reward curve. */
export interface CurveStep {
  readonly step: number
  readonly reward: number
  readonly length: number
  readonly entropy: number
  readonly gradNorm: number
  readonly seconds: number
}

/** TRL's curves (tests/golden/smollm2/grpo-curve.json). */
export interface CurveGolden {
  readonly header: { readonly versions: Readonly<Record<string, string>> }
  readonly settings: {
    readonly steps: number
    readonly prompts: number
    readonly group: number
    readonly completion: number
    readonly learningRate: number
    readonly schedule: "constant"
    readonly maxGradNorm: number
    readonly rank: number
    readonly alpha: number
    readonly loss: "dapo"
    readonly beta: number
    readonly scale: "group"
    readonly temperature: number
    readonly order: "sequential"
  }
  readonly questions: readonly { readonly text: string; readonly tokens: readonly number[] }[]
  readonly curves: readonly { readonly seed: number; readonly steps: readonly CurveStep[] }[]
}

/** The share of words that begin with a capital letter of ASCII; 0 where there is no word. The reward of both sides. */
export const shareOfCapitals = (text: string): number => {
  const words = text.match(/[A-Za-z]+/g) ?? []
  return words.length === 0 ? 0 : words.filter((word) => /^[A-Z]/.test(word)).length / words.length
}

/** What a set of curves comes to; lists have an entry a curve. */
export interface CurveSummary {
  /** Mean reward of the first and of the last ten steps. */
  readonly first: readonly number[]
  readonly last: readonly number[]
  readonly rise: readonly number[]
  /** First step from which the mean of ten steps stays above the middle between first and last. */
  readonly half: readonly number[]
}

const mean = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0) / values.length

/** Sums up curves, an entry each. */
export const summarise = (curves: readonly (readonly CurveStep[])[]): CurveSummary => {
  const rewards = curves.map((steps) => steps.map(({ reward }) => reward))
  const first = rewards.map((all) => mean(all.slice(0, 10)))
  const last = rewards.map((all) => mean(all.slice(-10)))
  const half = rewards.map((all, k) => {
    const middle = (first[k]! + last[k]!) / 2
    const at = all.findIndex((_, i) => i + 10 <= all.length && mean(all.slice(i, i + 10)) > middle)
    return at < 0 ? all.length : at + 5
  })
  return {
    first,
    last,
    rise: last.map((x, k) => x - first[k]!),
    half,
  }
}

/** Mean of the neighbours on both sides, weighted by a Gaussian of `sigma` steps. */
const smooth = (values: readonly number[], sigma: number): number[] =>
  values.map((_, i) => {
    let [sum, mass] = [0, 0]
    for (const [j, value] of values.entries()) {
      const weight = Math.exp(-0.5 * ((i - j) / sigma) ** 2)
      sum += weight * value
      mass += weight
    }
    return sum / mass
  })

/** A set of curves with its name and colour. */
export interface CurveSeries {
  readonly name: string
  readonly colour: string
  readonly curves: readonly (readonly CurveStep[])[]
}

const WIDTH = 760
const HEIGHT = 380
const LEFT = 56
const RIGHT = 20
const TOP = 44
const BOTTOM = 48

/** A picture that stands alone: for each series the mean over its curves, smoothed over steps, their range, and the rewards of every curve as dots. */
export const curvePicture = (title: string, series: readonly CurveSeries[]): string => {
  const steps = Math.max(...series.flatMap(({ curves }) => curves.map(({ length }) => length)))
  const top = Math.min(1, Math.ceil(Math.max(...series.flatMap((s) => s.curves.flat().map((p) => p.reward))) * 10) / 10)
  const x = (step: number): number => LEFT + ((step - 1) / Math.max(1, steps - 1)) * (WIDTH - LEFT - RIGHT)
  const y = (reward: number): number => HEIGHT - BOTTOM - (reward / top) * (HEIGHT - TOP - BOTTOM)
  const at = (i: number, reward: number): string => `${x(i + 1).toFixed(1)},${y(reward).toFixed(1)}`
  const out: string[] = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui,sans-serif" font-size="12">`,
    `<title>${title}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    `<text x="${LEFT}" y="20" font-size="14" font-weight="600" fill="#1f2421">${title}</text>`,
  ]
  for (let i = 0; i <= 5; i++) {
    const value = (top * i) / 5
    out.push(
      `<line x1="${LEFT}" x2="${WIDTH - RIGHT}" y1="${y(value).toFixed(1)}" y2="${y(value).toFixed(1)}" stroke="#e2e1da"/>`,
      `<text x="${LEFT - 8}" y="${(y(value) + 4).toFixed(1)}" text-anchor="end" fill="#5d655f">${value.toFixed(2)}</text>`,
    )
  }
  for (let step = 10; step <= steps; step += 10)
    out.push(
      `<text x="${x(step).toFixed(1)}" y="${HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#5d655f">${step}</text>`,
    )
  out.push(
    `<text x="${((LEFT + WIDTH - RIGHT) / 2).toFixed(0)}" y="${HEIGHT - 8}" text-anchor="middle" fill="#5d655f">optimizer step</text>`,
  )
  for (const [k, { name, colour, curves }] of series.entries()) {
    const smoothed = curves.map((curve) =>
      smooth(
        curve.map(({ reward }) => reward),
        2,
      ),
    )
    const length = Math.min(...smoothed.map((values) => values.length))
    const over = (f: (values: readonly number[]) => number): number[] =>
      Array.from({ length }, (_, i) => f(smoothed.map((values) => values[i]!)))
    const [low, high, middle] = [over((v) => Math.min(...v)), over((v) => Math.max(...v)), over(mean)]
    const band = [...high.map((v, i) => at(i, v)), ...low.map((v, i) => at(i, v)).toReversed()]
    out.push(`<polygon points="${band.join(" ")}" fill="${colour}" fill-opacity=".14"/>`)
    for (const curve of curves)
      for (const { step, reward } of curve)
        out.push(
          `<circle cx="${x(step).toFixed(1)}" cy="${y(reward).toFixed(1)}" r="1.3" fill="${colour}" fill-opacity=".35"/>`,
        )
    out.push(
      `<polyline points="${middle.map((v, i) => at(i, v)).join(" ")}" fill="none" stroke="${colour}" stroke-width="2.4" stroke-linejoin="round"/>`,
      `<line x1="${LEFT + 12 + 260 * k}" x2="${LEFT + 36 + 260 * k}" y1="34" y2="34" stroke="${colour}" stroke-width="2.4"/>`,
      `<text x="${LEFT + 42 + 260 * k}" y="38" fill="#1f2421">${name}, ${curves.length} ${curves.length === 1 ? "seed" : "seeds"}</text>`,
    )
  }
  out.push("</svg>")
  return `${out.join("\n")}\n`
}
