import { escapeHtml } from "./escape.ts"

/** A point of a curve. */
export interface Point {
  readonly x: number
  readonly y: number
}

/** What a chart shows. */
export interface LineChart {
  readonly title: string
  /** The measured values. */
  readonly points: readonly Point[]
  /** Draws a smooth curve over the values, which then recede. */
  readonly smooth?: boolean
  /** Further points, drawn as dots on a line: evaluations. */
  readonly marks?: { readonly name: string; readonly points: readonly Point[] }
  /** Spread around the values, drawn as a band: at least two places, in order. */
  readonly band?: readonly { readonly x: number; readonly low: number; readonly high: number }[]
  readonly format: (y: number) => string
  readonly width: number
  readonly height: number
  /** Starts the axis at zero. */
  readonly zero?: boolean
}

/** Most points of a curve; more are averaged by neighbours. */
const MOST = 600

/** Steps of an axis that people read: 1, 2 or 5 times a power of ten. */
export const niceTicks = (low: number, high: number, count: number): number[] => {
  const span = high - low
  if (!(span > 0)) return [low]
  const raw = span / Math.max(1, count)
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999) ?? raw
  const first = Math.ceil(low / step - 1e-9)
  const last = Math.floor(high / step + 1e-9)
  return Array.from({ length: Math.max(0, last - first) + 1 }, (_, i) => (first + i) * step)
}

/** Mean of the neighbours on both sides, weighted by nearness (a Gaussian of `sigma` points): it does not lag behind, as a running mean would. */
export const smoothed = (points: readonly Point[], sigma: number): Point[] => {
  const reach = Math.ceil(3 * sigma)
  return points.map(({ x }, i) => {
    let sum = 0
    let mass = 0
    for (let j = Math.max(0, i - reach); j <= Math.min(points.length - 1, i + reach); j++) {
      const weight = Math.exp(-0.5 * ((i - j) / sigma) ** 2)
      sum += weight * points[j]!.y
      mass += weight
    }
    return { x, y: sum / mass }
  })
}

const thinned = (points: readonly Point[]): readonly Point[] => {
  if (points.length <= MOST) return points
  const size = points.length / MOST
  return Array.from({ length: MOST }, (_, i) => {
    const part = points.slice(Math.floor(i * size), Math.floor((i + 1) * size))
    return {
      x: part.reduce((n, p) => n + p.x, 0) / part.length,
      y: part.reduce((n, p) => n + p.y, 0) / part.length,
    }
  })
}

/** A chart as inline SVG; the script of the report adds the reading under the pointer. */
export const lineChart = (chart: LineChart): string => {
  const { width, height, format } = chart
  const points = thinned(chart.points.filter(({ y }) => Number.isFinite(y)))
  const marks = chart.marks?.points ?? []
  if (points.length === 0) return `<p class="none">No steps were recorded.</p>`
  const curve = chart.smooth === true && points.length > 4 ? smoothed(points, Math.max(1, points.length / 100)) : points
  const band = (chart.band ?? []).filter(({ low, high }) => Number.isFinite(low) && Number.isFinite(high))
  const edges = band.flatMap(({ x, low, high }) => [
    { x, y: low },
    { x, y: high },
  ])
  const all = [...points, ...marks, ...edges]
  const [x0, x1] = [Math.min(...all.map((p) => p.x)), Math.max(...all.map((p) => p.x))]
  let [y0, y1] = [Math.min(...all.map((p) => p.y)), Math.max(...all.map((p) => p.y))]
  if (chart.zero === true) y0 = Math.min(0, y0)
  if (y0 === y1) {
    const room = Math.abs(y0) * 0.1 || 1
    y0 = chart.zero === true ? y0 : y0 - room
    y1 += room
  } else if (chart.zero !== true) {
    const room = (y1 - y0) * 0.06
    y0 -= room
    y1 += room
  } else y1 *= 1.06
  const yTicks = niceTicks(y0, y1, Math.max(2, Math.round(height / 55)))
  const labels = yTicks.map(format)
  const left = Math.max(...labels.map((label) => label.length)) * 7 + 12
  const [right, top, bottom] = [14, 12, 26]
  const px = (x: number): number => left + (x1 === x0 ? 0.5 : (x - x0) / (x1 - x0)) * (width - left - right)
  const py = (y: number): number => top + (1 - (y - y0) / (y1 - y0)) * (height - top - bottom)
  const at = (p: Point): string => `${px(p.x).toFixed(1)} ${py(p.y).toFixed(1)}`
  const path = (line: readonly Point[]): string => `M${line.map(at).join("L")}`
  const xTicks = niceTicks(x0, x1, Math.max(3, Math.round(width / 110))).filter((x) => Number.isInteger(x))
  const grid = yTicks
    .map(
      (y, i) =>
        `<line class="grid" x1="${left}" x2="${width - right}" y1="${py(y).toFixed(1)}" y2="${py(y).toFixed(1)}"/><text class="tick" x="${left - 8}" y="${(py(y) + 4).toFixed(1)}" text-anchor="end">${escapeHtml(labels[i]!)}</text>`,
    )
    .join("")
  const axis = xTicks
    .map(
      (x) =>
        `<text class="tick" x="${px(x).toFixed(1)}" y="${height - 7}" text-anchor="middle">${x.toLocaleString("en-US")}</text>`,
    )
    .join("")
  const around =
    band.length < 2
      ? ""
      : `<path class="band" d="${path(band.map(({ x, high }) => ({ x, y: high })))}L${band
          .toReversed()
          .map(({ x, low }) => at({ x, y: low }))
          .join("L")}Z"/>`
  const area = `${path(curve)}L${px(curve.at(-1)!.x).toFixed(1)} ${py(y0).toFixed(1)}L${px(curve[0]!.x).toFixed(1)} ${py(y0).toFixed(1)}Z`
  const dots = marks
    .map(
      (p) =>
        `<circle class="mark" cx="${px(p.x).toFixed(1)}" cy="${py(p.y).toFixed(1)}" r="4"><title>${escapeHtml(`${chart.marks!.name}, step ${p.x}: ${format(p.y)}`)}</title></circle>`,
    )
    .join("")
  const single =
    points.length === 1 ? `<circle class="dot" cx="${px(points[0]!.x)}" cy="${py(points[0]!.y)}" r="3.5"/>` : ""
  const readings = curve.map((p, i) => [
    +px(p.x).toFixed(1),
    +py(p.y).toFixed(1),
    Math.round(p.x),
    format(points[i]!.y),
  ])
  return `<svg class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(chart.title)}" data-readings="${escapeHtml(JSON.stringify(readings))}" data-top="${top}" data-bottom="${height - bottom}">${grid}${axis}${around === "" ? `<path class="area" d="${area}"/>` : around}${curve === points ? "" : `<path class="raw" d="${path(points)}"/>`}<path class="line" d="${path(curve)}"/>${marks.length > 1 ? `<path class="eval" d="${path(marks)}"/>` : ""}${dots}${single}<g class="cursor" visibility="hidden"><line y1="${top}" y2="${height - bottom}"/><circle r="4"/></g></svg>`
}
