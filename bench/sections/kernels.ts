import { runOwnJob } from "../lib/child.ts"
import type { BenchContext } from "../lib/context.ts"
import type { Line } from "../lib/figures.ts"

/** Every kernel as a fraction of the machine's limit, in a process of its own. */
export const kernels = async ({ threads, quick, filter, add, say }: BenchContext): Promise<void> => {
  let last = ""
  const result = await runOwnJob<Line>(
    "kernels.ts",
    [
      "--threads",
      String(threads),
      ...(quick ? ["--quick"] : []),
      ...(filter === undefined ? [] : ["--filter", filter]),
    ],
    {
      onValue: (line) => {
        const what = line.group.split(",")[0]!
        if (what !== last) say(`kernels: ${what}`)
        last = what
        add(line)
      },
    },
  )
  if (!result.ok) add({ section: "kernels", group: "kernels", name: "the measurement", missing: result.error })
}
