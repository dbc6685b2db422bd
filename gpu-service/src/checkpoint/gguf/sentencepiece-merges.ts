/**
 * The merge list of a SentencePiece BPE vocabulary, which stores scores instead: every way to join two pieces into a third
 * one, best score first; among equal scores, as Hugging Face's converter orders them.
 * @param skip pieces that take no part in merging, such as control tokens.
 */
export function sentencePieceMerges(
  pieces: readonly string[],
  scores: readonly number[],
  skip: ReadonlySet<number>,
): [left: string, right: string][] {
  const ids = new Map<string, number>();
  for (const [id, piece] of pieces.entries()) if (!skip.has(id)) ids.set(piece, id);
  const merges: { left: string; right: string; score: number; leftLength: number; rightLength: number }[] = [];
  for (const [piece, id] of ids) {
    const characters = Array.from(piece);
    const splits: { left: string; right: string; leftId: number; rightId: number; at: number }[] = [];
    let left = "";
    for (let at = 1; at < characters.length; at++) {
      left += characters[at - 1];
      const right = piece.slice(left.length);
      const leftId = ids.get(left);
      const rightId = ids.get(right);
      if (leftId !== undefined && rightId !== undefined) splits.push({ left, right, leftId, rightId, at });
    }
    splits.sort((a, b) => a.leftId - b.leftId || a.rightId - b.rightId);
    for (const { left, right, at } of splits) {
      merges.push({ left, right, score: scores[id] ?? 0, leftLength: at, rightLength: characters.length - at });
    }
  }
  merges.sort((a, b) => b.score - a.score || b.leftLength - a.leftLength || b.rightLength - a.rightLength);
  return merges.map(({ left, right }) => [left, right]);
}
