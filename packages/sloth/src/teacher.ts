import { join } from "node:path"
import { hashFile } from "@sloth/core"
import type { ModelFiles } from "@sloth/model"
import type { SlothContext } from "./context.ts"
import { openFiles } from "./opened-model.ts"
import { resolveModel } from "./resolve-model.ts"

/** The teacher that a method's settings name, its adapter included where it is a run; undefined where they name none. Errors: those of opening a model. */
export const openTeacher = async (context: SlothContext, settings: unknown): Promise<ModelFiles | undefined> => {
  const spec = (settings as { readonly teacher?: unknown } | null | undefined)?.teacher
  if (typeof spec !== "string") return undefined
  const source = await resolveModel(context, spec)
  const files = await openFiles(context, source)
  const { adapter } = source
  if (adapter === undefined) return files
  const { loadPeftAdapter } = await import("@sloth/model")
  return {
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
}
