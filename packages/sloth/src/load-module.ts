import { existsSync, readdirSync } from "node:fs"
import { basename, dirname } from "node:path"
import { pathToFileURL } from "node:url"
import { importError, isSlothError, SlothError, suggest } from "@sloth/core"

/** True for what names a file rather than something a plugin provides. */
export const namesFile = (place: string): boolean => /^\.{0,2}[/\\]|\.[cm]?[jt]s$|^[A-Za-z]:[/\\]/.test(place)

/** A file beside a missing one that was probably meant. */
const neighbour = (path: string): string | undefined => {
  const folder = dirname(path)
  const scripts = (existsSync(folder) ? readdirSync(folder) : []).filter((name) => /\.[cm]?[jt]s$/.test(name))
  return suggest(
    basename(path),
    scripts.map((name) => ({ name })),
  )
}

/**
 * Imports a file of the user. `what` is a word for its content ("reward"), `code` the beginning of its error codes. Errors: `<code>_NOT_FOUND`, `<code>_IMPORT`; a SlothError that
 * the file throws passes.
 */
export const loadUserModule = async (
  path: string,
  what: string,
  code: `SLOTH_${string}`,
): Promise<Readonly<Record<string, unknown>>> => {
  if (!existsSync(path)) {
    const near = neighbour(path)
    throw new SlothError(`${code}_NOT_FOUND`, {
      what: `The ${what} file ${path} does not exist.`,
      next:
        near === undefined
          ? `Check the path, or name one of the ${what}s that plugins provide.`
          : `Did you mean "${near}"?`,
      fields: { path, ...(near === undefined ? {} : { suggestion: near }) },
    })
  }
  try {
    return (await import(pathToFileURL(path).href)) as Readonly<Record<string, unknown>>
  } catch (cause) {
    if (isSlothError(cause)) throw cause
    throw importError(
      `${code}_IMPORT`,
      `The ${what}`,
      pathToFileURL(path),
      cause,
      "Mend it; run it by itself to see where it fails.",
    )
  }
}
