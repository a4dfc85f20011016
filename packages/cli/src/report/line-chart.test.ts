import { expect, test } from "bun:test"
import { lineChart, niceTicks, smoothed } from "./line-chart.ts"

test("ticks are round numbers inside the range", () => {
  expect(niceTicks(0, 10, 5)).toEqual([0, 2, 4, 6, 8, 10])
  expect(niceTicks(1.3, 9.1, 4)).toEqual([2, 4, 6, 8])
  expect(niceTicks(3, 3, 4)).toEqual([3])
})

test("smoothing keeps a line where it is and damps what jumps", () => {
  const line = Array.from({ length: 50 }, (_, x) => ({ x, y: 2 * x }))
  expect(smoothed(line, 2)[25]!.y).toBeCloseTo(50, 6)
  const noise = line.map(({ x }) => ({ x, y: x % 2 }))
  expect(Math.abs(smoothed(noise, 3)[25]!.y - 0.5)).toBeLessThan(0.01)
})

const chart = (points: readonly { x: number; y: number }[]): string =>
  lineChart({ title: "t <1>", points, format: (y) => y.toFixed(1), width: 300, height: 100, smooth: true })

test("charts of nothing, one point, equal values and many points are all sound", () => {
  expect(chart([])).toContain("No steps")
  expect(chart([{ x: 1, y: 2 }])).toContain('class="dot"')
  for (const svg of [
    chart([{ x: 1, y: 2 }]),
    chart(Array.from({ length: 9 }, (_, x) => ({ x, y: 3 }))),
    chart(Array.from({ length: 5000 }, (_, x) => ({ x, y: Math.sin(x) }))),
    chart([
      { x: 1, y: Number.NaN },
      { x: 2, y: 1 },
    ]),
  ]) {
    expect(svg).not.toMatch(/NaN|Infinity|undefined/)
    expect(svg).toContain("t &lt;1&gt;")
    expect(svg.length).toBeLessThan(80_000)
  }
})
