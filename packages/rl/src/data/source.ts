import { SlothError } from "@sloth/core"
import { readRows, type SourceRow } from "@sloth/data"
import type { PreferenceOptions } from "./open.ts"

/** Rows of files, or rows given as objects. Errors: those of `readRows`; SLOTH_DATA_EMPTY without any row. */
export const readSource = async (
  source: string | readonly string[] | readonly object[],
  options: PreferenceOptions,
): Promise<readonly SourceRow[]> => {
  const paths = typeof source === "string" ? [source] : source
  const rows: readonly SourceRow[] =
    paths.length > 0 && paths.every((item) => typeof item === "string")
      ? await readRows(paths as readonly string[], options)
      : (paths as readonly object[]).map((row) => ({ row }))
  if (rows.length > 0) return rows
  throw new SlothError("SLOTH_DATA_EMPTY", {
    what: "There are no rows.",
    next: "Check the file, or the list given.",
  })
}
