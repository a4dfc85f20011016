import { writeFileSync } from "node:fs"
import { fileError, runPaths } from "@sloth/core"
import { readReportData } from "./report-data.ts"
import { reportHtml } from "./report-html.ts"

/** Writes `report.html` of a run from its events and returns its path. Errors: SLOTH_RUN_NOT_A_RUN, SLOTH_EVENTS_CORRUPT and those of `fileError`. */
export const writeReport = (run: string): string => {
  const { report } = runPaths(run)
  const html = reportHtml(readReportData(run))
  try {
    writeFileSync(report, html)
  } catch (error) {
    throw fileError(error, report, "write")
  }
  return report
}
