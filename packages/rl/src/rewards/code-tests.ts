import { SlothError } from "@sloth/core"
import type { Sandbox, SandboxValue } from "@sloth/sandbox"

/** One test of a program: a call and its value, or what it reads and what it prints. Expected values never enter the sandbox in which the program runs. */
export type CodeTest =
  | { readonly args: readonly SandboxValue[]; readonly expected: SandboxValue; readonly function?: string }
  | { readonly stdin: string; readonly stdout: string }

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Tests as a column holds them: a list of records, or texts of Python's `assert`. */
export type ReadTests =
  | { readonly kind: "cases"; readonly cases: readonly CodeTest[] }
  | { readonly kind: "asserts"; readonly text: string }

/**
 * Reads a tests column: a list of `{ args, expected }` (also `input` and `output`, where `input` is a list), of `{ stdin, stdout }` (also `input` and
 * `output` as texts), the JSON of one, `{ inputs: [...], outputs: [...] }`, or Python asserts as a text or a list of texts. Errors: SLOTH_REWARD_TESTS.
 */
export const readTests = (value: unknown): ReadTests => {
  let given = value
  if (typeof given === "string") {
    try {
      given = JSON.parse(given) as unknown
    } catch {
      return { kind: "asserts", text: value as string }
    }
  }
  if (isRecord(given) && Array.isArray(given["inputs"]) && Array.isArray(given["outputs"])) {
    const { inputs, outputs } = given as { inputs: unknown[]; outputs: unknown[] }
    given = inputs.map((input, i) => ({ input, output: outputs[i] }))
  }
  if (!Array.isArray(given) || given.length === 0) throw wrongTests("it is no list with something in it")
  if (given.every((test) => typeof test === "string")) return { kind: "asserts", text: given.join("\n") }
  return {
    kind: "cases",
    cases: given.map((test: unknown, i): CodeTest => {
      if (isRecord(test)) {
        const input = test["args"] ?? test["stdin"] ?? test["input"]
        const output = "expected" in test ? test["expected"] : "stdout" in test ? test["stdout"] : test["output"]
        const name = typeof test["function"] === "string" ? { function: test["function"] } : {}
        if (Array.isArray(input) && output !== undefined)
          return { args: input as SandboxValue[], expected: output as SandboxValue, ...name }
        if (typeof input === "string" && typeof output === "string") return { stdin: input, stdout: output }
      }
      throw wrongTests(`test ${i + 1} has neither a list of arguments and a value, nor what is read and printed`)
    }),
  }
}

const wrongTests = (why: string): SlothError =>
  new SlothError("SLOTH_REWARD_TESTS", {
    what: `The tests of a row cannot be read: ${why}.`,
    next: "Write them as [{ args: [...], expected: ... }], as [{ stdin, stdout }], or as Python asserts that compare a call with a value.",
    fields: { why },
  })

/** Takes asserts apart in an interpreter in which the program under test never runs, so that nothing it does to `assert` or `==` matters. */
const SPLIT = `
import ast
def split(text, name):
    cases, unread = [], 0
    tree = ast.parse(text)
    scope = {}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Assign)):
            try:
                exec(compile(ast.Module([node], []), "tests", "exec"), scope)
            except Exception:
                pass
    def value(node):
        return eval(compile(ast.Expression(node), "tests", "eval"), scope)
    def called(node):
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in (name, "candidate") if name else isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assert):
            continue
        test = node.test
        try:
            if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], (ast.Eq, ast.Is)):
                call, other = test.left, test.comparators[0]
                if not called(call):
                    call, other = other, call
                if not called(call) or call.keywords:
                    raise ValueError
                expected = value(other)
            elif called(test):
                call, expected = test, True
            elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not) and called(test.operand):
                call, expected = test.operand, False
            else:
                raise ValueError
            args = [marked(value(a)) for a in call.args]
            cases.append({"function": name or call.func.id, "args": args, "expected": expected})
        except Exception:
            unread += 1
    return {"cases": cases, "unread": unread}

def marked(v):
    # A tuple must arrive as a tuple again.
    if type(v) is tuple:
        return {"$tuple": [marked(x) for x in v]}
    if type(v) is list:
        return [marked(x) for x in v]
    if type(v) is dict and all(type(k) is str for k in v):
        return {k: marked(x) for k, x in v.items()}
    return v
`

/** Turns Python asserts that compare a call with a value into tests; `unread` counts those of another form. Errors: SLOTH_REWARD_TESTS for a text that is no Python. */
export const readAsserts = async (
  sandbox: Sandbox,
  text: string,
  entry: string | undefined,
): Promise<{ readonly cases: readonly CodeTest[]; readonly unread: number }> => {
  const outcome = await sandbox.run(SPLIT, { call: { function: "split", args: [text, entry ?? ""] }, timeMs: 10_000 })
  if (outcome.status === "ok") return outcome.value as unknown as { cases: CodeTest[]; unread: number }
  throw wrongTests(outcome.status === "error" ? `${outcome.name}: ${outcome.message}` : outcome.message)
}
