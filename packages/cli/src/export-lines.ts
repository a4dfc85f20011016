import { isAbsolute, relative } from "node:path"
import { formatBytes } from "@sloth/core"
import type { ExportReport } from "@sloth/export"
import type { Style } from "./terminal/terminal.ts"

/** A path as people read it: relative to here where that is shorter. */
export const shortPath = (path: string): string => {
  const near = relative(process.cwd(), path)
  return near !== "" && near.length < path.length ? near : path
}

/** What an export made and how it compares, as lines; `base` is the model that an adapter goes on. */
export const exportLines = (report: ExportReport, style: Style, base: string): readonly string[] => {
  const { verification: v } = report
  return [
    `${style.green("✓")} ${style.bold(report.format)} ${shortPath(report.path)} (${formatBytes(report.bytes)}, ${report.seconds.toFixed(1)} s)`,
    `  verified on ${v.tokens} tokens: ${v.largest === 0 ? "log-probs are equal" : `log-probs differ by at most ${v.largest.toExponential(1)} nats, ${v.mean.toExponential(1)} on average`}; likeliest token equal at ${(100 * v.agreement).toFixed(1)} %${v.tensors === undefined ? "" : `; ${v.tensors} tensors read back bit for bit`}`,
    `  ${style.dim("try:")} ${report.hint.replace(report.path, shortPath(report.path)).replace("<base>", isAbsolute(base) ? shortPath(base) : base)}`,
  ]
}
