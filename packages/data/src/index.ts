export { cachePath, CACHE_VERSION, readCache, writeCache } from "./cache.ts"
export type { CachedDataset, CacheLookup } from "./cache.ts"
export { CHATML_TEMPLATE, compileChatTemplate, renderChat } from "./chat-template.ts"
export type { ChatTemplate, RenderOptions } from "./chat-template.ts"
export { normaliseMessages } from "./conversation.ts"
export { openDataset } from "./dataset.ts"
export type { Dataset, DatasetOptions } from "./dataset.ts"
export { formatReport } from "./example.ts"
export type { DataReport, Example } from "./example.ts"
export { listValue } from "./list-value.ts"
export { epochOrder, splitHeldOut } from "./order.ts"
export type { HeldOutSplit } from "./order.ts"
export { packBestFit } from "./packing.ts"
export { prepareExamples } from "./prepare.ts"
export type { OverlongMode, Prepared, PrepareOptions } from "./prepare.ts"
export { previewExample } from "./preview.ts"
export type { PreviewPiece } from "./preview.ts"
export { builtinReaders, createReaderRegistry } from "./reader.ts"
export type { DatasetReader, ReaderRegistry, ReadRow } from "./reader.ts"
export { readRows } from "./read-rows.ts"
export type { ReadOptions } from "./read-rows.ts"
export { recognise } from "./recognise.ts"
export type { ColumnMapping, Recognition, RecogniseOptions, RowKind } from "./recognise.ts"
export { createResponseSpanFinder, responseSpans } from "./response-spans.ts"
export type { EndOfTurn, MaskMode, ResponseSpanFinder, ScoredText, SpanOptions, TextSpan } from "./response-spans.ts"
export { describeOrigin } from "./rows.ts"
export type {
  ChatMessage,
  CompletionRow,
  ConversationRow,
  DataRow,
  RowOrigin,
  SourceRow,
  TextRow,
  TokensRow,
} from "./rows.ts"
export { readLineBatches, readTextChunks, readTextFile } from "./text-file.ts"
