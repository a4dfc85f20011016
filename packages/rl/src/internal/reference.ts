import { SlothError } from "@sloth/core"

/** The error for a row that should bring the reference's log-probs and does not. */
export const missingReference = (row: number): SlothError =>
  new SlothError("SLOTH_RL_REFERENCE_MISSING", {
    what: `Row ${row} brings no log-probs of a reference.`,
    why: 'reference is "row".',
    next: 'Add the columns ref_chosen_logps and ref_rejected_logps (rated rows: ref_logps), or use reference "base".',
    fields: { row },
  })
