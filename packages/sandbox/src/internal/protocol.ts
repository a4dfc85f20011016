import type { SandboxOutcome } from "../outcome.ts"

/** What a guest process is started with, as JSON in its arguments. */
export interface GuestConfig {
  readonly language: "javascript" | "python"
  readonly timeMs: number
  readonly memoryBytes: number
  readonly outputBytes: number
  /** Python: where the image of a started interpreter lies. */
  readonly snapshot?: string
  /** Python: path of pyodide's module and of its folder. */
  readonly pyodide?: { readonly module: string; readonly folder: string }
  /** Make the image at `snapshot`, and end. */
  readonly make?: boolean
}

/** One step, on one line of the guest's input. */
export type GuestRequest =
  | { readonly type: "open"; readonly code: string; readonly stdin?: string; readonly timeMs: number }
  | {
      readonly type: "call"
      readonly function: string
      readonly args: readonly unknown[]
      readonly locked?: boolean
      readonly timeMs: number
    }
  | { readonly type: "close" }

/** One line of the guest's output: ready for a program, the outcome of a step, or a guest that cannot start. */
export type GuestReply =
  | { readonly type: "ready" }
  | { readonly type: "outcome"; readonly outcome: SandboxOutcome }
  | { readonly type: "broken"; readonly message: string }

/** A call, as it arrives. */
export type GuestCall = Extract<GuestRequest, { type: "call" }>

/** One program in an interpreter of its own. */
export interface GuestProgram {
  open(code: string, stdin: string | undefined, deadline: number): SandboxOutcome
  call(request: GuestCall, deadline: number): SandboxOutcome
  dispose(): void
}

/** Makes interpreters, each as good as new. */
export interface GuestLanguage {
  /** An interpreter in which no program has run. */
  prepare(): Promise<GuestProgram>
}
