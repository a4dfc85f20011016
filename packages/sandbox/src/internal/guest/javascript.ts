import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import * as quickjs from "@jitl/quickjs-wasmfile-release-sync"
import {
  newQuickJSWASMModuleFromVariant,
  newVariant,
  type QuickJSContext,
  type QuickJSHandle,
  type QuickJSRuntime,
  type QuickJSSyncVariant,
} from "quickjs-emscripten-core"
import type { SandboxOutcome, SandboxValue } from "../../outcome.ts"
import type { GuestCall, GuestConfig, GuestLanguage, GuestProgram } from "../protocol.ts"

/** Runs before the program, so that what the program does to `JSON` or `Map` does not reach it. */
const DRIVER = `(() => {
  const { stringify, parse } = JSON
  const { isArray, from } = Array
  const { isSafeInteger, isFinite } = Number
  const { getPrototypeOf, keys, prototype: plain } = Object
  const entriesOf = Map.prototype.entries, valuesOf = Set.prototype.values
  const { apply } = Reflect
  const encode = (v, deep) => {
    if (deep > 200) throw new RangeError("the value is nested too deeply")
    if (v === undefined || v === null) return null
    if (typeof v === "boolean" || typeof v === "string") return v
    if (typeof v === "number") return isFinite(v) ? v : { $float: v !== v ? "nan" : v > 0 ? "inf" : "-inf" }
    if (typeof v === "bigint") return { $int: "" + v }
    if (typeof v !== "object") throw new TypeError("a " + typeof v + " is no data")
    if (isArray(v)) { const out = []; for (let i = 0; i < v.length; i++) out[i] = encode(v[i], deep + 1); return out }
    if (v instanceof Set) return { $set: from(apply(valuesOf, v, []), (x) => encode(x, deep + 1)) }
    if (v instanceof Map) return { $map: from(apply(entriesOf, v, []), (p) => [encode(p[0], deep + 1), encode(p[1], deep + 1)]) }
    const out = { __proto__: null }
    for (const k of keys(v)) out[k] = encode(v[k], deep + 1)
    return out
  }
  const decode = (v) => {
    if (typeof v !== "object" || v === null) return v
    if (isArray(v)) return v.map(decode)
    const names = keys(v)
    if (names.length === 1) {
      const only = v[names[0]]
      if (names[0] === "$int") return BigInt(only)
      if (names[0] === "$float") return only === "nan" ? NaN : only === "inf" ? Infinity : -Infinity
      if (names[0] === "$set") return new Set(only.map(decode))
      if (names[0] === "$map") return new Map(only.map(([k, x]) => [decode(k), decode(x)]))
    }
    const out = {}
    for (const k of names) out[k] = decode(v[k])
    return out
  }
  return { encode: (v) => stringify(encode(v, 0)), call: (f, args) => f(...decode(parse(args))) }
})()`

const TEXT_OF = `((a) => a.map((v) => { try { return typeof v === "string" ? v : typeof v === "object" && v !== null ? JSON.stringify(v) : String(v) } catch { return "?" } }).join(" "))`

type Killed = "timeout" | "memory" | "output-limit"

/**
 * Programs in QuickJS: an instance of the WebAssembly module each, with a limit on its heap, its stack and its time, and nothing of a host but `console.log`.
 */
export const javascriptGuest = async (config: GuestConfig): Promise<GuestLanguage> => {
  const found = createRequire(import.meta.url).resolve("@jitl/quickjs-wasmfile-release-sync")
  const wasmModule = await WebAssembly.compile(readFileSync(join(dirname(found), "emscripten-module.wasm")))
  // The package's types and its CommonJS form disagree on how deep the default lies.
  const { default: outer } = quickjs as unknown as { default: QuickJSSyncVariant | { default: QuickJSSyncVariant } }
  const plain = "default" in outer ? outer.default : outer
  // QuickJS counts its blocks but, compiled to WebAssembly, not what is in them: the limit is that of the whole memory.
  const maximum = Math.floor(config.memoryBytes / 65_536)
  return {
    prepare: async () => {
      const memory = new WebAssembly.Memory({ initial: INITIAL_PAGES, maximum })
      const variant = newVariant(plain, { wasmModule, wasmMemory: () => Promise.resolve(memory) })
      return new JavaScriptProgram((await newQuickJSWASMModuleFromVariant(variant)).newRuntime(), memory, config)
    },
  }
}

/** What the module declares: 16 MiB. */
const INITIAL_PAGES = 256

class JavaScriptProgram implements GuestProgram {
  readonly #runtime: QuickJSRuntime
  readonly #context: QuickJSContext
  readonly #config: GuestConfig
  readonly #memory: WebAssembly.Memory
  readonly #encode: QuickJSHandle
  readonly #call: QuickJSHandle
  #exports: QuickJSHandle | undefined
  #deadline = 0
  #killed: Killed | undefined
  #printed: string[] = []
  #room: number

  constructor(runtime: QuickJSRuntime, memory: WebAssembly.Memory, config: GuestConfig) {
    this.#memory = memory
    this.#config = config
    this.#runtime = runtime
    this.#room = config.outputBytes
    // The WebAssembly stack below is 1 MiB or more; this leaves room for the interpreter's own frames.
    runtime.setMaxStackSize(256 * 1024)
    runtime.setInterruptHandler(() => {
      if (this.#killed === undefined && Date.now() > this.#deadline) this.#killed = "timeout"
      return this.#killed !== undefined
    })
    const context = runtime.newContext()
    this.#context = context
    this.#deadline = Date.now() + 60_000
    const driver = context.unwrapResult(context.evalCode(DRIVER))
    this.#encode = context.getProp(driver, "encode")
    this.#call = context.getProp(driver, "call")
    driver.dispose()
    const textOf = context.unwrapResult(context.evalCode(TEXT_OF))
    const print = context.newFunction("log", (...args) => {
      // The interpreter asks whether to stop only now and then; printing is slow enough to matter.
      if (this.#killed !== undefined) throw new Error("killed")
      const list = context.newArray()
      for (const [i, arg] of args.entries()) context.setProp(list, i, arg)
      const text = context.callFunction(textOf, context.undefined, list)
      list.dispose()
      if (text.error !== undefined) {
        text.error.dispose()
        return
      }
      this.#print(`${context.getString(text.value)}\n`)
      text.value.dispose()
    })
    const console = context.newObject()
    for (const name of ["log", "info", "warn", "error", "debug"]) context.setProp(console, name, print)
    context.setProp(context.global, "console", console)
    context.setProp(context.global, "print", print)
    console.dispose()
    print.dispose()
  }

  #print(text: string): void {
    const bytes = Buffer.byteLength(text)
    if (bytes > this.#room) this.#killed ??= "output-limit"
    else {
      this.#printed.push(text)
      this.#room -= bytes
    }
  }

  open(code: string, stdin: string | undefined, deadline: number): SandboxOutcome {
    return this.#step(deadline, () => {
      const context = this.#context
      if (stdin !== undefined) {
        const input = context.newString(stdin)
        context.setProp(context.global, "stdin", input)
        input.dispose()
      }
      const isModule = /^\s*export\s/m.test(code)
      const result = context.evalCode(code, "program.js", { type: isModule ? "module" : "global" })
      if (result.error !== undefined) return this.#failure(result.error)
      const settled = this.#settle(result.value)
      if ("outcome" in settled) return settled.outcome
      if (isModule) this.#exports = settled.handle
      else settled.handle.dispose()
      return { status: "ok", value: null, stdout: "", ms: 0 }
    })
  }

  call({ function: name, args }: GuestCall, deadline: number): SandboxOutcome {
    return this.#step(deadline, () => {
      const context = this.#context
      if (!/^[A-Za-z_$][\w$]*$/.test(name)) return failed("NameError", `"${name}" is no name of a function`)
      let found = this.#exports === undefined ? undefined : context.getProp(this.#exports, name)
      if (found === undefined || context.typeof(found) === "undefined") {
        const result = context.evalCode(`typeof ${name} === "undefined" ? undefined : ${name}`)
        if (result.error !== undefined) return this.#failure(result.error)
        found = result.value
      }
      if (context.typeof(found) !== "function") {
        found.dispose()
        return failed("NameError", `the program defines no function "${name}"`)
      }
      const text = context.newString(JSON.stringify(args))
      const result = context.callFunction(this.#call, context.undefined, found, text)
      text.dispose()
      found.dispose()
      if (result.error !== undefined) return this.#failure(result.error)
      const settled = this.#settle(result.value)
      if ("outcome" in settled) return settled.outcome
      const encoded = context.callFunction(this.#encode, context.undefined, settled.handle)
      settled.handle.dispose()
      if (encoded.error !== undefined) return this.#failure(encoded.error)
      const json = context.getString(encoded.value)
      encoded.value.dispose()
      if (Buffer.byteLength(json) > this.#config.outputBytes) {
        this.#killed ??= "output-limit"
        return failed("RangeError", "the value is too large")
      }
      return { status: "ok", value: inOrder(JSON.parse(json) as SandboxValue), stdout: "", ms: 0 }
    })
  }

  // Nothing holds the instance but this object; freeing value by value would run code of the program.
  dispose(): void {}

  #step(deadline: number, body: () => SandboxOutcome): SandboxOutcome {
    this.#deadline = deadline
    this.#printed = []
    this.#room = this.#config.outputBytes
    const started = performance.now()
    let outcome: SandboxOutcome
    try {
      outcome = body()
    } catch (error) {
      outcome = failed("InternalError", error instanceof Error ? error.message : String(error))
    }
    const base = { stdout: this.#printed.join(""), ms: performance.now() - started }
    if (this.#killed !== undefined) return { ...base, status: this.#killed, message: WHY[this.#killed] }
    return { ...outcome, ...base }
  }

  /** Runs pending jobs until a promise is settled. */
  #settle(value: QuickJSHandle): { readonly handle: QuickJSHandle } | { readonly outcome: SandboxOutcome } {
    const context = this.#context
    for (;;) {
      const state = context.getPromiseState(value)
      if (state.type === "fulfilled") {
        if (state.notAPromise !== true) value.dispose()
        return { handle: state.value }
      }
      if (state.type === "rejected") {
        value.dispose()
        return { outcome: this.#failure(state.error) }
      }
      if (Date.now() > this.#deadline) this.#killed ??= "timeout"
      if (this.#killed !== undefined || !this.#runtime.hasPendingJob()) {
        value.dispose()
        return { outcome: failed("Error", "the promise is never settled") }
      }
      const jobs = this.#runtime.executePendingJobs(64)
      if (jobs.error !== undefined) {
        value.dispose()
        return { outcome: this.#failure(jobs.error) }
      }
      jobs.dispose()
    }
  }

  #failure(error: QuickJSHandle): SandboxOutcome {
    const context = this.#context
    const text = (key: string): string => {
      const handle = context.getProp(error, key)
      const found = context.typeof(handle) === "string" ? context.getString(handle) : ""
      handle.dispose()
      return found
    }
    try {
      const isError = context.typeof(error) === "object" && !context.eq(error, context.null)
      const name = isError ? text("name") : "Error"
      const message = isError ? text("message") : String(context.dump(error))
      // Where there is no room for the error itself, it comes as null or without its message.
      const full = this.#memory.buffer.byteLength > this.#config.memoryBytes * 0.8 && ["", "null"].includes(message)
      if (full || (name === "InternalError" && message === "out of memory")) this.#killed ??= "memory"
      return failed(name === "" ? "Error" : name.slice(0, 200), message.slice(0, 2000))
    } finally {
      error.dispose()
    }
  }
}

const WHY = {
  timeout: "the time is up",
  memory: "out of memory",
  "output-limit": "it printed or returned more than the limit",
} as const

const failed = (name: string, message: string): SandboxOutcome => ({
  status: "error",
  name,
  message,
  stdout: "",
  ms: 0,
})

/** Sets in the order of their texts, as Python's come. */
const inOrder = (value: SandboxValue): SandboxValue => {
  if (typeof value !== "object" || value === null) return value
  if (Array.isArray(value)) return (value as readonly SandboxValue[]).map(inOrder)
  const entries = Object.entries(value as Record<string, SandboxValue>).map(([k, v]) => [k, inOrder(v)] as const)
  if (entries.length === 1 && entries[0]![0] === "$set" && Array.isArray(entries[0]![1])) {
    const list = entries[0]![1] as readonly SandboxValue[]
    const sorted = list.map((v) => [JSON.stringify(v), v] as const).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
    return { $set: sorted.map(([, v]) => v) }
  }
  return Object.fromEntries(entries)
}
