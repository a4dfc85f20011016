import { SlothError } from "@sloth/core"

const codeOf = (error: unknown): string | undefined => {
  const code = (error as { code?: unknown } | undefined)?.code
  return typeof code === "string" ? code : undefined
}

/** Turns what the operating system said about a file into a coded error; errors it does not know pass through. */
export const fileError = (error: unknown, path: string): unknown => {
  switch (codeOf(error)) {
    case "ENOENT":
    case "ENOTDIR":
      return new SlothError("SLOTH_FILE_MISSING", {
        what: `There is no file at ${path}.`,
        next: "Check the path.",
        fields: { path },
        cause: error,
      })
    case "EISDIR":
      return new SlothError("SLOTH_FILE_IS_DIRECTORY", {
        what: `${path} is a directory; a file is needed here.`,
        next: "Name the file inside it.",
        fields: { path },
        cause: error,
      })
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new SlothError("SLOTH_FILE_DENIED", {
        what: `${path} may not be read or written.`,
        why: "The folder is read-only or belongs to another user.",
        next: "Change its permissions or choose another folder.",
        fields: { path },
        cause: error,
      })
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
      return new SlothError("SLOTH_DISK_FULL", {
        what: `The disk became full while ${path} was written.`,
        why: "What was there before is untouched; the unfinished copy was removed.",
        next: "Free some space or write to another disk.",
        fields: { path },
        cause: error,
      })
    default:
      return error
  }
}
