/** A row as a reader gave it, with where it came from (`line` counts from 1). */
export interface SourceRow {
  readonly row: unknown
  readonly line?: number
  readonly file?: string
}

/** Where a row came from, for messages. */
export interface RowOrigin {
  /** Position in the data set, from 0. */
  readonly index: number
  readonly file?: string
  readonly line?: number
}

/**
 * One message of a conversation as chat templates see it: `role` and `content`, plus whatever else the row carried
 * (`tool_calls`, `reasoning_content`, `name`, ...). `weight: 0` keeps an assistant message out of the loss.
 */
export interface ChatMessage {
  readonly role: string
  readonly content: string | null
  readonly [extra: string]: unknown
}

/** A conversation; Alpaca and ShareGPT rows become one too. */
export interface ConversationRow {
  readonly kind: "conversation"
  readonly messages: readonly ChatMessage[]
  /** Tool definitions handed to the template. */
  readonly tools?: readonly unknown[]
  readonly origin: RowOrigin
}

/** A prompt that is read and a completion that is learnt. */
export interface CompletionRow {
  readonly kind: "completion"
  readonly prompt: string
  readonly completion: string
  readonly origin: RowOrigin
}

/** A text that is learnt whole (continued pretraining). */
export interface TextRow {
  readonly kind: "text"
  readonly text: string
  readonly origin: RowOrigin
}

/** Token ids made elsewhere; `mask` has one 0 or 1 a token, all ones where absent. */
export interface TokensRow {
  readonly kind: "tokens"
  readonly tokens: readonly number[]
  readonly mask?: readonly number[]
  readonly origin: RowOrigin
}

/** A row in one of the four forms that examples are made from. */
export type DataRow = ConversationRow | CompletionRow | TextRow | TokensRow

/** Says where a row came from: `data.jsonl line 12`, or `row 11` where no file is known. */
export const describeOrigin = (origin: RowOrigin): string => {
  const line = origin.line === undefined ? `row ${origin.index}` : `line ${origin.line}`
  return origin.file === undefined ? line : `${origin.file} ${line}`
}
