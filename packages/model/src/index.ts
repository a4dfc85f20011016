export * from "./tokenizer.ts"
