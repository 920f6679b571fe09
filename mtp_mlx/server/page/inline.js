// Emphasis, code and links within lines, as nodes; each character keeps its place in the source.

import { el } from "./dom.js";

const TAGS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };
const LINK = /^\[([^[\]\n]*)\]\((https?:\/\/[^\s()<>]+)\)/;
const MARKS = "\\`*_~[!";
const DEEPEST = 6;

/** `lines`: ranges of the source; `mark(start, end)` gives the nodes of a range that is shown. */
export function inline(source, lines, mark) {
  const { text, at } = joined(source, lines);
  return walk(text, 0, text.length, 0);

  function walk(text, from, to, depth) {
    const nodes = [];
    const dead = new Set(); // marks that nothing closes from here on
    let shown = from;
    const flush = (end) => nodes.push(...ranges(at, shown, end).flatMap(([a, b]) => mark(a, b)));
    const wrap = (node, start, inner, end) => {
      flush(start);
      node.append(...inner);
      nodes.push(node);
      shown = end;
      return end;
    };
    for (let i = from; i < to; ) {
      if (!MARKS.includes(text[i])) {
        i += 1;
      } else if (text[i] === "\\" && i + 1 < to && /[!-/:-@[-`{-~]/.test(text[i + 1])) {
        flush(i);
        shown = i + 1;
        i += 2;
      } else if (text[i] === "`") {
        const ticks = run(text, i, to, "`");
        const close = dead.has(ticks) ? -1 : closing(text, i + ticks, to, ticks);
        if (close < 0) {
          dead.add(ticks);
          i += ticks;
        } else {
          const inner = ranges(at, i + ticks, close).flatMap(([a, b]) => mark(a, b));
          i = wrap(el("code"), i, inner, close + ticks);
        }
      } else if (text[i] === "!" && LINK.test(text.slice(i + 1, Math.min(to, i + 2000)))) {
        i += 1 + LINK.exec(text.slice(i + 1, to))[0].length; // an image stays text
      } else if (text[i] === "[") {
        const link = LINK.exec(text.slice(i, Math.min(to, i + 2000)));
        if (link) {
          const rel = "noopener noreferrer nofollow";
          const node = el("a", { href: link[2], rel, target: "_blank", title: link[2] });
          const inner = depth < DEEPEST ? walk(text, i + 1, i + 1 + link[1].length, DEEPEST) : [];
          i = wrap(node, i, inner, i + link[0].length);
        } else i += 1;
      } else {
        const form = TAGS[text.slice(i, i + 2)] ? text.slice(i, i + 2) : text[i];
        const close = dead.has(form) || depth >= DEEPEST ? -1 : partner(text, i, to, form);
        if (close < 0) {
          dead.add(TAGS[form] && opens(text, i, form) ? form : "");
          i += form.length;
        } else {
          const inner = walk(text, i + form.length, close, depth + 1);
          i = wrap(el(TAGS[form]), i, inner, close + form.length);
        }
      }
    }
    flush(to);
    return nodes;
  }
}

/** The text of some lines, and where each of its characters stands in the source. */
function joined(source, lines) {
  let text = "";
  const at = [];
  lines.forEach(({ start, end }, row) => {
    if (row) {
      text += "\n";
      at.push(lines[row - 1].end);
    }
    text += source.slice(start, end);
    for (let place = start; place < end; place++) at.push(place);
  });
  return { text, at };
}

/** Characters from..to as ranges of the source without a gap. */
function ranges(at, from, to) {
  const found = [];
  for (let i = from; i < to; i++) {
    if (found.length && found.at(-1)[1] === at[i]) found.at(-1)[1] += 1;
    else found.push([at[i], at[i] + 1]);
  }
  return found;
}

function run(text, i, to, char) {
  let count = 0;
  while (i + count < to && text[i + count] === char) count += 1;
  return count;
}

function closing(text, i, to, ticks) {
  while (i < to) {
    const found = text.indexOf("`", i);
    if (found < 0 || found >= to) return -1;
    const count = run(text, found, to, "`");
    if (count === ticks) return found;
    i = found + count;
  }
  return -1;
}

const isWord = (char) => char !== undefined && /[\p{L}\p{N}]/u.test(char);

function opens(text, i, form) {
  const next = text[i + form.length];
  if (next === undefined || /\s/.test(next)) return false;
  return form[0] !== "_" || !isWord(text[i - 1]);
}

/** Where the mark that opens at `i` is closed, or -1. */
function partner(text, i, to, form) {
  if (!TAGS[form] || !opens(text, i, form)) return -1;
  for (let end = i + form.length + 1; end + form.length <= to; end++) {
    if (!text.startsWith(form, end) || /[\s\\]/.test(text[end - 1])) continue;
    const after = text[end + form.length];
    if (form.length === 1 && after === form) end += 1; // part of a longer mark
    else if (form[0] !== "_" || !isWord(after)) return end;
  }
  return -1;
}
