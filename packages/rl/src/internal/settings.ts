import { SlothError } from "@sloth/core"

/** The error for settings of a method that are right one by one and wrong together. */
export const settingsError = (method: string, what: string, next: string, fields: object = {}): SlothError =>
  new SlothError("SLOTH_RL_SETTINGS", { what: `${method}: ${what}`, next, fields: { method, ...fields } })
