/**
 * A value that crosses the border of a sandbox. What JSON lacks is written with one marked key: integers beyond 2^53 `{ $int: "..." }`, numbers that are not finite
 * `{ $float: "nan" | "inf" | "-inf" }`, sets `{ $set: [...] }` in a fixed order, maps whose keys are not texts `{ $map: [[key, value], ...] }`, bytes
 * `{ $bytes: hex }`. Tuples are lists.
 */
export type SandboxValue =
  | null
  | boolean
  | number
  | string
  | readonly SandboxValue[]
  | { readonly [key: string]: SandboxValue }

/** What every outcome has. */
export interface OutcomeBase {
  /** What the code printed in this step, as far as the limit lets it. */
  readonly stdout: string
  /** Milliseconds it took, measured outside the interpreter, whose clock the code could change. */
  readonly ms: number
}

/** How a step of a program in a sandbox ended. */
export type SandboxOutcome =
  | (OutcomeBase & { readonly status: "ok"; readonly value: SandboxValue })
  | (OutcomeBase & {
      /** The program threw, does not parse, has no such function, or gave a value that is no data. */
      readonly status: "error"
      /** Name of the exception, such as "ValueError". */
      readonly name: string
      readonly message: string
    })
  | (OutcomeBase & {
      /**
       * Killed: out of time, out of memory, printed too much, or reached for what lies outside the sandbox. Nothing more can be asked of the program.
       */
      readonly status: "timeout" | "memory" | "output-limit" | "forbidden"
      readonly message: string
    })

/** A function of the program to call, with arguments. */
export interface SandboxCall {
  readonly function: string
  readonly args?: readonly SandboxValue[]
  /**
   * Python: call a copy of the function that sees no global of the program, so that it can neither read what the program has put there nor keep anything
   * there from one call to the next. Helpers must then be inside the function.
   */
  readonly locked?: boolean
}

/** True if the program is gone after this outcome. */
export const isFatal = (outcome: SandboxOutcome): boolean => outcome.status !== "ok" && outcome.status !== "error"
