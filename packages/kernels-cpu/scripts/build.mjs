#!/usr/bin/env node
// Builds the native addon with a C++ compiler alone. Plain JavaScript, so that Node and Bun can run it at install time.
//
//   node scripts/build.mjs [--force] [--require] [--target <triple>] [--verbose]
//
// Objects are cached by content (source, the headers it includes, flags, compiler version) in build/objects, the addon in build/<hash>; build/manifest.json
// names the newest. Without a compiler it prints a warning and exits 0 (--require: exits 1): Sloth then runs on the TypeScript reference backend.
import { execFileSync, spawn, spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs"
import { createRequire } from "node:module"
import { availableParallelism } from "node:os"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..")
const native = join(root, "native")
const ADDON = "sloth_cpu.node"

/** Content hash of everything under native/, and of the part that the TypeScript side depends on. */
export function sourceHashes(directory = native) {
  const files = []
  const walk = (folder, prefix) => {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      if (entry.isDirectory()) walk(join(folder, entry.name), `${prefix}${entry.name}/`)
      else if (/\.(h|cpp)$/.test(entry.name)) files.push(`${prefix}${entry.name}`)
    }
  }
  walk(directory, "")
  files.sort()
  const all = createHash("sha256")
  const face = createHash("sha256")
  for (const file of files) {
    const text = readFileSync(join(directory, file))
    all.update(`${file}\0`).update(text)
    if (/^(binding|kernel)/.test(file)) face.update(`${file}\0`).update(text)
  }
  return { source: all.digest("hex").slice(0, 16), face: face.digest("hex").slice(0, 16) }
}

const COMMON = [
  "-O3",
  "-std=c++17",
  "-fPIC",
  "-fvisibility=hidden",
  "-pthread",
  "-fno-math-errno",
  "-fno-trapping-math",
  // A product and a sum are fused only where the source says so: results then differ less between instruction sets.
  "-ffp-contract=off",
  "-Wall",
]
const AVX512 = [
  "-mavx512f",
  "-mavx512bw",
  "-mavx512dq",
  "-mavx512vl",
  "-mfma",
  "-mf16c",
  "-mbmi2",
  "-mprfchw",
  "-mprefer-vector-width=512",
]
const X64_UNITS = {
  "isa_base.cpp": [],
  "isa_avx2.cpp": ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
  "isa_avx512.cpp": AVX512,
  "isa_avx512bf16.cpp": [...AVX512, "-mavx512bf16"],
  "isa_avx512vnni.cpp": [...AVX512, "-mavx512vnni"],
}
/** Units of instructions that older compilers lack; without one of them its precision is not offered. */
const OPTIONAL = { "isa_avx512bf16.cpp": "-mavx512bf16", "isa_avx512vnni.cpp": "-mavx512vnni" }
const ARM64_UNITS = { "isa_neon.cpp": [] }
const OTHER_UNITS = { "isa_base.cpp": [] }

/** Whether a compiler knows a flag. */
function understands(compiler, flag) {
  const args = [...compiler.args, flag, "-x", "c++", "-E", "-o", "/dev/null", "/dev/null"]
  return spawnSync(compiler.file, args, { stdio: "ignore" }).status === 0
}

function unitsFor(compiler) {
  const { machine } = compiler
  const isa = /^(x86_64|amd64)/.test(machine) ? X64_UNITS : /^(aarch64|arm64)/.test(machine) ? ARM64_UNITS : OTHER_UNITS
  const units = { "pool.cpp": [], "memory.cpp": [], "queue.cpp": [], "binding.cpp": [], "isa.cpp": [], ...isa }
  for (const [unit, flag] of Object.entries(OPTIONAL)) {
    if (units[unit] === undefined || understands(compiler, flag)) continue
    delete units[unit]
    units["isa.cpp"] = [...units["isa.cpp"], `-DSLOTH_WITHOUT_${flag.slice(2).toUpperCase()}`]
  }
  return units
}

function findCompiler(target) {
  const candidates = target
    ? [`${target}-g++`, `${target}-clang++`]
    : [process.env.CXX, "c++", "g++", "clang++"].filter(Boolean)
  const tried = []
  for (const command of candidates) {
    const [file, ...args] = command.split(/\s+/)
    try {
      const version = execFileSync(file, [...args, "--version"], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      })
      const machine = execFileSync(file, [...args, "-dumpmachine"], {
        encoding: "utf8",
        stdio: ["ignore", "pipe", "ignore"],
      }).trim()
      return { file, args, version: version.split("\n")[0], machine, tried }
    } catch (error) {
      tried.push(`${command} (${error.code ?? `exit ${error.status}`})`)
    }
  }
  return { file: undefined, args: [], version: "", machine: "", tried }
}

/** A source file and all headers of this package that it includes. */
function closure(file, seen = new Set()) {
  if (seen.has(file) || !existsSync(file)) return seen
  seen.add(file)
  for (const match of readFileSync(file, "utf8").matchAll(/^\s*#\s*include\s+"([^"]+)"/gm)) {
    const beside = join(dirname(file), match[1])
    closure(existsSync(beside) ? beside : join(native, match[1]), seen)
  }
  return seen
}

function run(command, args) {
  return new Promise((done, fail) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    child.stdout.on("data", (chunk) => (output += chunk))
    child.stderr.on("data", (chunk) => (output += chunk))
    child.on("error", fail)
    child.on("close", (code) =>
      code === 0 ? done(output) : fail(new Error(`${command} ${args.join(" ")}\n${output}`)),
    )
  })
}

/**
 * A weak function of an ISA unit that other units also have would run this unit's instructions on machines that lack them, once the linker has merged the two.
 * Names that hold the unit's own namespace cannot be merged.
 */
async function checkNoWeakSymbols(compiler, object, isa) {
  let listing
  try {
    listing = await run(compiler.file.replace(/(g\+\+|clang\+\+|c\+\+)(-[\d.]+)?$/, "nm"), ["-C", object])
  } catch {
    return // no nm beside the compiler: the check is made where there is one
  }
  const weak = listing.split("\n").filter((line) => /^[0-9a-f]+ [WVu] /.test(line) && !line.includes(`sloth::${isa}::`))
  if (weak.length > 0) throw new Error(`${object} has weak symbols:\n${weak.join("\n")}`)
}

async function compile(compiler, name, flags, headers, verbose) {
  const source = join(native, name)
  const args = [...compiler.args, ...COMMON, ...flags, `-I${native}`, `-I${headers}`]
  const hash = createHash("sha256")
    .update(compiler.version)
    .update(compiler.machine)
    .update([...COMMON, ...flags].join(" "))
  for (const file of [...closure(source)].sort())
    hash.update(`${file.slice(native.length)}\0`).update(readFileSync(file))
  const object = join(root, "build", "objects", `${name}-${hash.digest("hex").slice(0, 16)}.o`)
  if (existsSync(object)) return { object, built: false }
  const temporary = `${object}.${process.pid}.tmp`
  const start = Date.now()
  const output = await run(compiler.file, [...args, "-c", source, "-o", temporary])
  if (output.trim() !== "") console.warn(output.trim())
  const isa = /^isa_(\w+)\.cpp$/.exec(name)?.[1]
  if (isa !== undefined) await checkNoWeakSymbols(compiler, temporary, isa)
  renameSync(temporary, object)
  if (verbose) console.log(`  ${name} ${((Date.now() - start) / 1000).toFixed(1)} s`)
  return { object, built: true }
}

async function build({ target, force, verbose }) {
  if (process.platform === "win32") return { skipped: "the native backend is not built on Windows yet" }
  const compiler = findCompiler(target)
  if (compiler.file === undefined) return { skipped: `no C++ compiler was found (tried ${compiler.tried.join(", ")})` }
  let headers
  try {
    headers = createRequire(import.meta.url)("node-api-headers").include_dir
  } catch {
    return { skipped: "the package node-api-headers is not installed" }
  }
  const objects = join(root, "build", "objects")
  mkdirSync(objects, { recursive: true })
  const unlock = await lock(join(root, "build", "lock"))
  try {
    return await buildLocked({ target, force, verbose, compiler, headers, objects })
  } finally {
    unlock()
  }
}

/** One build at a time: an install may start several, and the second then finds everything made. A lock whose process is gone is taken over. */
async function lock(file) {
  for (;;) {
    try {
      writeFileSync(file, String(process.pid), { flag: "wx" })
      return () => rmSync(file, { force: true })
    } catch (error) {
      if (error.code !== "EEXIST") throw error
    }
    try {
      process.kill(Number(readFileSync(file, "utf8")), 0)
      await new Promise((done) => setTimeout(done, 200))
    } catch (error) {
      if (error.code === "ESRCH") rmSync(file, { force: true })
    }
  }
}

async function buildLocked({ target, force, verbose, compiler, headers, objects }) {
  if (force) for (const file of readdirSync(objects)) rmSync(join(objects, file))
  const start = Date.now()
  const units = Object.entries(unitsFor(compiler))
  const results = []
  // The large ISA units first, so that the two lanes end together.
  const waiting = units.sort(([a], [b]) => Number(b.startsWith("isa_")) - Number(a.startsWith("isa_")))
  const lane = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      results.push(await compile(compiler, next[0], next[1], headers, verbose))
    }
  }
  await Promise.all(Array.from({ length: Math.max(1, Math.min(4, availableParallelism())) }, lane))
  const linkFlags = /darwin/.test(compiler.machine)
    ? ["-dynamiclib", "-undefined", "dynamic_lookup"]
    : ["-shared", "-Wl,-O1", "-Wl,--gc-sections"]
  const hash = createHash("sha256")
  for (const path of results.map((r) => r.object).sort()) hash.update(path.slice(objects.length))
  const key = hash.update(linkFlags.join(" ")).digest("hex").slice(0, 16)
  const folder = join(root, "build", key)
  const addon = join(folder, ADDON)
  const linked = !existsSync(addon)
  if (linked) {
    mkdirSync(folder, { recursive: true })
    const temporary = `${addon}.${process.pid}.tmp`
    await run(compiler.file, [
      ...compiler.args,
      "-pthread",
      ...linkFlags,
      "-o",
      temporary,
      ...results.map((r) => r.object),
    ])
    renameSync(temporary, addon)
  }
  if (!target) {
    const manifest = {
      ...sourceHashes(),
      addon: `${key}/${ADDON}`,
      compiler: compiler.version,
      machine: compiler.machine,
    }
    const temporary = join(root, "build", `manifest.${process.pid}.tmp`)
    writeFileSync(temporary, `${JSON.stringify(manifest, null, 2)}\n`)
    renameSync(temporary, join(root, "build", "manifest.json"))
  }
  prune(objects, 64)
  pruneAddons(8)
  return {
    addon,
    compiler: compiler.version,
    seconds: (Date.now() - start) / 1000,
    compiled: results.filter((r) => r.built).length,
    linked,
  }
}

/** Keeps the newest objects only. */
function prune(folder, keep) {
  const files = readdirSync(folder).map((name) => ({
    path: join(folder, name),
    time: statSync(join(folder, name)).mtimeMs,
  }))
  for (const file of files.sort((a, b) => b.time - a.time).slice(keep)) rmSync(file.path, { force: true })
}

/** Keeps the newest addons only; a process that has one loaded keeps its file open. */
function pruneAddons(keep) {
  const addons = readdirSync(join(root, "build"))
    .map((name) => join(root, "build", name))
    .filter((folder) => existsSync(join(folder, ADDON)))
    .map((folder) => ({ folder, time: statSync(join(folder, ADDON)).mtimeMs }))
  for (const { folder } of addons.sort((a, b) => b.time - a.time).slice(keep))
    rmSync(folder, { recursive: true, force: true })
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(resolve(process.argv[1])).href) {
  const args = process.argv.slice(2)
  const value = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
  const required = args.includes("--require")
  try {
    const result = await build({
      target: value("--target"),
      force: args.includes("--force"),
      verbose: args.includes("--verbose"),
    })
    if (result.skipped !== undefined) {
      console.warn(
        `\n*** Sloth: the native CPU kernels were not built: ${result.skipped}.\n*** Training will run on the TypeScript reference backend, which is hundreds of times slower.\n*** Install a C++17 compiler (g++ or clang++) and run: node ${join(root, "scripts", "build.mjs")}\n`,
      )
      process.exitCode = required ? 1 : 0
    } else if (result.compiled > 0 || result.linked) {
      console.log(`sloth: CPU kernels built in ${result.seconds.toFixed(1)} s with ${result.compiler}`)
    } else {
      console.log("sloth: CPU kernels are up to date")
    }
    if (args.includes("--print")) console.log(result.addon ?? "")
  } catch (error) {
    console.error(
      `\n*** Sloth: building the native CPU kernels failed.\n${error.message}\n*** Training will run on the TypeScript reference backend, which is hundreds of times slower.\n`,
    )
    process.exitCode = required ? 1 : 0
  }
}
