// A subset of Markdown as elements: headings, lists, quotes, code, tables, emphasis, links.
//
// Every character that is shown is known by its place in the source, so that drafts can be tinted.
// What is no known form stays the text that it is: tags too, and images are never loaded.

import { el } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}(?:(?:- *){3,}|(?:\* *){3,}|(?:_ *){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}|$)/;
const CELLS = /^ {0,3}\|?(?: *:?-+:? *\|)+(?: *:?-+:? *)?$/;
const DEEPEST = 6; // quotes and lists within each other

/** A text on the page that grows: blocks that did not change keep their elements. */
export class MarkdownView {
	/** `mark(start, end)`: nodes for a range of the source, which is shown as it is. */
	constructor(root, mark) {
		this.root = root;
		this.mark = mark;
		this.shown = []; // start and end of each block
	}

	update(source) {
		const blocks = scan(source, linesOf(source), 0);
		const spans = blocks.map(({ lines }) => `${lines[0].start}-${lines.at(-1).end}`);
		let same = 0;
		while (same < spans.length && spans[same] === this.shown[same]) same += 1;
		while (this.root.childNodes.length > same) this.root.lastChild.remove();
		for (const block of blocks.slice(same)) this.root.append(this.element(block, source, 0));
		this.shown = spans;
	}

	reset() {
		this.root.replaceChildren();
		this.shown = [];
	}

	element(block, source, depth) {
		const text = (node, lines) => (node.append(...inline(source, lines, this.mark)), node);
		const inner = (node, lines) => {
			const blocks = scan(source, lines, depth + 1);
			if (blocks.length === 1 && blocks[0].type === "text") return text(node, blocks[0].lines);
			node.append(...blocks.map((kid) => this.element(kid, source, depth + 1)));
			return node;
		};
		switch (block.type) {
			case "code":
				return this.code(block);
			case "heading": // below the headings of the page itself
				return text(el(`h${Math.min(block.level + 3, 6)}`), block.body);
			case "rule":
				return el("hr");
			case "quote":
				return inner(el("blockquote"), block.body);
			case "list": {
				const list = block.first === null ? el("ul") : el("ol", { start: block.first });
				list.append(...block.items.map((item) => inner(el("li"), item)));
				return list;
			}
			case "table":
				return this.table(block, text);
		}
		return text(el("p"), block.lines);
	}

	code({ body }) {
		const code = el("code");
		for (const { start, end } of body) code.append(...this.mark(start, end), "\n");
		return el("pre", { tabindex: "0", role: "region", "aria-label": "Code" }, code);
	}

	table({ head, body }, text) {
		const row = (tag, cells) => el("tr", {}, ...cells.map((cell) => text(el(tag), [cell])));
		const rows = body.map((cells) => row("td", cells));
		const table = el("table", {}, el("thead", {}, row("th", head)), el("tbody", {}, ...rows));
		return el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" }, table);
	}
}

/** Lines as places in the source, without their ends. */
function linesOf(source) {
	const lines = [];
	for (let start = 0; start < source.length; ) {
		const found = source.indexOf("\n", start);
		const end = found < 0 ? source.length : found;
		lines.push({ start, end });
		start = end + 1;
	}
	return lines;
}

/** The blocks of some lines; each with all its lines, and its parts without their marks. */
function scan(source, lines, depth) {
	const blocks = [];
	const of = (line) => source.slice(line.start, line.end);
	const cut = (line, count) => ({ start: Math.min(line.start + count, line.end), end: line.end });
	const isBlank = (line) => !of(line).trim();
	for (let i = 0; i < lines.length; ) {
		const first = i;
		const line = of(lines[i]);
		let block;
		let match;
		if (!line.trim()) {
			i += 1;
			continue;
		} else if ((match = FENCE.exec(line))) {
			const close = new RegExp(`^ {0,3}${match[1][0]}{${match[1].length},} *$`);
			i += 1;
			while (i < lines.length && !close.test(of(lines[i]))) i += 1;
			block = { type: "code", body: lines.slice(first + 1, i) };
			i = Math.min(i + 1, lines.length);
		} else if ((match = HEADING.exec(line))) {
			block = { type: "heading", level: match[1].length, body: [cut(lines[i], match[0].length)] };
			i += 1;
		} else if (RULE.test(line)) {
			block = { type: "rule" };
			i += 1;
		} else if (depth < DEEPEST && QUOTE.test(line)) {
			while (i < lines.length && QUOTE.test(of(lines[i]))) i += 1;
			const quoted = lines.slice(first, i);
			const body = quoted.map((row) => cut(row, QUOTE.exec(of(row))[0].length));
			block = { type: "quote", body };
		} else if (depth < DEEPEST && (match = ITEM.exec(line))) {
			const items = [];
			const isNumbered = (mark) => /\d/.test(mark);
			const kind = isNumbered(match[2]);
			while (i < lines.length) {
				const mark = ITEM.exec(of(lines[i]));
				if (!mark || isNumbered(mark[2]) !== kind || RULE.test(of(lines[i]))) break;
				const width = mark[0].length;
				const item = [cut(lines[i], width)];
				for (i += 1; i < lines.length; i++) {
					if (isBlank(lines[i])) {
						const next = lines[i + 1];
						if (next && indent(of(next)) >= Math.min(width, 2)) item.push(lines[i]);
						else break;
					} else if (indent(of(lines[i])) >= Math.min(width, 2)) {
						item.push(cut(lines[i], Math.min(indent(of(lines[i])), width)));
					} else if (isBlank(lines[i - 1]) || starts(of(lines[i]))) break;
					else item.push(lines[i]);
				}
				items.push(item);
				while (i < lines.length - 1 && isBlank(lines[i]) && ITEM.test(of(lines[i + 1]))) i += 1;
			}
			block = { type: "list", first: kind ? Number.parseInt(match[2], 10) : null, items };
		} else if (line.includes("|") && lines[i + 1] && CELLS.test(of(lines[i + 1]))) {
			const head = cells(source, lines[i]);
			i += 2;
			while (i < lines.length && of(lines[i]).includes("|")) i += 1;
			const body = lines.slice(first + 2, i).map((row) => cells(source, row));
			block = { type: "table", head, body };
		} else {
			i += 1;
			while (i < lines.length && !isBlank(lines[i]) && !starts(of(lines[i]))) i += 1;
			block = { type: "text" };
		}
		blocks.push({ ...block, lines: lines.slice(first, i) });
	}
	return blocks;
}

const starts = (line) => [FENCE, HEADING, RULE, QUOTE, ITEM].some((form) => form.test(line));
const indent = (line) => line.length - line.trimStart().length;

function cells(source, { start, end }) {
	const found = [];
	let from = start;
	for (let at = start; at <= end; at++) {
		if (at < end && (source[at] !== "|" || source[at - 1] === "\\")) continue;
		const text = source.slice(from, at);
		const left = from + indent(text);
		if (text.trim() || (from > start && at < end)) found.push({ start: left, end: left + text.trim().length });
		from = at + 1;
	}
	return found;
}
