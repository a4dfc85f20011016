import { extname } from "node:path"
import { fileURLToPath } from "node:url"
import { SlothError } from "../errors.ts"
import { systemCode } from "../file-error.ts"

/** The coded error of a user's module that could not be imported, with the reason a TypeScript file has on Node. */
export const importError = (code: `SLOTH_${string}`, subject: string, url: URL, cause: unknown): SlothError => {
  const path = url.protocol === "file:" ? fileURLToPath(url) : url.href
  const typescript =
    /^\.[cm]?ts$/.test(extname(path)) &&
    (systemCode(cause) === "ERR_UNKNOWN_FILE_EXTENSION" ||
      systemCode(cause) === "ERR_UNSUPPORTED_NODE_MODULES_TYPE_STRIPPING")
  return new SlothError(code, {
    what: `${subject} could not be loaded from ${path}.`,
    why: typescript
      ? `This Node.js (${process.version}) does not load TypeScript here.`
      : cause instanceof Error
        ? cause.message
        : String(cause),
    next: typescript ? "Run it with Bun or Deno, or compile it to JavaScript." : undefined,
    fields: { path },
    cause,
  })
}
