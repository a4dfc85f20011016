import { isSlothError, SlothError } from "@sloth/core"

/** Any thrown value as a SlothError: SLOTH_ABORTED where a signal ended the work, SLOTH_INTERNAL for what should not have happened. */
export const toSlothError = (error: unknown): SlothError => {
  if (isSlothError(error)) return error
  if (error instanceof Error && (error.name === "AbortError" || error.name === "TimeoutError"))
    return new SlothError("SLOTH_ABORTED", { what: "The work was stopped before it was done.", cause: error })
  return new SlothError("SLOTH_INTERNAL", {
    what: error instanceof Error ? error.message : String(error),
    why: "This is a bug of Sloth or of a plugin.",
    next: "Run again with --debug to see where it comes from, and please report it.",
    cause: error,
  })
}

/** The error of work that a signal ended. */
export const aborted = (): SlothError =>
  new SlothError("SLOTH_ABORTED", { what: "The work was stopped before it was done." })
