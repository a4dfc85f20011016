import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { SlothError, slothPaths } from "@sloth/core"
import { GuestProcess } from "./guest-process.ts"
import { PYTHON_DRIVER } from "./guest/python-driver.ts"
import type { GuestConfig } from "./protocol.ts"

/** The release that the limits are written for: its imports are the gate's list. */
const PYODIDE = "314.0.7"

/** Where pyodide lies. Errors: SLOTH_SANDBOX_PYODIDE. */
export const findPyodide = (): { readonly module: string; readonly folder: string } => {
  const next = `Install it beside your project: npm install pyodide@${PYODIDE} (or bun add, or deno add npm:).`
  let manifest: string
  try {
    manifest = createRequire(import.meta.url).resolve("pyodide/package.json")
  } catch (cause) {
    throw new SlothError("SLOTH_SANDBOX_PYODIDE", {
      what: "The sandbox for Python needs the package pyodide, which is not installed.",
      why: "It is 14 MB, so it does not come with this package.",
      next,
      cause,
    })
  }
  const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version: string }
  if (version !== PYODIDE)
    throw new SlothError("SLOTH_SANDBOX_PYODIDE", {
      what: `The sandbox for Python needs pyodide ${PYODIDE}; the one installed is ${version}.`,
      why: "What a program may reach is listed for one version.",
      next,
      fields: { version },
    })
  const folder = dirname(manifest)
  return { module: join(folder, "pyodide.mjs"), folder }
}

const making = new Map<string, Promise<string>>()

/** Path of the image of a started interpreter; made once, kept in the cache folder. Errors: SLOTH_SANDBOX_START. */
export const pythonImage = (config: GuestConfig): Promise<string> => {
  const key = createHash("sha256")
    .update(
      [PYODIDE, process.versions["bun"] ?? "", process.versions["deno"] ?? "", process.version, PYTHON_DRIVER].join(
        "\n",
      ),
    )
    .digest("hex")
    .slice(0, 16)
  const snapshot = join(slothPaths().cache, "sandbox", `python-${key}.image`)
  if (existsSync(snapshot)) return Promise.resolve(snapshot)
  let made = making.get(snapshot)
  if (made === undefined) {
    mkdirSync(dirname(snapshot), { recursive: true, mode: 0o700 })
    made = new GuestProcess({ ...config, snapshot, make: true })
      .finished(120_000)
      .then(() => snapshot)
      .finally(() => making.delete(snapshot))
    making.set(snapshot, made)
  }
  return made
}
