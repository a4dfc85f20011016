import { relative } from "node:path"

/** A path as it is typed: relative where that is shorter, quoted where it must be. */
const shellPath = (path: string): string => {
  const near = relative(process.cwd(), path)
  const shown = near !== "" && near.length < path.length ? near : path
  return /^[\w./@:+-]+$/.test(shown) ? shown : `'${shown.replaceAll("'", "'\\''")}'`
}

/** The command line that goes on with the run in a folder. */
export const resumeCommandOf = (root: string): string => `sloth train --resume --run ${shellPath(root)}`
