export * from "./config.ts"
export * from "./family.ts"
