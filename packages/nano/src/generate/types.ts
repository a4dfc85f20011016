/** One message of a conversation. */
export interface Message {
  readonly role: "system" | "user" | "assistant"
  readonly content: string
}

/** A question with its answer as a sentence and as the shortest exact form. */
export interface Question {
  readonly ask: string
  readonly answer: string
  readonly short: string
}

/** One training document: raw text or a conversation. `kind` says which generator wrote it, `answer` is the checkable result if there is one. */
export type NanoDocument =
  | { readonly kind: string; readonly text: string }
  | { readonly kind: string; readonly messages: readonly Message[]; readonly answer?: string }
