const BARS = "▁▂▃▄▅▆▇█"

/** The last `width` values as bars between the smallest and the largest of them; neighbours are averaged where there are more values than columns. */
export const sparkline = (values: readonly number[], width: number): string => {
  const finite = values.filter(Number.isFinite)
  if (finite.length === 0 || width < 1) return ""
  const columns = Math.min(width, finite.length)
  const bins = Array.from({ length: columns }, (_, i) => {
    const part = finite.slice(
      Math.floor((i * finite.length) / columns),
      Math.max(Math.floor((i * finite.length) / columns) + 1, Math.floor(((i + 1) * finite.length) / columns)),
    )
    return part.reduce((a, b) => a + b, 0) / part.length
  })
  const low = Math.min(...bins)
  const span = Math.max(...bins) - low
  return bins.map((v) => BARS[span === 0 ? 3 : Math.min(7, Math.floor(((v - low) / span) * 8))]!).join("")
}
