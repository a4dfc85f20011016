import { expect, test } from "bun:test"
import { stackedChart } from "./stacked-chart.ts"

const chart = (rows: readonly { x: number; values: readonly number[] }[]): string =>
  stackedChart({ title: "t <1>", parts: ["a", "b"], rows, format: (y) => y.toFixed(2), width: 300, height: 100 })
const bars = (svg: string, part: number): readonly { y: number; height: number }[] =>
  [...svg.matchAll(new RegExp(`class="s${part}"[^>]*y="([\\d.]+)" height="([\\d.]+)"`, "g"))].map(([, y, height]) => ({
    y: Number(y),
    height: Number(height),
  }))

test("parts stand on each other, as high as they are large", () => {
  const svg = chart([
    { x: 1, values: [1, 3] },
    { x: 2, values: [2, 0] },
  ])
  const [a, b] = [bars(svg, 0), bars(svg, 1)]
  expect([a.length, b.length]).toEqual([2, 1])
  expect(b[0]!.height / a[0]!.height).toBeCloseTo(3, 1)
  expect(a[1]!.height / a[0]!.height).toBeCloseTo(2, 1)
  expect(b[0]!.y + b[0]!.height).toBeCloseTo(a[0]!.y, 0)
  expect(svg).toContain("t &lt;1&gt;")
  expect(svg).toContain("a 1.00, b 3.00")
})

test("many steps are averaged, none and only zeros are sound", () => {
  const many = chart(Array.from({ length: 1000 }, (_, x) => ({ x, values: [x % 2, 1] })))
  expect(bars(many, 0).length).toBeLessThan(110)
  // Means of some ten zeros and ones.
  for (const { height } of bars(many, 0)) expect(height / bars(many, 1)[0]!.height).toBeCloseTo(0.5, 0)
  for (const svg of [chart([]), chart([{ x: 1, values: [0, 0] }]), many]) expect(svg).not.toMatch(/NaN|Infinity/)
})
