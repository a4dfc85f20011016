export * from "./errors.ts"
export * from "./backend.ts"
