/**
 * Installs what Sloth is compared with, beside the project in `.cache/peers`: `llama` (node-llama-cpp with its prebuilt CPU library) and `python`
 * (torch, transformers, peft, trl in a virtual environment). Without words: both. Nothing in Sloth needs them.
 */
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const folder = join(import.meta.dirname, "../.cache/peers")
const words = process.argv.slice(2)
const wanted = (name: string) => words.length === 0 || words.includes(name)
const run = (command: string, args: readonly string[], cwd: string): void => {
  const r = spawnSync(command, args, { cwd, stdio: "inherit" })
  if (r.status !== 0) {
    console.error(`${command} ${args.join(" ")} failed`)
    process.exit(1)
  }
}

if (wanted("llama")) {
  const llama = join(folder, "llama")
  if (existsSync(join(llama, "node_modules/node-llama-cpp"))) console.log("node-llama-cpp is installed")
  else {
    mkdirSync(llama, { recursive: true })
    writeFileSync(join(llama, "package.json"), '{"name":"peers","private":true,"type":"module"}\n')
    const platform = `${process.platform === "darwin" ? "mac" : process.platform === "win32" ? "win" : "linux"}-${process.arch}`
    const library = process.platform === "darwin" && process.arch === "arm64" ? "mac-arm64-metal" : platform
    run(
      "npm",
      [
        "i",
        "--ignore-scripts",
        "--omit=optional",
        "--no-save",
        "node-llama-cpp@3.22.1",
        `@node-llama-cpp/${library}@3.22.1`,
      ],
      llama,
    )
  }
}
if (wanted("python")) {
  const python = join(folder, "python")
  if (existsSync(join(python, "bin/python"))) console.log("the Python environment is installed")
  else {
    mkdirSync(folder, { recursive: true })
    run("python3", ["-m", "venv", python], folder)
    run(
      join(python, "bin/pip"),
      ["install", "--quiet", "torch", "transformers", "peft", "trl", "gguf", "safetensors"],
      folder,
    )
  }
}
