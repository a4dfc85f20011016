#!/usr/bin/env node
// Starts the sloth command: under Bun from the TypeScript sources, under Node and Deno from the compiled files. In a checkout that was not built, Node hands over to Bun.
import { spawn } from "node:child_process"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"

const source = new URL("../src/bin.ts", import.meta.url)
const compiled = new URL("../dist/bin.js", import.meta.url)

if (process.versions.bun !== undefined && existsSync(source)) await import(source.href)
else if (existsSync(compiled)) await import(compiled.href)
else {
  const child = spawn("bun", [fileURLToPath(source), ...process.argv.slice(2)], { stdio: "inherit" })
  // The terminal sends Ctrl-C to both; what it means is for the command to say.
  for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => child.kill(signal))
  child.on("error", () => {
    process.stderr.write(
      "error SLOTH_CLI_NOT_BUILT: this checkout was not built and Bun is not installed.\n  next: npx bun run build\n",
    )
    process.exit(1)
  })
  child.on("close", (code, signal) => process.exit(code ?? (signal === "SIGINT" ? 130 : 1)))
}
