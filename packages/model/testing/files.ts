import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { isSlothError } from "@sloth/core"

/** A new temporary folder for a test; `using` removes it. */
export const temporaryFolder = (): Disposable & { readonly path: string; file(name: string): string } => {
  const path = fs.mkdtempSync(join(tmpdir(), "sloth-model-"))
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.dispose]() {
      fs.rmSync(path, { recursive: true, force: true })
    },
  }
}

/** The code of the SlothError a function fails with, "none" if it does not fail, the message of any other error. */
export const codeOf = async (run: () => unknown): Promise<string> => {
  try {
    await run()
    return "none"
  } catch (error) {
    return isSlothError(error) ? error.code : `not coded: ${String(error)}`
  }
}

/** The real model file of the project's tests, if this machine has it. */
export const realModelPath = (): string | undefined => {
  const path =
    process.env["SLOTH_TEST_MODEL_GGUF"] ??
    join(import.meta.dirname, "../../../.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf")
  return fs.existsSync(path) ? path : undefined
}
