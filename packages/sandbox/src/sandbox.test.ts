import { afterAll, describe, expect, test } from "bun:test"
import type { SandboxValue } from "./outcome.ts"
import { createSandbox } from "./sandbox.ts"

const addition = {
  javascript: "function add(a, b) {\n  console.log('adding', a, { b })\n  return a + b\n}",
  python: "def add(a, b):\n    print('adding', a)\n    return a + b\n",
}

for (const language of ["javascript", "python"] as const)
  describe(language, () => {
    const sandbox = createSandbox({
      language,
      processes: 1,
      timeMs: 1000,
      memoryBytes: 128 * 2 ** 20,
      outputBytes: 10_000,
    })
    afterAll(() => sandbox[Symbol.asyncDispose]())
    const python = language === "python"

    test("runs a program, calls its function and shows what it prints", async () => {
      const outcome = await sandbox.run(addition[language], { call: { function: "add", args: [2, 3] } })
      expect(outcome).toMatchObject({ status: "ok", value: 5 })
      expect(outcome.stdout).toStartWith("adding 2")
      expect(outcome.ms).toBeGreaterThan(0)
    })

    test("values of every kind cross the border and come back", async () => {
      const values: SandboxValue[] = [
        null,
        true,
        1.5,
        -7,
        "ä\n€😀",
        [1, [2]],
        { a: { b: [] } },
        { $int: "123456789012345678901234567890" },
        { $float: "nan" },
        { $float: "-inf" },
        { $set: [1, 2] },
        { $map: [[1, "a"]] },
      ]
      const echo = python ? "def echo(x): return x" : "const echo = (x) => x"
      const { calls } = await sandbox.runCalls(
        echo,
        values.map((value) => ({ function: "echo", args: [value] })),
      )
      expect(calls.map((call) => (call.status === "ok" ? call.value : call))).toEqual(values)
    })

    test("a program that throws, does not parse or lacks the function is an error with its name", async () => {
      const broken = python ? "def f(:" : "function f( {"
      expect(await sandbox.run(broken)).toMatchObject({ status: "error", name: "SyntaxError" })
      const thrown = python ? "raise ValueError('no')" : "throw new RangeError('no')"
      expect(await sandbox.run(thrown)).toMatchObject({
        status: "error",
        name: python ? "ValueError" : "RangeError",
        message: "no",
      })
      expect(await sandbox.run("", { call: { function: "f" } })).toMatchObject({ status: "error", name: "NameError" })
    })

    test("reads what it is given", async () => {
      const code = python ? "print(int(input()) * 2)" : "console.log(Number(stdin) * 2)"
      expect(await sandbox.run(code, { stdin: "21\n" })).toMatchObject({ status: "ok", stdout: "42\n" })
    })

    test("the limits end a program and name themselves, and the next program runs", async () => {
      const harm = python
        ? {
            timeout: "while True: pass",
            memory: "x = []\nwhile True: x.append(bytearray(10**6))",
            "output-limit": "while True: print('x' * 100)",
          }
        : {
            timeout: "for (;;);",
            memory: "const x = []; for (;;) x.push(new Uint8Array(1e6))",
            "output-limit": "for (;;) console.log('x'.repeat(100))",
          }
      for (const [status, code] of Object.entries(harm)) {
        // Only the loop waits for its time; the others meet their own limit long before, on a busy machine too.
        const outcome = await sandbox.run(code, { timeMs: status === "timeout" ? 300 : 20_000 })
        expect(outcome.status).toBe(status as "timeout")
        expect(outcome.stdout.length).toBeLessThanOrEqual(10_000)
        expect(await sandbox.run(addition[language], { call: { function: "add", args: [1, 1] } })).toMatchObject({
          status: "ok",
          value: 2,
        })
      }
    }, 60_000)

    test("a program that cannot be interrupted is killed with its process", async () => {
      const code = python
        ? "while True:\n  try:\n    while True: pass\n  except BaseException: pass"
        : "/^(a|a?)+$/.test('a'.repeat(60) + '!')"
      expect((await sandbox.run(code, { timeMs: 200 })).status).toBe("timeout")
      expect(await sandbox.run(addition[language], { call: { function: "add", args: [1, 1] } })).toMatchObject({
        status: "ok",
      })
    }, 60_000)

    test("nothing that a program changes reaches the next", async () => {
      const change = python
        ? "import builtins, json\nbuiltins.len = None\njson.left = 1\nopen('/tmp/left', 'w').write('x')"
        : "globalThis.left = 1; Array.prototype.left = 1; JSON.stringify = null"
      expect((await sandbox.run(change)).status).toBe("ok")
      const look = python
        ? "import os, json\ndef look(): return [len([1]), hasattr(json, 'left'), os.path.exists('/tmp/left')]"
        : "const look = () => [typeof left, [].left === undefined, JSON.stringify(1)]"
      const outcome = await sandbox.run(look, { call: { function: "look" } })
      expect(outcome).toMatchObject({ status: "ok", value: python ? [1, false, false] : ["undefined", true, "1"] })
    })

    test("a session keeps its program between calls", async () => {
      const code = python
        ? "n = 0\ndef count():\n    global n\n    n += 1\n    return n"
        : "let n = 0\nconst count = () => ++n"
      await using session = await sandbox.open(code)
      expect(session.opened.status).toBe("ok")
      for (const expected of [1, 2, 3])
        expect(await session.call({ function: "count" })).toMatchObject({ value: expected })
    })

    test("the time of all steps together has an end", async () => {
      await using short = createSandbox({ language, processes: 1, timeMs: 300, totalMs: 500 })
      const code = python
        ? "import time\ndef wait(): time.sleep(0.2)"
        : "const wait = () => { const t = Date.now(); while (Date.now() - t < 200); }"
      const { calls } = await short.runCalls(
        code,
        Array.from({ length: 6 }, () => ({ function: "wait" })),
      )
      expect(calls[0]!.status).toBe("ok")
      expect(calls.at(-1)!.status).toBe("timeout")
    }, 60_000)

    test("programs run at the same time, each in its process, and wait for one", async () => {
      await using both = createSandbox({ language, processes: 2, timeMs: 5000 })
      const outcomes = await Promise.all(
        Array.from({ length: 6 }, (_, i) => both.run(addition[language], { call: { function: "add", args: [i, i] } })),
      )
      expect(outcomes.map((o) => (o.status === "ok" ? o.value : o))).toEqual([0, 2, 4, 6, 8, 10])
    }, 60_000)

    test("a stopped run lets go of its program", async () => {
      const stop = new AbortController()
      const run = sandbox.run(python ? "while True: pass" : "for (;;);", { signal: stop.signal, timeMs: 60_000 })
      setTimeout(() => stop.abort(new Error("enough")), 100)
      expect(run).rejects.toThrow("enough")
      await run.catch(() => undefined)
      expect((await sandbox.run(addition[language])).status).toBe("ok")
    }, 60_000)
  })

describe("what Python cannot reach", () => {
  const sandbox = createSandbox({ language: "python", processes: 1, timeMs: 2000 })
  afterAll(() => sandbox[Symbol.asyncDispose]())
  // Without this line the modules are not even found.
  const again = "import sys\nfor k in [k for k, v in sys.modules.items() if v is None]: del sys.modules[k]\n"

  for (const [name, code] of Object.entries({
    "a command of the host": "import os\nos.system('id')",
    "foreign functions": `${again}import ctypes\nctypes.CDLL(None).system(b'id')`,
    "a JavaScript proxy": `${again}import _pyodide_core\n_pyodide_core.create_proxy(print).constructor`,
    "the end of the process": "import os\nos._exit(0)",
    sockets: `${again}import socket\nsocket.socket()`,
  }))
    test(name, async () => {
      expect((await sandbox.run(code)).status).toBe("forbidden")
    })

  test("the environment and the files of the host", async () => {
    process.env["SLOTH_SECRET_OF_A_TEST"] = "seen"
    const code =
      "import os\ndef look(): return [dict(os.environ), os.path.exists('/etc/passwd'), os.path.exists('/root')]"
    expect(await sandbox.run(code, { call: { function: "look" } })).toMatchObject({ value: [{}, false, false] })
    delete process.env["SLOTH_SECRET_OF_A_TEST"]
  })

  test("a locked call sees no global and keeps no state", async () => {
    const code = "cache = {}\ndef f(x, seen=[]):\n    seen.append(x)\n    return len(seen)\ndef g(): return cache"
    const { calls } = await sandbox.runCalls(code, [
      { function: "f", args: [1], locked: true },
      { function: "f", args: [2], locked: true },
      { function: "g", locked: true },
    ])
    expect(calls).toMatchObject([{ value: 1 }, { value: 1 }, { status: "error", name: "NameError" }])
  })
})

describe("mistakes of the user", () => {
  test("have codes", async () => {
    expect(() => createSandbox({ language: "ruby" as "python" })).toThrow(
      expect.objectContaining({ code: "SLOTH_SANDBOX_OPTION" }),
    )
    for (const option of [{ timeMs: 0 }, { memoryBytes: 5 }, { outputBytes: Number.NaN }, { processes: -1 }])
      expect(() => createSandbox({ language: "javascript", ...option })).toThrow(
        expect.objectContaining({ code: "SLOTH_SANDBOX_OPTION" }),
      )
    const closed = createSandbox({ language: "javascript" })
    await closed[Symbol.asyncDispose]()
    expect(closed.run("1")).rejects.toMatchObject({ code: "SLOTH_SANDBOX_CLOSED" })
    await using sandbox = createSandbox({ language: "javascript", processes: 1 })
    expect(sandbox.run("const f = 1", { call: { function: "f", locked: true } })).rejects.toMatchObject({
      code: "SLOTH_SANDBOX_OPTION",
    })
  })
})
