import { extname } from "node:path"
import { fileURLToPath } from "node:url"
import { SlothError } from "../errors.ts"
import { systemCode } from "../file-error.ts"

/** Why a module could not be imported, and what helps: TypeScript on an old Node, a package that is not installed, or what the module itself threw. */
const reasonOf = (path: string, cause: unknown): { readonly why: string; readonly next: string | undefined } => {
  const code = systemCode(cause)
  if (
    /^\.[cm]?ts$/.test(extname(path)) &&
    (code === "ERR_UNKNOWN_FILE_EXTENSION" || code === "ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING")
  )
    return {
      why: `This Node.js (${process.version}) does not load TypeScript here.`,
      next: "Run it with Bun or Deno, or compile it to JavaScript.",
    }
  const why = cause instanceof Error ? cause.message : String(cause)
  // Node and Bun word it alike; neither gives the name in a field of its own.
  const missing = code === "ERR_MODULE_NOT_FOUND" ? /^Cannot find package '([^']+)'/.exec(why)?.[1] : undefined
  return { why, next: missing === undefined ? undefined : `Install it where the file lies: bun add ${missing}` }
}

/**
 * The coded error of a user's module that could not be imported, with the reason a TypeScript file has on Node, and the package that is missing. `next` is what to do where nothing better is known.
 */
export const importError = (
  code: `SLOTH_${string}`,
  subject: string,
  url: URL,
  cause: unknown,
  next?: string,
): SlothError => {
  const path = url.protocol === "file:" ? fileURLToPath(url) : url.href
  const reason = reasonOf(path, cause)
  return new SlothError(code, {
    what: `${subject} could not be loaded from ${path}.`,
    why: reason.why,
    next: reason.next ?? next,
    fields: { path },
    cause,
  })
}
