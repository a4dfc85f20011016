export * from "./outcome.ts"
export * from "./sandbox.ts"
