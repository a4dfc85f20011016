/**
 * Up to `count` tokens that followed the last tokens of a text at their latest earlier occurrence: the longest run from `max` down to `min` tokens that occurs decides.
 * Source: prompt lookup decoding, Saxena 2023.
 */
export const lookupTokens = (text: readonly number[], count: number, min: number, max: number): number[] => {
  const { length } = text
  let best = -1
  let longest = min - 1
  // One way backwards; a later occurrence wins among equally long ones.
  for (let end = length - 1; end >= min && longest < max; end--) {
    let same = 0
    while (same < max && same < end && text[end - 1 - same] === text[length - 1 - same]) same++
    if (same > longest) {
      longest = same
      best = end
    }
  }
  if (best < 0 || count <= 0) return []
  // A match that overlaps the end goes on with the guesses themselves: a loop is followed round and round.
  const out: number[] = []
  for (let i = 0; i < count; i++) out.push(best + i < length ? text[best + i]! : out[best + i - length]!)
  return out
}
