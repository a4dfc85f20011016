import type { JobResult } from "./child.ts"

/** Someone who does the job that is measured, each time in a process of its own. */
export interface Competitor<T> {
  readonly name: string
  /** Competitors of one team are settings of the same program: after the first round only the fastest of them goes on. */
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
 * Lets competitors do the same job in turn, `rounds` times, so that a slow minute of the machine hits all of them alike. `speed` ranks the settings of a team after the first round.
 * Returns outcomes by name.
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
    if (round === 1) {
      const best = new Map<string, { name: string; speed: number }>()
      for (const c of running) {
        const value = found.get(c.name)!.values[0]
        if (value === undefined) continue
        const known = best.get(c.team)
        if (known === undefined || speed(value) > known.speed) best.set(c.team, { name: c.name, speed: speed(value) })
      }
      running = running.filter((c) => best.get(c.team)?.name === c.name)
    }
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
