// A subset of Markdown as elements: headings, lists, quotes, code, tables, emphasis, links.
//
// Every character that is shown is known by its place in the source, so that drafts can be tinted.
// What is no known form stays the text that it is: tags too, and images are never loaded.

import { el } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])(?: *\1){2,} *$/;
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
		return el("pre", { tabindex: "0" }, code);
	}

	table({ head, body }, text) {
		const row = (tag, cells) => el("tr", {}, ...cells.map((cell) => text(el(tag), [cell])));
		const rows = body.map((cells) => row("td", cells));
		const table = el("table", {}, el("thead", {}, row("th", head)), el("tbody", {}, ...rows));
		return el("div", { class: "wide", tabindex: "0" }, table);
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
	const texts = lines.map(({ start, end }) => source.slice(start, end));
	const cut = (i, count) => ({ start: lines[i].start + Math.min(count, texts[i].length), end: lines[i].end });
	const isBlank = (i) => !texts[i].trim();
	const blocks = [];
	let i = 0;
	/** Goes on while `test(i)` holds. */
	const pass = (test) => {
		while (i < lines.length && test(i)) i += 1;
	};

	/** The lines of the item of a list that begins here. */
	const item = (width) => {
		const found = [cut(i, width)];
		const least = Math.min(width, 2);
		for (i += 1; i < lines.length; i++) {
			const isWithin = indent(texts[i]) >= least && !isBlank(i);
			const goesOn = i + 1 < lines.length && indent(texts[i + 1]) >= least;
			if (isBlank(i) ? !goesOn : !isWithin && (isBlank(i - 1) || starts(texts[i]))) break;
			found.push(cut(i, Math.min(indent(texts[i]), width)));
		}
		return found;
	};

	const block = (first, line) => {
		let match;
		if ((match = FENCE.exec(line))) {
			const close = new RegExp(`^ {0,3}${match[1][0]}{${match[1].length},} *$`);
			pass((row) => row === first || !close.test(texts[row]));
			i += 1;
			return { type: "code", body: lines.slice(first + 1, i - 1) };
		}
		if ((match = HEADING.exec(line))) {
			i += 1;
			return { type: "heading", level: match[1].length, body: [cut(first, match[0].length)] };
		}
		if (RULE.test(line)) {
			i += 1;
			return { type: "rule" };
		}
		if (depth < DEEPEST && QUOTE.test(line)) {
			const body = [];
			pass((row) => QUOTE.test(texts[row]) && body.push(cut(row, QUOTE.exec(texts[row])[0].length)));
			return { type: "quote", body };
		}
		if (depth < DEEPEST && (match = ITEM.exec(line))) {
			const number = Number.parseInt(match[2], 10);
			const items = [];
			while (match && !RULE.test(texts[i]) && /\d/.test(match[2]) === number >= 0) {
				items.push(item(match[0].length));
				if (i + 1 < lines.length && isBlank(i) && ITEM.test(texts[i + 1])) i += 1;
				match = ITEM.exec(texts[i] ?? "");
			}
			return { type: "list", first: number >= 0 ? number : null, items };
		}
		if (line.includes("|") && CELLS.test(texts[first + 1] ?? "")) {
			pass((row) => texts[row].includes("|"));
			const [head, , ...body] = lines.slice(first, i).map((row) => cells(source, row));
			return { type: "table", head, body };
		}
		pass((row) => row === first || (!isBlank(row) && !starts(texts[row])));
		return { type: "text" };
	};

	while (i < lines.length) {
		const first = i;
		if (isBlank(i)) i += 1;
		else blocks.push({ ...block(first, texts[first]), lines: lines.slice(first, i) });
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
