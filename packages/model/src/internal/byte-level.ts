/**
 * The printable stand-ins for bytes of byte-level BPE: bytes that are printable in Latin-1 stand for themselves, the others are moved up by 256.
 *
 * **Source**: GPT-2 `encoder.py`, `bytes_to_unicode`.
 */
export const byteToChar: readonly string[] = (() => {
  const printable = (b: number): boolean =>
    (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff)
  let moved = 0
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : 256 + moved++))
})()

const charToByte = new Map(byteToChar.map((c, b) => [c, b]))

const encoder = new TextEncoder()

/** Bytes a token of a byte-level vocabulary stands for; a token with a character outside the table stands for its own UTF-8. */
export const tokenBytes = (token: string): Uint8Array => {
  const bytes = new Uint8Array(token.length)
  for (let i = 0; i < token.length; i++) {
    const b = charToByte.get(token[i]!)
    if (b === undefined) return encoder.encode(token)
    bytes[i] = b
  }
  return bytes
}

/** UTF-8 length of a code point. */
export const utf8Length = (codePoint: number): number =>
  codePoint < 0x80 ? 1 : codePoint < 0x800 ? 2 : codePoint < 0x10000 ? 3 : 4
