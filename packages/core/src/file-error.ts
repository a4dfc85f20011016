import { SlothError } from "./errors.ts"

/** The system's error code (`ENOENT`, `ENOSPC`, ...) of a thrown value, if it has one. */
export const systemCode = (error: unknown): string | undefined => {
  const code = (error as { readonly code?: unknown } | null | undefined)?.code
  return typeof code === "string" ? code : undefined
}

/**
 * The coded error of a failed file operation; a SlothError passes through unchanged.
 * Codes: SLOTH_FILE_NOT_FOUND, SLOTH_FILE_IS_DIRECTORY, SLOTH_FILE_NOT_DIRECTORY, SLOTH_FILE_READ_ONLY (no permission, or a read-only file
 * system), SLOTH_DISK_FULL, SLOTH_FILE_EXISTS, SLOTH_FILE_IO.
 */
export const fileError = (error: unknown, path: string, action: string): SlothError => {
  if (error instanceof SlothError) return error
  const code = systemCode(error)
  const fields = { path, action, system: code }
  const make = (name: `SLOTH_${string}`, why: string, next: string): SlothError =>
    new SlothError(name, { what: `Cannot ${action} ${path}.`, why, next, fields, cause: error })
  switch (code) {
    case "ENOENT":
      return make("SLOTH_FILE_NOT_FOUND", "It does not exist.", "Check the path.")
    case "EISDIR":
      return make("SLOTH_FILE_IS_DIRECTORY", "It is a folder, not a file.", "Name a file inside it.")
    case "ENOTDIR":
      return make("SLOTH_FILE_NOT_DIRECTORY", "A part of the path is a file, not a folder.", "Check the path.")
    case "EEXIST":
      return make("SLOTH_FILE_EXISTS", "It exists already.", "Choose another name.")
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return make(
        "SLOTH_FILE_READ_ONLY",
        code === "EROFS" ? "The file system is read-only." : "Permission is denied.",
        "Choose a folder that you may write to, or change its permissions.",
      )
    case "ENOSPC":
    case "EDQUOT":
      return make(
        "SLOTH_DISK_FULL",
        code === "EDQUOT" ? "The disk quota is used up." : "The disk is full.",
        "Free some space and run the same command again; what was there before is unchanged.",
      )
    default:
      return make(
        "SLOTH_FILE_IO",
        error instanceof Error ? error.message : String(error),
        "Check the disk and try again.",
      )
  }
}
