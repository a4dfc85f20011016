export * from "./arena-model.ts"
export * from "./backend.ts"
export * from "./cpu-info.ts"
export * from "./plugin.ts"
