import { expect, test } from "bun:test"
import { styleOf, type Terminal } from "./terminal/terminal.ts"
import { TrainingDisplay } from "./training-display.ts"

const left = (resumes: boolean, tell: (display: TrainingDisplay) => void): string => {
  const lines: string[] = []
  const say = (line = ""): void => void lines.push(line)
  const style = styleOf(false)
  const terminal: Terminal = {
    width: 80,
    color: false,
    live: false,
    style,
    errorStyle: style,
    print: say,
    write: say,
    say,
    sayRaw: say,
  }
  const display = new TrainingDisplay(terminal, { resumes })
  tell(display)
  display.leaving("sloth train --resume --run runs/a")
  return lines.at(-1)!
}

test("a run that is left says how to go on only where something was saved", () => {
  const start = { type: "run-start", run: "runs/a", version: "1.0.0" } as const
  const nothing = "Left; nothing had been saved yet."
  const goesOn = "The newest checkpoint goes on with: sloth train --resume --run runs/a"
  expect(left(false, () => undefined)).toBe(nothing)
  expect(left(false, (display) => display.event(start))).toBe(nothing)
  // A run that was interrupted before its first checkpoint begins again.
  expect(left(true, (display) => display.event(start))).toBe(nothing)
  expect(left(true, () => undefined)).toContain(goesOn)
  expect(left(true, (display) => display.event({ ...start, resumedFromStep: 2 }))).toContain(goesOn)
  const saved = { type: "checkpoint", step: 1, path: "checkpoints/step-000001" } as const
  expect(left(false, (display) => [start, saved].forEach((event) => display.event(event)))).toContain(goesOn)
})
