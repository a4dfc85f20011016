import { expect, test } from "bun:test"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { withTables } from "../scripts/config-table.ts"

test("the tables of docs/train.md are those of the schema (bun packages/train/scripts/config-table.ts writes them)", () => {
  const text = readFileSync(join(import.meta.dirname, "..", "..", "..", "docs", "train.md"), "utf8")
  expect(withTables(text)).toBe(text)
})
