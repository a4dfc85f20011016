/**
 * Programs that hang, flood, break out or cheat instead of solving their task, which is a function `solve(a, b)`. Made from families with parameters, so that
 * closing one of a family does not pass for closing all.
 */
export interface HostileProgram {
  readonly family: string
  readonly name: string
  readonly code: string
}

type Family = readonly [name: string, programs: readonly string[]]

const each = <T>(values: readonly T[], make: (value: T) => string): string[] => values.map(make)
const pairs = <A, B>(a: readonly A[], b: readonly B[], make: (a: A, b: B) => string): string[] =>
  a.flatMap((x) => b.map((y) => make(x, y)))

/** Where in a program the harm is done: at once, or when its function is called. */
const pyWhere = ["top", "call"] as const
const pyAt = (where: "top" | "call", body: string): string =>
  where === "top"
    ? `${body}\n`
    : `def solve(a, b):\n${body
        .split("\n")
        .map((line) => `    ${line}`)
        .join("\n")}\n`
const jsAt = (where: "top" | "call", body: string): string =>
  where === "top" ? body : `function solve(a, b) {\n${body}\n}`

const python: readonly Family[] = [
  ["loop", pairs(pyWhere, ["while True: pass", "for _ in iter(int, 1): pass", "i = 0\nwhile i >= 0: i += 1"], pyAt)],
  [
    "loop that holds on",
    each(
      ["BaseException", "KeyboardInterrupt"],
      (error) => `while True:\n  try:\n    while True: pass\n  except ${error}: pass`,
    ),
  ],
  [
    "endless iterator",
    each(
      [
        "import itertools\nsum(itertools.count())",
        "import itertools\nmax(itertools.repeat(1))",
        "def g():\n  while True: yield 1\nsum(g())",
        "import collections, itertools\ncollections.deque(itertools.count(), maxlen=0)",
        "import itertools\nlist(itertools.cycle([1]))",
      ],
      (body) => body,
    ),
  ],
  ["large arithmetic", each(["9 ** 9 ** 9", "1 << (1 << 40)", "import math\nmath.factorial(10 ** 8)"], (body) => body)],
  ["sleep", each([10, 1e6], (s) => `import time\ntime.sleep(${s})`)],
  [
    "memory",
    pairs(
      pyWhere,
      [
        "x = []\nwhile True: x.append(bytearray(10 ** 7))",
        "x = [0] * 10 ** 9",
        "x = 'a'\nwhile True: x += x",
        "x = {}\nfor i in iter(lambda: len(x), -1): x[i] = [i] * 1000",
      ],
      pyAt,
    ),
  ],
  ["memory, caught", ["x = []\nwhile True:\n  try: x.append(bytearray(10 ** 7))\n  except MemoryError: pass"]],
  ["files in memory", each([10 ** 5, 10 ** 7], (n) => `f = open("/tmp/f", "wb")\nwhile True: f.write(b"x" * ${n})`)],
  [
    "many files",
    [
      "i = 0\nwhile True:\n  open(f'/tmp/{i}', 'w').close()\n  i += 1",
      "import os\nos.truncate(open('/tmp/t', 'w').fileno(), 2 ** 40)",
    ],
  ],
  [
    "output flood",
    pairs(
      pyWhere,
      [
        "while True: print('x' * 100)",
        "import sys\nsys.stdout.write('x' * 10 ** 7)",
        "import os\nwhile True: os.write(1, b'x' * 1000)",
        "import sys\nwhile True: print('x' * 1000, file=sys.stderr)",
      ],
      pyAt,
    ),
  ],
  [
    "large value",
    [
      "def solve(a, b): return 'x' * 10 ** 7",
      "def solve(a, b): return list(range(10 ** 6))",
      "def solve(a, b):\n  x = []\n  x.append(x)\n  return x",
    ],
  ],
  [
    "deep recursion",
    each(
      [
        "def f(): f()\nf()",
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
        "x = []\nfor _ in range(10 ** 5): x = [x]\nrepr(x)",
        "eval('(' * 10 ** 5)",
        "class A:\n  def __getattr__(self, n): return getattr(self, n + 'x')\nA().y",
      ],
      (body) => body,
    ),
  ],
  [
    "expression that backtracks",
    each(["(a+)+$", "(a|aa)+$", "(a|a?)+$"], (re) => `import re\nre.match("${re}", "a" * 50 + "b")`),
  ],
  [
    "exit",
    pairs(
      pyWhere,
      ["import sys\nsys.exit(0)", "raise SystemExit", "import os\nos._exit(0)", "quit()", "import os\nos.abort()"],
      pyAt,
    ),
  ],
  [
    "signals",
    [
      "import signal, os\nos.kill(os.getpid(), signal.SIGKILL)",
      "import signal\nsignal.raise_signal(signal.SIGSEGV)",
      "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
      "import faulthandler\nfaulthandler._sigsegv()",
    ],
  ],
  [
    "processes",
    each(
      [
        "os.fork()",
        "os.system('id')",
        "os.popen('id').read()",
        "os.execv('/bin/sh', ['sh'])",
        "os.posix_spawn('/bin/sh', ['sh'], {})",
        "os.spawnl(0, '/bin/sh', 'sh')",
      ],
      (call) => `import os\ndef solve(a, b): return ${call}`,
    ),
  ],
  [
    "subprocess",
    each(
      [
        "subprocess.run(['id'])",
        "subprocess.Popen('id', shell=True)",
        "subprocess.check_output(['cat', '/etc/passwd'])",
      ],
      (call) => `import subprocess\n${call}`,
    ),
  ],
  [
    "threads",
    [
      "import threading\nwhile True: threading.Thread(target=lambda: None).start()",
      "import multiprocessing\nmultiprocessing.Process(target=print).start()",
      "import concurrent.futures as c\nc.ProcessPoolExecutor().submit(print)",
      "import asyncio\nasync def f():\n  while True: await asyncio.sleep(0)\nasyncio.run(f())",
    ],
  ],
  [
    "host files",
    each(
      ["/etc/passwd", "/proc/self/environ", "/root/.ssh/id_rsa", "../../../../etc/hosts", "/proc/1/cmdline"],
      (path) => `def solve(a, b): return open("${path}").read()`,
    ),
  ],
  [
    "writing files",
    each(["/etc/cron.d/x", "/usr/bin/x", "/home/x"], (path) => `open("${path}", "w").write("x")\nraise ValueError`),
  ],
  [
    "walking files",
    [
      "import os\ndef solve(a, b): return [f for f in os.walk('/')]",
      "import glob\ndef solve(a, b): return glob.glob('/**/*.ts', recursive=True)",
      "import shutil\nshutil.rmtree('/')",
    ],
  ],
  [
    "the interpreter's own files",
    [
      "import os\nfor f in os.listdir('/tmp'): os.remove('/tmp/' + f)",
      "open('/tmp/.step', 'w').write('{}')",
      "open('/tmp/.outcome', 'w').write('{\"status\": \"ok\", \"value\": 1}')\nraise SystemExit(1)",
    ],
  ],
  [
    "environment",
    each(
      ["os.environ", "dict(os.environ)", "os.getenv('HOME')", "os.environ['PATH']"],
      (x) => `import os\ndef solve(a, b): return ${x}`,
    ),
  ],
  [
    "network",
    each(
      [
        "import socket\nsocket.create_connection(('1.1.1.1', 80))",
        "import urllib.request\nurllib.request.urlopen('http://localhost')",
        "import http.client\nhttp.client.HTTPConnection('localhost').request('GET', '/')",
        "import sys\nsys.modules.pop('_socket', None)\nsys.modules.pop('socket', None)\nimport socket\nsocket.socket().connect(('127.0.0.1', 22))",
      ],
      (body) => body,
    ),
  ],
  [
    "javascript host",
    [
      ...each(
        [
          "js",
          "pyodide_js",
          "micropip",
          "pyodide.http",
          "pyodide.code",
          "pyodide.ffi",
          "_pyodide_core",
          "_pyodide._core_docs",
        ],
        (name) =>
          `import sys\nfor k in [k for k, v in sys.modules.items() if v is None]: del sys.modules[k]\nimport ${name} as m\nm.eval("process.exit()")`,
      ),
      "import sys\nfor k in [k for k, v in sys.modules.items() if v is None]: del sys.modules[k]\nimport _pyodide_core as c\nc.create_proxy(print).constructor.constructor('return process')().exit()",
      "import gc\nfor o in gc.get_objects():\n  if 'JsProxy' in str(type(o)):\n    o.constructor.constructor('return process')().exit()\nraise ValueError",
      "import gc\nfor o in gc.get_objects():\n  if type(o).__name__ == 'builtin_function_or_method' and o.__name__ in ('create_proxy', 'to_js', 'run_js', 'create_once_callable'):\n    o(print).constructor\nraise ValueError",
      "for c in object.__subclasses__():\n  if 'Js' in c.__name__: c()\nraise ValueError",
    ],
  ],
  [
    "ctypes",
    each(
      [
        "ctypes.CDLL(None).system(b'id')",
        "ctypes.string_at(0, 100)",
        "ctypes.memset(0, 255, 10 ** 7)",
        "ctypes.pythonapi.Py_Exit(0)",
        "ctypes.cast(id(1), ctypes.POINTER(ctypes.c_int))[6] = 7",
      ],
      (call) =>
        `import sys\nfor k in [k for k, v in sys.modules.items() if v is None]: del sys.modules[k]\nimport ctypes\n${call}\nraise ValueError`,
    ),
  ],
  [
    "builtin modules again",
    each(
      ["_ctypes", "_posixsubprocess", "_socket", "posix"],
      (name) =>
        `import _imp, importlib.machinery as m\nx = _imp.create_builtin(m.ModuleSpec("${name}", None))\n_imp.exec_builtin(x)\nx.system("id") if hasattr(x, "system") else x.dlopen(None, 0) if hasattr(x, "dlopen") else x.socket()\n`,
    ),
  ],
  [
    "pickle",
    each(
      ["os.system", "os._exit", "builtins.exec"],
      (f) =>
        `import pickle, os, builtins\nclass A:\n  def __reduce__(self): return (${f}, (${f === "os._exit" ? "0" : '"while True: pass"'},))\npickle.loads(pickle.dumps(A()))\nraise ValueError`,
    ),
  ],
  [
    "import tricks",
    each(
      [
        "__import__('os').system('id')",
        "__builtins__['__import__']('os').fork()",
        "().__class__.__base__.__subclasses__()[-1].__init__.__globals__['sys'].exit()",
        "(lambda: 0).__globals__['__builtins__'].exec('import os; os.abort()')",
        "getattr(__import__('o' + 's'), 'sys' + 'tem')('id')",
      ],
      (call) => `def solve(a, b): return ${call}`,
    ),
  ],
  [
    "bytecode",
    [
      "def solve(a, b): pass\nsolve.__code__ = solve.__code__.replace(co_code=b'\\x64\\xff' * 50)\nsolve(1, 2)",
      "import types\ntypes.CodeType(0, 0, 0, 0, 0, 0, b'\\xff' * 8, (), (), (), '', '', '', 0, b'', b'')",
    ],
  ],
  [
    "equal to everything",
    [
      "class E:\n  def __eq__(self, o): return True\n  def __hash__(self): return 0\ndef solve(a, b): return E()",
      "class E(int):\n  def __eq__(self, o): return True\ndef solve(a, b): return E(1)",
      "class E(float):\n  def __sub__(self, o): return 0.0\n  __rsub__ = __sub__\ndef solve(a, b): return E('nan')",
      "class E(list):\n  def __eq__(self, o): return True\ndef solve(a, b): return E()",
      "class E(dict):\n  def __eq__(self, o): return True\ndef solve(a, b): return E()",
      "class E(str):\n  def __eq__(self, o): return True\ndef solve(a, b): return E('')",
    ],
  ],
  [
    "changed built-ins",
    [
      ...each(
        ["all", "any", "len", "isinstance", "type", "print", "repr", "str", "open", "callable"],
        (name) => `import builtins\nbuiltins.${name} = lambda *a, **k: True\ndef solve(a, b): return None`,
      ),
      'import json\njson.dumps = lambda *a, **k: \'{"status": "ok", "value": true}\'\ndef solve(a, b): return None',
      "import json\njson.loads = lambda *a, **k: 1\ndef solve(a, b): return None",
      "import sys\nsys.modules['json'] = None\nsys.modules['_sloth'] = None\ndef solve(a, b): return None",
      "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef solve(a, b): return None",
      "import _sloth\n_sloth.step = lambda: None\ndef solve(a, b): return None",
      "import time\ntime.time = time.perf_counter = lambda: 0\ndef solve(a, b): return 0",
    ],
  ],
  [
    "the stack above",
    [
      "import sys\ndef solve(a, b):\n  f = sys._getframe()\n  while f: r = f.f_locals.get('request') or 0; f = f.f_back\n  return r.get('expected')",
      "import sys\ndef solve(a, b): return [dict(f) for f in [sys._getframe(1).f_locals]][0].get('expected')",
      "import gc\ndef solve(a, b): return [o for o in gc.get_objects() if isinstance(o, dict) and 'expected' in o][0]['expected']",
      "import inspect\ndef solve(a, b): return inspect.stack()[1].frame.f_globals['expected']",
      "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: 1 / 0)\ndef solve(a, b): return None",
    ],
  ],
  [
    "fixed answers",
    each(["0", "1", "None", "a", "b", "True", "a + b", "[a, b]", "'42'"], (x) => `def solve(a, b): return ${x}`),
  ],
  [
    "no function",
    [
      "solve = 3",
      "",
      "def solve(): return 1",
      "def solve(a, b, c): return 1",
      "class solve:\n  def __init__(self, a, b): pass",
      "this is no python",
    ],
  ],
]

const javascript: readonly Family[] = [
  ["loop", pairs(pyWhere, ["for (;;);", "while (true) {}", "let i = 0; while (i >= 0) i++", "do {} while (1)"], jsAt)],
  [
    "loop that holds on",
    ["for (;;) { try { for (;;); } catch {} }", "for (;;) { try { for (;;); } finally { continue } }"],
  ],
  [
    "endless iterator",
    [
      "function* g() { for (;;) yield 1 }\n[...g()]",
      "const o = { [Symbol.iterator]: () => ({ next: () => ({ done: false, value: 1 }) }) }\nMath.max(...o)",
      "new Set((function* () { let i = 0; for (;;) yield i++ })())",
    ],
  ],
  ["large arithmetic", each(["10n ** 10n ** 8n", "1n << (1n << 40n)", "9n ** (9n ** 9n)"], (x) => x)],
  [
    "memory",
    pairs(
      pyWhere,
      [
        "const x = []; for (;;) x.push(new Uint8Array(1e7))",
        "let s = 'a'; for (;;) s += s",
        "'a'.repeat(2 ** 30).split('')",
        "const x = []; for (;;) x.push({ x: [1, 2, 3] })",
        "new ArrayBuffer(2 ** 33)",
      ],
      jsAt,
    ),
  ],
  ["memory, caught", ["const x = []; for (;;) { try { x.push(new Uint8Array(1e6)) } catch {} }"]],
  [
    "output flood",
    pairs(
      pyWhere,
      [
        "for (;;) console.log('x'.repeat(100))",
        "console.log('x'.repeat(1e6))",
        "for (;;) print('x')",
        "for (;;) { try { console.error('xxxxxxxxxx') } catch {} }",
      ],
      jsAt,
    ),
  ],
  [
    "large value",
    [
      "const solve = () => 'x'.repeat(1e7)",
      "const solve = () => new Array(1e6).fill(1)",
      "const solve = () => { const x = []; x.push(x); return x }",
      "const solve = () => new Proxy([], { get: (t, k) => (k === 'length' ? 1e12 : 1) })",
    ],
  ],
  [
    "deep recursion",
    [
      "function f() { return f() + 1 }\nf()",
      "let x = []; for (let i = 0; i < 1e6; i++) x = [x]\nJSON.stringify(x)",
      "eval('('.repeat(1e5))",
      "const o = { get a() { return this.a } }\no.a",
      "JSON.parse('['.repeat(1e6))",
      "const p = new Proxy({}, { get: (t, k, r) => r[k] })\np.x",
    ],
  ],
  [
    "expression that backtracks",
    each(
      ["^(a+)+$", "^(a|aa)+$", "^(a|a?)+$", "^(([a-z])+.)+[A-Z]([a-z])+$"],
      (re) => `/${re}/.test("a".repeat(60) + "!")`,
    ),
  ],
  [
    "promise flood",
    [
      "const p = () => { Promise.resolve().then(p); Promise.resolve().then(p) }\np()\nfunction solve() { return Promise.resolve().then(() => new Promise(() => {})) }",
      "async function solve() { for (;;) await null }",
      "async function solve() { await new Promise(() => {}) }",
      "const solve = () => ({ then(r) { this.then(r) } })",
      "async function f() { await Promise.all([f(), f()]) }\nconst solve = f",
    ],
  ],
  [
    "host",
    each(
      [
        "process.exit(0)",
        "require('fs').readFileSync('/etc/passwd')",
        "Bun.file('/etc/passwd').text()",
        "Deno.readTextFileSync('/etc/passwd')",
        "globalThis.process.env",
        "fetch('http://localhost')",
        "new WebSocket('ws://localhost')",
        "new XMLHttpRequest()",
        "new Worker('x')",
        "setTimeout(solve, 1)",
        "std.exec(['id'])",
        "os.exec(['id'])",
        "import('node:fs')",
        "import('os').then((m) => m.exec(['id']))",
        "importScripts('x')",
        "WebAssembly.instantiate(new Uint8Array(8))",
        "structuredClone(globalThis)",
        "navigator.sendBeacon('x')",
      ],
      (call) => `function solve(a, b) { return ${call} }`,
    ),
  ],
  [
    "module",
    each(
      ["node:fs", "fs", "std", "os", "bun:ffi", "https://example.com/x.js"],
      (name) => `import * as m from "${name}"\nexport const solve = () => m.readFileSync("/etc/passwd")`,
    ),
  ],
  [
    "out of the realm",
    each(
      [
        "this.constructor.constructor('return process')()",
        "console.log.constructor('return process')()",
        "(async () => {}).constructor('return process')()",
        "Function('return globalThis.process.env')()",
        "(0, eval)('process')",
        "new Error().constructor.prepareStackTrace()",
        "console.log.caller.arguments",
        "Reflect.ownKeys(globalThis).map((k) => globalThis[k]).find((v) => v && v.pid).pid",
      ],
      (call) => `function solve(a, b) { return ${call} }`,
    ),
  ],
  [
    "prototype pollution",
    [
      "Object.prototype.polluted = 1\nfunction solve() { return {} }",
      'function solve() { return JSON.parse(\'{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}}\') }',
      "Array.prototype.map = Array.prototype.every = () => true\nfunction solve() { return [] }",
      "Object.defineProperty(Object.prototype, 'expected', { get() { return this } })\nfunction solve() { return null }",
      "function solve() { const o = {}; o['__proto__'] = { polluted: 1 }; Object.setPrototypeOf(Object.prototype, null); return o }",
      "Object.freeze(Array.prototype); Object.freeze(Object.prototype)\nfunction solve() { return [1] }",
    ],
  ],
  [
    "changed built-ins",
    [
      "JSON.stringify = () => '42'\nfunction solve() { return null }",
      "Number.isFinite = Array.isArray = () => true\nfunction solve() { return null }",
      "Object.prototype.toJSON = () => 1\nfunction solve() { return {} }",
      "Date.now = () => 0; Math.random = () => 0\nfunction solve() { return 0 }",
      "Object.is = () => true\nfunction solve() { return NaN }",
      "Reflect.apply = () => 1; Function.prototype.call = Function.prototype.apply = () => 1\nfunction solve() { return undefined }",
      "Promise.prototype.then = function (f) { for (;;) f(1) }\nasync function solve() { return 1 }",
      "Symbol.iterator.constructor.prototype[Symbol.toPrimitive] = 1\nfunction solve() { return Symbol() }",
    ],
  ],
  [
    "equal to everything",
    [
      "function solve() { return { valueOf: () => 1, toString: () => '1', toJSON: () => 1 } }",
      "function solve() { return { [Symbol.toPrimitive]: () => 1 } }",
      "function solve() { return new Proxy({}, { get: () => 1, ownKeys: () => ['a', 'b'], getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true, value: 1 }) }) }",
      "function solve() { return new Number(1) }",
    ],
  ],
  [
    "exceptions",
    [
      "throw { get message() { for (;;); } }",
      "function solve() { throw null }",
      "function solve() { throw new Proxy({}, { get() { throw 1 } }) }",
      "throw new Error('x'.repeat(1e6))",
      "class E extends Error { get name() { throw this } }\nthrow new E()",
    ],
  ],
  [
    "the caller",
    [
      "function solve() { return arguments.callee.caller.arguments[0] }",
      "function solve() { return new Error().stack }",
      "const solve = new Proxy(() => 0, { apply: (t, s, args) => args[2] })",
    ],
  ],
  [
    "fixed answers",
    each(
      ["0", "1", "null", "undefined", "NaN", "a", "b", "a + b", "[a, b]", "'42'"],
      (x) => `const solve = (a, b) => ${x}`,
    ),
  ],
  ["no function", ["const solve = 3", "", "this is no javascript", "class solve {}"]],
]

const list = (families: readonly Family[]): readonly HostileProgram[] =>
  families.flatMap(([family, programs]) => programs.map((code, i) => ({ family, name: `${family} ${i + 1}`, code })))

/** Hostile programs by language. */
export const hostilePrograms = { python: list(python), javascript: list(javascript) } as const
