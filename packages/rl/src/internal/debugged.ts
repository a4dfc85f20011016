import * as inspector from "node:inspector"

/** True where someone may step through code in a debugger: it then takes as long as it takes. */
export const isDebugged = (): boolean =>
  inspector.url() !== undefined || process.execArgv.some((arg) => /^--inspect(?!-port)/.test(arg))
