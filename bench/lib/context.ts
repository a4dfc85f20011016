import type { Line } from "./figures.ts"
import type { Peaks } from "./peaks.ts"

/** What a section of the harness works with. */
export interface BenchContext {
  readonly peaks: Peaks
  readonly threads: number
  readonly quick: boolean
  /** How often each competitor of a contest runs. */
  readonly rounds: number
  /** Instruction set and precisions of the CPU backend. */
  readonly precisions: readonly string[]
  /** Only groups whose name has this word. */
  readonly filter: string | undefined
  readonly add: (line: Line) => void
  /** Says what is going on. */
  readonly say: (text: string) => void
}
