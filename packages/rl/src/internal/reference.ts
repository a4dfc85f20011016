import { field, SlothError, withDefault } from "@sloth/core"
import type { LogprobLoss } from "@sloth/train"
import { settingsError } from "./settings.ts"

/** The error for a row that should bring the reference's log-probs and does not. */
export const missingReference = (row: number): SlothError =>
  new SlothError("SLOTH_RL_REFERENCE_MISSING", {
    what: `Row ${row} brings no log-probs of a reference.`,
    why: 'reference is "row".',
    next: 'Add the columns ref_chosen_logps and ref_rejected_logps (rated rows: ref_logps), or use reference "base".',
    fields: { row },
  })

/** Settings of a reference that follows the policy. */
export const syncedReferenceFields = {
  syncReference: field
    .boolean({
      description:
        "Let the reference follow the policy: it begins as the base model and takes over a share of the adapter now and then (TR-DPO).",
      aka: ["sync_ref_model"],
    })
    .pipe(withDefault(false)),
  referenceMixup: field
    .number({
      description: "syncReference: share of the policy in the reference after a synchronisation.",
      above: 0,
      max: 1,
      aka: ["ref_model_mixup_alpha"],
    })
    .pipe(withDefault(0.6)),
  referenceSyncSteps: field
    .int({
      description: "syncReference: optimizer steps between synchronisations.",
      min: 1,
      aka: ["ref_model_sync_steps"],
    })
    .pipe(withDefault(512)),
}

interface SyncSettings {
  readonly syncReference: boolean
  readonly referenceMixup: number
  readonly referenceSyncSteps: number
}

/** The part of a loss that lets its reference follow the policy; refused where `unread` says why nothing reads one. Errors: SLOTH_RL_SETTINGS. */
export const syncedReference = (
  method: string,
  { syncReference, referenceMixup, referenceSyncSteps }: SyncSettings,
  unread: string | undefined,
): Pick<LogprobLoss, "syncReference"> => {
  if (!syncReference) return {}
  if (unread !== undefined)
    throw settingsError(
      method,
      `syncReference is on, but ${unread}.`,
      "Leave syncReference off, or give it something to follow.",
    )
  return { syncReference: { mixup: referenceMixup, every: referenceSyncSteps } }
}
