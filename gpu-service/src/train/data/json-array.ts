/** An element of a JSON array: its text and the line that it begins on, counted from 1. */
export interface ArrayElement {
  text: string;
  line: number;
}

const [QUOTE, BACKSLASH, COMMA, NEWLINE] = [34, 92, 44, 10];
const OPENING = new Set([91, 123]);
const CLOSING = new Set([93, 125]);
const CLOSING_BRACKET = 93;
const SPACE = new Set([32, 9, 10, 13]);

/**
 * Cuts the text of a JSON array into its elements without parsing them, so that what is wrong with one can be told by its
 * line. Malformed text gives elements too: the first that does not parse is where the array breaks.
 */
export function arrayElements(text: string): ArrayElement[] {
  const elements: ArrayElement[] = [];
  let line = 1;
  let start = text.indexOf("[") + 1;
  for (let i = 0; i < start; i++) if (text.charCodeAt(i) === NEWLINE) line++;
  let startLine: number | undefined;
  let depth = 0;
  let inString = false;
  for (let i = start; i <= text.length; i++) {
    const code = text.charCodeAt(i);
    const last = i === text.length || (!inString && depth === 0 && code === CLOSING_BRACKET);
    if (last || (!inString && depth === 0 && code === COMMA)) {
      const element = text.slice(start, i).trim();
      // `[]` has none, but what follows a comma is one even where it is missing.
      if (element !== "" || elements.length > 0 || !last) elements.push({ text: element, line: startLine ?? line });
      if (last) break;
      start = i + 1;
      startLine = undefined;
      continue;
    }
    if (startLine === undefined && !SPACE.has(code)) startLine = line;
    if (code === NEWLINE) line++;
    else if (inString) {
      if (code === BACKSLASH) i++;
      else if (code === QUOTE) inString = false;
    } else if (code === QUOTE) inString = true;
    else if (OPENING.has(code)) depth++;
    else if (CLOSING.has(code)) depth--;
  }
  return elements;
}
