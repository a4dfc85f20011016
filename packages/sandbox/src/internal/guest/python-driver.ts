/**
 * What runs inside Python around the program: reads a step from a file, runs it, writes the outcome to a file. Everything it uses is held in local names from
 * before the program; a program that reaches it all the same can only forge its own result, which is compared outside.
 */
export const PYTHON_DRIVER = `
def _sloth_make():
    import sys, io, json, builtins, random
    from copy import deepcopy
    from types import FunctionType as Function
    loads, dumps = json.loads, json.dumps
    read_file, write_file = builtins.open, builtins.open
    type_, len_, repr_, str_, min_, sorted_, isinstance_ = type, len, repr, str, min, sorted, isinstance
    out, err = sys.stdout, sys.stderr
    state = {"globals": None}

    def encode(v, deep=0):
        if deep > 200:
            raise RecursionError("the value is nested too deeply")
        t = type_(v)
        if v is None or t is bool or t is str:
            return v
        if t is int:
            return v if -9007199254740991 <= v <= 9007199254740991 else {"$int": str_(v)}
        if t is float:
            if v != v:
                return {"$float": "nan"}
            if v in (float("inf"), float("-inf")):
                return {"$float": "inf" if v > 0 else "-inf"}
            return v
        if t is list or t is tuple:
            return [encode(x, deep + 1) for x in v]
        if t is set or t is frozenset:
            parts = [encode(x, deep + 1) for x in v]
            return {"$set": sorted_(parts, key=lambda x: dumps(x, separators=(",", ":"), ensure_ascii=False))}
        if t is bytes or t is bytearray:
            return {"$bytes": v.hex()}
        if isinstance_(v, dict):
            if all(type_(k) is str for k in dict.keys(v)):
                return {k: encode(x, deep + 1) for k, x in dict.items(v)}
            return {"$map": [[encode(k, deep + 1), encode(x, deep + 1)] for k, x in dict.items(v)]}
        if isinstance_(v, (list, tuple)):
            return [encode(x, deep + 1) for x in list(v)]
        raise TypeError("a value of the type " + t.__name__ + " is no data")

    def decode(v):
        if type_(v) is list:
            return [decode(x) for x in v]
        if type_(v) is dict:
            if len_(v) == 1:
                (k, x), = v.items()
                if k == "$int":
                    return int(x)
                if k == "$float":
                    return float(x)
                if k == "$set":
                    return set(decode(y) for y in x)
                if k == "$map":
                    return {decode(a): decode(b) for a, b in x}
                if k == "$bytes":
                    return bytes.fromhex(x)
                if k == "$tuple":
                    return tuple(decode(y) for y in x)
            return {k: decode(x) for k, x in v.items()}
        return v

    def failure(e):
        name = type_(e).__name__
        try:
            message = str_(e)[:2000]
        except BaseException:
            message = ""
        status = "memory" if isinstance_(e, MemoryError) else "error"
        return {"status": status, "name": str_(name)[:200], "message": message}

    def step():
        with read_file("/tmp/.step", "r") as f:
            request = loads(f.read())
        try:
            if request["type"] == "open":
                random.seed(0)
                if request.get("stdin") is not None:
                    sys.stdin = io.StringIO(request["stdin"])
                else:
                    sys.stdin = io.StringIO("")
                scope = {"__name__": "__main__", "__builtins__": builtins}
                state["globals"] = scope
                try:
                    exec(compile(request["code"], "program.py", "exec"), scope)
                except SystemExit as e:
                    if e.code not in (None, 0):
                        raise
                result = {"status": "ok", "value": None}
            else:
                function = state["globals"].get(request["function"])
                if request.get("locked") and type_(function) is Function:
                    # Only its own code: no global it could have changed or filled, no state from the call before.
                    kept = {"__builtins__": builtins, "__name__": "__main__"}
                    function = Function(function.__code__, kept, function.__name__, deepcopy(function.__defaults__), function.__closure__ and tuple(function.__closure__))
                    kept[function.__name__] = function
                if not callable(function):
                    result = {"status": "error", "name": "NameError", "message": "the program defines no function \\"" + request["function"] + "\\""}
                else:
                    result = {"status": "ok", "value": encode(function(*decode(request["args"])))}
        except BaseException as e:
            result = failure(e)
        try:
            out.flush()
            err.flush()
            text = dumps(result, ensure_ascii=False, allow_nan=False)
        except BaseException as e:
            text = dumps(failure(e))
        with write_file("/tmp/.outcome", "w", encoding="utf-8", errors="surrogatepass") as f:
            f.write(text)
    return step

import sys as _sys, types as _types
_m = _types.ModuleType("_sloth")
_m.step = _sloth_make()
_sys.modules["_sloth"] = _m
del _sloth_make, _m, _types
# Common modules are in the image, so that importing them costs nothing.
import math, re, collections, itertools, functools, operator, heapq, bisect, string, random, datetime, typing, dataclasses, copy, statistics, fractions, decimal, abc, enum, time, os
del math, re, collections, itertools, functools, operator, heapq, bisect, string, random, datetime, typing, dataclasses, copy, statistics, fractions, decimal, abc, enum, time, os
`

/** Runs in every interpreter before a program: the ways to the JavaScript host that Python code knows by name. The gate closes them; this makes the errors plain. */
export const PYTHON_CLOSE = `
def _sloth_close():
    import sys
    for name in [n for n in sys.modules if n.split(".")[0] in ("js", "pyodide_js", "pyodide", "_pyodide", "_pyodide_core", "micropip", "jslib")]:
        sys.modules[name] = None
    for name in ("js", "pyodide_js", "pyodide", "_pyodide", "_pyodide_core", "micropip", "ctypes", "_ctypes", "pyodide.ffi", "pyodide.code", "subprocess", "multiprocessing", "socket", "_socket", "webbrowser"):
        sys.modules[name] = None
    sys.meta_path[:] = [f for f in sys.meta_path if "pyodide" not in getattr(type(f), "__module__", "") and "pyodide" not in getattr(f, "__module__", "")]
    import __main__
    for name in [n for n in vars(__main__) if not n.startswith("__")]:
        del vars(__main__)[name]
    import os
    os.environ.clear()
_sloth_close()
`
