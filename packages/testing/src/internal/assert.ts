import { isSlothError } from "@sloth/core"

/** A failed check of a conformance kit. */
export class ConformanceFailure extends Error {
  override readonly name = "ConformanceFailure"
}

/** Fails the running test unless `ok`. */
export function check(ok: boolean, message: string): asserts ok {
  if (!ok) throw new ConformanceFailure(message)
}

/** Fails unless the call throws a SlothError with one of these codes. */
export function checkThrows(run: () => unknown, codes: readonly string[], label: string): void {
  try {
    run()
  } catch (error) {
    const code = isSlothError(error) ? error.code : String(error)
    check(codes.includes(code), `${label} should fail with ${codes.join(" or ")}, not with ${code}`)
    return
  }
  check(false, `${label} should fail with ${codes.join(" or ")}, but succeeded`)
}

/** Fails unless the call throws, or the promise it returns rejects with, a SlothError whose code passes. */
export async function checkFails(run: () => unknown, accepts: (code: string) => boolean, label: string): Promise<void> {
  try {
    await run()
  } catch (error) {
    check(isSlothError(error), `${label} should fail with a SlothError, not with ${String(error)}`)
    check(accepts(error.code), `${label} failed with the unexpected code ${error.code}`)
    check(error.what.length > 0, `${label}: the error says nothing`)
    return
  }
  check(false, `${label} should fail, but succeeded`)
}
