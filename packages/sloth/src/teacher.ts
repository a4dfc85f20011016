import { join } from "node:path"
import { hashFile } from "@sloth/core"
import type { ModelFiles } from "@sloth/model"
import type { SlothContext } from "./context.ts"
import { openFiles } from "./opened-model.ts"
import { resolveModel } from "./resolve-model.ts"

/** A teacher, and what a record keeps to find exactly this one again. */
export interface OpenedTeacher {
  readonly files: ModelFiles
  readonly pinned: string
}

/** The model that a method's settings name as a teacher; undefined where they name none. */
export const teacherOf = (settings: unknown): string | undefined => {
  const spec = (settings as { readonly teacher?: unknown } | null | undefined)?.teacher
  return typeof spec === "string" ? spec : undefined
}

/** Opens a teacher, its adapter included where it is a run. Errors: those of opening a model. */
export const openTeacher = async (context: SlothContext, spec: string): Promise<OpenedTeacher> => {
  const source = await resolveModel(context, spec)
  const files = await openFiles(context, source)
  const pinned = source.run ?? source.pinned
  const { adapter } = source
  if (adapter === undefined) return { files, pinned }
  const { loadPeftAdapter } = await import("@sloth/model")
  const adapted: ModelFiles = {
    ...files,
    fingerprint: `${files.fingerprint}-${await hashFile(join(adapter, "adapter_model.safetensors"))}`,
    build: (engine) => {
      const model = files.build(engine)
      try {
        loadPeftAdapter(model, adapter)
        return model
      } catch (error) {
        model[Symbol.dispose]()
        throw error
      }
    },
  }
  return { files: adapted, pinned }
}
