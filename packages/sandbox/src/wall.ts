import { findWall, type SandboxWall } from "./internal/wall.ts"

export type { SandboxWall } from "./internal/wall.ts"

/** What the operating system keeps from programs in a sandbox on this machine; tried, not assumed. The interpreters' own walls stand on every system. */
export const sandboxWall = (): SandboxWall => {
  const { network, processes, writing, reading, memory, by } = findWall()
  return { network, processes, writing, reading, memory, by }
}
