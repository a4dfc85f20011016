#!/usr/bin/env node
// Starts the sloth command: under Bun from the TypeScript sources, under Node and Deno from the compiled files. In a checkout, where compiled files may be
// older than the sources or absent, Node hands over to Bun if there is one.
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"

const source = new URL("../src/bin.ts", import.meta.url)
const compiled = new URL("../dist/bin.js", import.meta.url)
// This file is in the repository and not in the published package.
const isCheckout = existsSync(new URL("../tsconfig.json", import.meta.url))

const runCompiled = async () => {
  if (existsSync(compiled)) return void (await import(compiled.href))
  process.stderr.write(
    "error SLOTH_CLI_NOT_BUILT: This checkout was not built and Bun is not installed.\n  next: npx -y bun@1.4.5 run build\n",
  )
  process.exitCode = 1
}

if (process.versions.bun !== undefined && existsSync(source)) await import(source.href)
else if (!isCheckout) await runCompiled()
else {
  const child = spawn("bun", [fileURLToPath(source), ...process.argv.slice(2)], { stdio: "inherit" })
  // The terminal sends Ctrl-C to both; what it means is for the command to say.
  const ignore = () => undefined
  process.on("SIGINT", ignore)
  process.on("SIGTERM", () => child.kill("SIGTERM"))
  child.on("error", () => {
    process.off("SIGINT", ignore)
    void runCompiled()
  })
  child.on("close", (code, signal) => {
    if (code !== null || signal !== null) process.exitCode = code ?? 1
  })
}
