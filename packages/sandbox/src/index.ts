export * from "./outcome.ts"
export * from "./sandbox.ts"
export * from "./wall.ts"
