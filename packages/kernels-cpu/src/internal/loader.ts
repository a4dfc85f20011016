import { createHash } from "node:crypto"
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"

import { SlothError } from "@sloth/core"

import type { NativeAddon } from "./native.ts"

/** A loaded addon and where it came from. */
export interface LoadedAddon {
  readonly addon: NativeAddon
  readonly path: string
  /** True when native sources lie here that are newer than the addon (a checkout with edits that were not built). */
  readonly stale: boolean
}

interface Manifest {
  readonly source: string
  readonly face: string
  readonly addon: string
}

const packageRoot = resolve(dirname(fileURLToPath(import.meta.url)), "..", "..")
const require = createRequire(import.meta.url)
/** Files that say what the addon takes and returns. */
const FACE = /^(binding|kernel)/

let loaded: LoadedAddon | SlothError | undefined

// The first line says it; runtimes add stacks of required files below.
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error)).split("\n")[0]!

/** The same hashes as scripts/build.mjs writes, or undefined where the sources are not shipped. */
function sourceHashes(): { source: string; face: string } | undefined {
  const native = join(packageRoot, "native")
  if (!existsSync(native)) return undefined
  const files: string[] = []
  const walk = (folder: string, prefix: string): void => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) walk(join(folder, entry.name), `${prefix}${entry.name}/`)
      else if (/\.(h|cpp)$/.test(entry.name)) files.push(`${prefix}${entry.name}`)
    }
  }
  walk(native, "")
  files.sort()
  const all = createHash("sha256")
  const face = createHash("sha256")
  for (const file of files) {
    const text = readFileSync(join(native, file))
    all.update(`${file}\0`).update(text)
    if (FACE.test(file)) face.update(`${file}\0`).update(text)
  }
  return { source: all.digest("hex").slice(0, 16), face: face.digest("hex").slice(0, 16) }
}

function open(path: string): NativeAddon {
  const addon = require(path) as Partial<NativeAddon>
  if (typeof addon.create !== "function" || typeof addon.isas !== "function") {
    throw new TypeError("it is not a Sloth CPU addon")
  }
  return addon as NativeAddon
}

/** The addon built from these sources; its arguments must be those that this code passes, so an addon with another face is refused. */
function openBuilt(): LoadedAddon {
  const file = join(packageRoot, "build", "manifest.json")
  if (!existsSync(file)) throw new Error("it has not been built (no build/manifest.json)")
  const manifest = JSON.parse(readFileSync(file, "utf8")) as Manifest
  const hashes = sourceHashes()
  if (hashes !== undefined && hashes.face !== manifest.face) {
    throw new Error("it was built from other sources; run scripts/build.mjs of @sloth/kernels-cpu")
  }
  const path = join(packageRoot, "build", manifest.addon)
  return { addon: open(path), path, stale: hashes !== undefined && hashes.source !== manifest.source }
}

function search(): LoadedAddon | SlothError {
  const causes: string[] = []
  const attempt = (what: string, load: () => LoadedAddon): LoadedAddon | undefined => {
    try {
      return load()
    } catch (error) {
      causes.push(`${what}: ${messageOf(error)}`)
      return undefined
    }
  }
  const forced = process.env["SLOTH_NATIVE_PATH"]
  let found: LoadedAddon | undefined
  if (forced !== undefined && forced !== "") {
    const path = resolve(forced)
    found = attempt(`SLOTH_NATIVE_PATH ${path}`, () => ({ addon: open(path), path, stale: false }))
  } else {
    found = attempt("the addon built at install", openBuilt)
    const name = `@sloth/kernels-cpu-${process.platform}-${process.arch}`
    found ??= attempt(`the package ${name}`, () => {
      const path = require.resolve(name)
      return { addon: open(path), path, stale: false }
    })
  }
  if (found !== undefined) return found
  return new SlothError("SLOTH_NATIVE_UNAVAILABLE", {
    what: "The native CPU backend cannot be loaded.",
    why: causes.map((cause) => `${cause}.`).join(" "),
    next: "Install a C++17 compiler and run the install again, or use the reference backend.",
    fields: { platform: process.platform, arch: process.arch, causes },
  })
}

/** Loads the addon once. Errors: SLOTH_NATIVE_UNAVAILABLE with every cause. */
export function loadAddon(): LoadedAddon {
  loaded ??= search()
  if (loaded instanceof SlothError) throw loaded
  return loaded
}
