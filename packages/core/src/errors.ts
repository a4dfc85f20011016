/** Options of a {@link SlothError}. */
export interface SlothErrorOptions {
  /** What went wrong, one plain sentence. */
  readonly what: string
  /** Why, where it is known. */
  readonly why?: string
  /** What the user can do next. */
  readonly next?: string
  /** Structured data: op, shapes, dtypes, path, line, device. */
  readonly fields?: Readonly<Record<string, unknown>>
  readonly cause?: unknown
}

/**
 * The one error type of Sloth: a permanent code (`SLOTH_<AREA>_<NAME>`), a message that says what, why and what to do next, and fields.
 * `_tag` equals the code, so `Effect.catchTag` works on it.
 */
export class SlothError extends Error {
  override readonly name = "SlothError"
  readonly code: string
  readonly _tag: string
  readonly what: string
  readonly why: string | undefined
  readonly next: string | undefined
  readonly fields: Readonly<Record<string, unknown>>

  constructor(code: `SLOTH_${string}`, options: SlothErrorOptions) {
    const parts = [options.what, options.why, options.next].filter((p): p is string => p !== undefined && p !== "")
    super(parts.join(" "), options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this._tag = code
    this.what = options.what
    this.why = options.why
    this.next = options.next
    this.fields = Object.freeze({ ...options.fields })
  }
}

/** True for a {@link SlothError}, also one made by another copy of this package. */
export const isSlothError = (error: unknown): error is SlothError =>
  error instanceof Error && error.name === "SlothError" && typeof (error as { code?: unknown }).code === "string"
