import { escapeHtml } from "./escape.ts"
import { niceTicks } from "./line-chart.ts"

/** What a stacked chart shows: parts of something, step by step. */
export interface StackedChart {
  readonly title: string
  /** Names of the parts, from the bottom up; at most four. */
  readonly parts: readonly string[]
  /** In order of steps; one value a part, none below 0. */
  readonly rows: readonly { readonly x: number; readonly values: readonly number[] }[]
  readonly format: (y: number) => string
  readonly width: number
  readonly height: number
}

/** Most bars of a chart; of more steps neighbours are averaged. */
const MOST = 104

const averaged = ({ rows, parts }: StackedChart): StackedChart["rows"] => {
  if (rows.length <= MOST) return rows
  return Array.from({ length: MOST }, (_, i) => {
    const group = rows.slice(Math.floor((i * rows.length) / MOST), Math.floor(((i + 1) * rows.length) / MOST))
    const mean = (of: (row: (typeof group)[number]) => number): number =>
      group.reduce((n, row) => n + of(row), 0) / group.length
    return { x: mean(({ x }) => x), values: parts.map((_part, k) => mean(({ values }) => values[k]!)) }
  })
}

/** A chart of stacked bars as inline SVG, with the readings that the script of the report shows under the pointer. */
export const stackedChart = (chart: StackedChart): string => {
  const { width, height, format, parts } = chart
  const rows = averaged(chart)
  const sums = rows.map(({ values }) => values.reduce((a, b) => a + b, 0))
  const most = Math.max(0, ...sums) * 1.06 || 1
  const ticks = niceTicks(0, most, Math.max(2, Math.round(height / 55)))
  const labels = ticks.map(format)
  const left = Math.max(...labels.map((label) => label.length)) * 7 + 12
  const [right, top, bottom] = [14, 12, 26]
  const step = (width - left - right) / Math.max(1, rows.length)
  const px = (i: number): number => left + i * step
  const py = (y: number): number => top + (1 - y / most) * (height - top - bottom)
  const n = (value: number): string => value.toFixed(1)
  const grid = ticks
    .map(
      (y, i) =>
        `<line class="grid" x1="${left}" x2="${width - right}" y1="${n(py(y))}" y2="${n(py(y))}"/><text class="tick" x="${left - 8}" y="${n(py(y) + 4)}" text-anchor="end">${escapeHtml(labels[i]!)}</text>`,
    )
    .join("")
  const every = Math.max(1, Math.ceil(rows.length / Math.max(3, Math.round(width / 110))))
  const axis = rows
    .map(({ x }, i) =>
      i % every === 0
        ? `<text class="tick" x="${n(px(i) + step / 2)}" y="${height - 7}" text-anchor="middle">${Math.round(x).toLocaleString("en-US")}</text>`
        : "",
    )
    .join("")
  const bars = rows
    .map(({ values }, i) => {
      let base = 0
      return values
        .map((value, k) => {
          const [from, to] = [py(base), py(base + value)]
          base += value
          return value === 0
            ? ""
            : `<rect class="s${k}" x="${n(px(i) + step * 0.08)}" width="${n(step * 0.84)}" y="${n(to)}" height="${(from - to).toFixed(2)}"/>`
        })
        .join("")
    })
    .join("")
  const readings = rows.map(({ x, values }, i) => [
    +n(px(i) + step / 2),
    +n(py(sums[i]!)),
    Math.round(x),
    parts.map((part, k) => `${part} ${format(values[k]!)}`).join(", "),
  ])
  return `<svg class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeHtml(chart.title)}" data-readings="${escapeHtml(JSON.stringify(readings))}">${grid}${axis}${bars}<g class="cursor" visibility="hidden"><line y1="${top}" y2="${height - bottom}"/><circle r="4"/></g></svg>`
}

/** What its colours mean. */
export const stackedLegend = (parts: readonly string[]): string =>
  `<span class="legend">${parts.map((part, k) => `<i class="s${k}"></i>${escapeHtml(part)}`).join("")}</span>`
