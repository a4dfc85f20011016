import { SlothError } from "@sloth/core"
import type { CausalLM } from "@sloth/model"
import type { TeacherPass } from "./forward.ts"
import type { TrainModel } from "./model-files.ts"
import type { ObjectiveLoss } from "./objective.ts"

/** What a run needs to know of its teacher before it is built. */
type TeacherFiles = Pick<TrainModel, "name" | "tokenizer" | "config">

/**
 * Checks that a run has a teacher exactly where its loss learns from one, and that both read the same tokens.
 * Errors: SLOTH_TRAIN_TEACHER, SLOTH_TRAIN_TEACHER_VOCABULARY.
 */
export const requireTeacher = (
  loss: ObjectiveLoss,
  method: string,
  student: TeacherFiles,
  teacher: TeacherFiles | undefined,
): void => {
  if ((loss.kind === "divergence") !== (teacher !== undefined))
    throw new SlothError("SLOTH_TRAIN_TEACHER", {
      what:
        teacher === undefined
          ? `The method "${method}" learns from a teacher, and none was named.`
          : `The method "${method}" learns from no teacher, but one was named: ${teacher.name}.`,
      next:
        teacher === undefined
          ? "Name a model with the same tokenizer: --teacher, or the setting teacher."
          : "Leave it out, or use the method gkd.",
      fields: { method },
    })
  if (teacher?.tokenizer === undefined || student.tokenizer === undefined) return
  const [own, other] = [student.tokenizer, teacher.tokenizer]
  if (own.fingerprint === other.fingerprint) return
  // Definitions differ in what means nothing here, such as a chat template: ids and their texts decide.
  const size = Math.max(own.vocabSize, other.vocabSize)
  for (let id = 0; id < size; id++) {
    if (own.idToToken(id) === other.idToToken(id)) continue
    throw new SlothError("SLOTH_TRAIN_TEACHER_VOCABULARY", {
      what: `The teacher ${teacher.name} has another vocabulary than ${student.name}: token ${id} is ${JSON.stringify(other.idToToken(id) ?? null)} there and ${JSON.stringify(own.idToToken(id) ?? null)} here.`,
      why: "Distributions over tokens can be compared only where both mean the same tokens.",
      next: "Take a teacher of the same family, or let it write answers and fine-tune on those.",
      fields: { id, teacher: other.idToToken(id) ?? null, student: own.idToToken(id) ?? null },
    })
  }
}

/** The teacher's part of a pass. Errors: SLOTH_TRAIN_TEACHER. */
export const teacherPass = (
  { beta, temperature }: { readonly beta: number; readonly temperature?: number },
  teacher: CausalLM | undefined,
): TeacherPass => {
  if (teacher === undefined)
    throw new SlothError("SLOTH_TRAIN_TEACHER", {
      what: "This loss learns from a teacher, and there is none.",
      next: "Give the step runner, or the evaluation, its teacher.",
    })
  return { teacher, beta, ...(temperature === undefined ? {} : { temperature }) }
}
