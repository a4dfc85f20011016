import { SlothError, type Backend, type BufferHandle, type Memory, type Program } from "@sloth/core"

/** Recording for backends that have no faster way to repeat work than to make the calls again. */
export interface CallRecorder {
  /** The call, recorded while a capture runs. */
  wrap<A extends readonly unknown[]>(call: (...args: A) => void): (...args: A) => void
  /** The backend's memory: while a capture runs, what is freed stays for the program and nothing can be written or read. */
  readonly memory: Memory
  readonly capture: Backend["capture"]
  /** Refuses to wait while a capture runs. Errors: SLOTH_BACKEND_CAPTURE. */
  check(operation: string): void
}

/** Makes a {@link CallRecorder} around a backend's memory. */
export const callRecorder = (inner: Memory): CallRecorder => {
  let current: { readonly calls: (() => void)[]; readonly freed: BufferHandle[] } | undefined
  const check = (operation: string): void => {
    if (current === undefined) return
    throw new SlothError("SLOTH_BACKEND_CAPTURE", {
      what: `${operation} cannot be recorded: only kernel calls can.`,
      fields: { operation },
    })
  }
  const program = (calls: readonly (() => void)[], freed: readonly BufferHandle[]): Program => {
    let disposed = false
    return {
      calls: calls.length,
      run: () => {
        check("A program's run")
        if (disposed)
          throw new SlothError("SLOTH_PROGRAM_DISPOSED", { what: "A program was run after it was disposed." })
        for (const call of calls) call()
      },
      [Symbol.dispose]: () => {
        if (disposed) return
        disposed = true
        for (const handle of freed) inner.free(handle)
      },
    }
  }
  return {
    wrap:
      (call) =>
      (...args) => {
        if (current === undefined) call(...args)
        else current.calls.push(() => call(...args))
      },
    memory: {
      ...inner,
      write: (handle, data, byteOffset) => {
        check("write")
        inner.write(handle, data, byteOffset)
      },
      read: (handle, byteOffset, bytes) => {
        check("read")
        return inner.read(handle, byteOffset, bytes)
      },
      scratch: (folder) => {
        check("scratch")
        const file = inner.scratch(folder)
        return {
          ...file,
          put: (handle, offset) => {
            check("put")
            file.put(handle, offset)
          },
          take: (handle, offset, ahead) => {
            check("take")
            file.take(handle, offset, ahead)
          },
        }
      },
      free: (handle) => {
        if (current === undefined) inner.free(handle)
        else {
          inner.bytes(handle) // a dead handle is an error now, not when the program goes
          current.freed.push(handle)
        }
      },
    },
    check,
    capture: (body) => {
      check("capture")
      const recording = { calls: [] as (() => void)[], freed: [] as BufferHandle[] }
      current = recording
      try {
        body()
      } catch (error) {
        current = undefined
        for (const handle of recording.freed) inner.free(handle)
        throw error
      } finally {
        current = undefined
      }
      return program(recording.calls, recording.freed)
    },
  }
}
