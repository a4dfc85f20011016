import type { JobResult } from "./child.ts"
import { median } from "./stats.ts"

/** A setting stays in while it has this share of its team's best speed; on a noisy machine one round does not decide between close ones. */
const NEAR = 0.75

/** Someone who does the job that is measured, each time in a process of its own. */
export interface Competitor<T> {
  readonly name: string
  /** Competitors of one team are settings of the same program: only those near the fastest of them go on to the next round. */
  readonly team: string
  readonly run: () => Promise<JobResult<T>>
}

/** What a competitor did. */
export interface Outcome<T> {
  readonly name: string
  readonly team: string
  readonly values: readonly T[]
  readonly error: string | undefined
}

/**
 * Lets competitors do the same job in turn, `rounds` times, so that a slow minute of the machine hits all of them alike. `speed` ranks the settings of a team after each round. Returns outcomes by name.
 */
export const contest = async <T>(
  competitors: readonly Competitor<T>[],
  rounds: number,
  speed: (value: T) => number,
  say: (text: string) => void,
): Promise<Map<string, Outcome<T>>> => {
  const found = new Map<string, { values: T[]; error: string | undefined }>()
  let running = [...competitors]
  for (let round = 1; round <= rounds && running.length > 0; round++) {
    for (const c of running) {
      say(`round ${round} of ${rounds}: ${c.name}`)
      const result = await c.run()
      const entry = found.get(c.name) ?? { values: [], error: undefined }
      if (result.ok) entry.values.push(result.values.at(-1)!)
      else entry.error = result.error
      found.set(c.name, entry)
    }
    const best = new Map<string, number>()
    const middle = (c: Competitor<T>): number => median(found.get(c.name)!.values.map(speed))
    for (const c of running) if (middle(c) > (best.get(c.team) ?? 0)) best.set(c.team, middle(c))
    running = running.filter((c) => middle(c) >= NEAR * (best.get(c.team) ?? Number.POSITIVE_INFINITY))
  }
  return new Map(competitors.map((c) => [c.name, { name: c.name, team: c.team, ...found.get(c.name)! }]))
}

/** The outcome of a team with the most speed in the middle of its rounds; undefined when none of them worked. */
export const bestOf = <T>(
  outcomes: ReadonlyMap<string, Outcome<T>>,
  team: string,
  speed: (o: Outcome<T>) => number,
): Outcome<T> | undefined =>
  [...outcomes.values()]
    .filter((o) => o.team === team && o.values.length > 0)
    .sort((a, b) => b.values.length - a.values.length || speed(b) - speed(a))[0]
