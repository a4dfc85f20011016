import type { Figure, MachineReport } from "./figures.ts"

const COLOURS = ["#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#65a30d", "#475569"]

const escape = (s: string): string => s.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/"/g, "&quot;")

/**
 * A roofline plot as SVG: operations per byte against operations per second, both logarithmic, under the measured limits. Source: Williams, Waterman & Patterson 2009.
 */
export const rooflineSvg = (machine: MachineReport, figures: readonly Figure[]): string => {
  const points = figures.filter((f) => f.roof !== undefined)
  const limit = (kind: string): number | undefined => {
    const median = machine.limits[kind]?.byThreads[machine.threads]?.median
    return median === undefined || Number.isNaN(median) ? undefined : median * 1e9
  }
  const [f32, read] = [limit("f32"), limit("read")]
  if (f32 === undefined || read === undefined) return ""
  const ceilings = (["f32", "bf16", "int8"] as const).flatMap((kind) => {
    const value = limit(kind)
    return value === undefined ? [] : [{ kind, value }]
  })
  const [w, h, left, bottom, top, right] = [960, 520, 70, 50, 20, 190]
  const xs = points.map((p) => p.roof!.flopsPerByte)
  const ys = points.map((p) => p.roof!.flopsPerSecond)
  const x0 = Math.log10(Math.min(0.25, ...xs))
  const x1 = Math.log10(Math.max(1000, ...xs) * 1.3)
  const y0 = Math.log10(Math.min(10 ** x0 * read, ...ys) / 1.5)
  const y1 = Math.log10(Math.max(...ceilings.map((c) => c.value)) * 1.5)
  const px = (v: number) => left + ((Math.log10(v) - x0) / (x1 - x0)) * (w - left - right)
  const py = (v: number) => h - bottom - ((Math.log10(v) - y0) / (y1 - y0)) * (h - bottom - top)
  const parts: string[] = []
  const line = (ax: number, ay: number, bx: number, by: number, style: string) =>
    parts.push(
      `<line x1="${px(ax).toFixed(1)}" y1="${py(ay).toFixed(1)}" x2="${px(bx).toFixed(1)}" y2="${py(by).toFixed(1)}" ${style}/>`,
    )
  const label = (x: number, y: number, text: string, more = "") =>
    parts.push(`<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${more}>${escape(text)}</text>`)
  for (let e = Math.ceil(x0); e <= x1; e++) {
    line(10 ** e, 10 ** y0, 10 ** e, 10 ** y1, 'stroke="#e5e7eb"')
    label(px(10 ** e), h - bottom + 18, `${10 ** e}`, 'text-anchor="middle"')
  }
  for (let e = Math.ceil(y0); e <= y1; e++) {
    line(10 ** x0, 10 ** e, 10 ** x1, 10 ** e, 'stroke="#e5e7eb"')
    label(left - 8, py(10 ** e) + 4, e >= 12 ? `${10 ** (e - 12)} T` : `${10 ** (e - 9)} G`, 'text-anchor="end"')
  }
  label((left + w - right) / 2, h - 10, "necessary operations per byte of memory traffic", 'text-anchor="middle"')
  label(0, 0, "operations per second", `transform="translate(16 ${(h - bottom) / 2 + 60}) rotate(-90)"`)
  for (const { kind, value } of ceilings) {
    const knee = value / read
    const dashed = kind === "f32" ? "" : ' stroke-dasharray="6 4"'
    line(Math.max(knee, 10 ** x0), value, 10 ** x1, value, `stroke="#111827" stroke-width="1.5"${dashed}`)
    label(w - right + 8, py(value) + 4, `${kind} ${(value / 1e9).toFixed(0)} GOP/s`)
  }
  const top32 = Math.max(...ceilings.map((c) => c.value))
  line(10 ** x0, 10 ** x0 * read, top32 / read, top32, 'stroke="#111827" stroke-width="1.5"')
  label(px(10 ** x0) + 10, py(10 ** x0 * read) - 22, `memory ${(read / 1e9).toFixed(1)} GB/s`)
  const series = [...new Set(points.map((p) => p.roof!.series))]
  for (const p of points) {
    const colour = COLOURS[series.indexOf(p.roof!.series) % COLOURS.length]!
    const title = `${p.group}: ${p.name}: ${(p.roof!.flopsPerSecond / 1e9).toFixed(1)} GFLOP/s, ${((p.score ?? 0) * 100).toFixed(0)} % of the limit`
    parts.push(
      `<circle cx="${px(p.roof!.flopsPerByte).toFixed(1)}" cy="${py(p.roof!.flopsPerSecond).toFixed(1)}" r="4" fill="${colour}" fill-opacity="0.75"><title>${escape(title)}</title></circle>`,
    )
  }
  for (const [i, s] of series.entries()) {
    const y = 200 + 20 * i
    parts.push(`<circle cx="${w - right + 16}" cy="${y}" r="5" fill="${COLOURS[i % COLOURS.length]}"/>`)
    label(w - right + 28, y + 4, s)
  }
  return `<svg viewBox="0 0 ${w} ${h}" width="100%" role="img" aria-label="Roofline plot" font-family="system-ui, sans-serif" font-size="12" fill="#111827">${parts.join("")}</svg>`
}
