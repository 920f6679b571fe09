// Emphasis, code and links within lines, as nodes; each character keeps its place in the source.

import { el } from "./dom.js";

const TAGS = { "**": "strong", __: "strong", "*": "em", _: "em", "~~": "del" };
const DEEPEST = 6; // marks within each other
// Bounded, so that no text takes long. An image is a form too: one that stays text.
const FORMS = [
	"\\\\(?<escaped>[!-/:-@[-`{-~])",
	"(?<!`)(?<ticks>`+)(?!`)(?<code>[^]{1,999}?)(?<!`)\\k<ticks>(?!`)",
	"!\\[[^\\[\\]\\n]{0,999}\\]\\([^\\s()]{0,999}\\)",
	"\\[(?<label>[^\\[\\]\\n]{1,999})\\]\\((?<href>https?://[^\\s()<>]{1,1999})\\)",
	"(?<twice>\\*\\*|~~|(?<![\\p{L}\\p{N}_])__)(?=\\S)(?<inner>[^]{1,1999}?)(?<!\\s)\\k<twice>(?!\\*)",
	"(?<once>(?<!\\*)\\*(?!\\*)|(?<![\\p{L}\\p{N}_])_(?!_))(?=\\S)(?<slanted>[^]{1,1999}?)" +
		"(?<![\\s*_])\\k<once>(?![\\p{L}\\p{N}*_])",
];
const FORM = new RegExp(FORMS.join("|"), "dgu");

/** `lines`: ranges of the source; `mark(start, end)` gives the nodes of a range that is shown. */
export function inline(source, lines, mark) {
	const { text, at } = joined(source, lines);
	const shown = (from, to) => ranges(at, from, to).flatMap(([start, end]) => mark(start, end));
	return walk(0, text.length, 0);

	function walk(from, to, depth) {
		const nodes = [];
		const part = text.slice(from, to);
		let done = from;
		for (const { index, 0: all, groups, indices } of depth < DEEPEST ? part.matchAll(FORM) : []) {
			const within = (name) => indices.groups[name].map((place) => from + place);
			let node = null;
			if (groups.escaped) {
				nodes.push(...shown(done, from + index));
				done = from + index + 1;
			} else if (groups.code) node = el("code", {}, ...shown(...within("code")));
			else if (groups.href) {
				const options = { href: groups.href, title: groups.href, target: "_blank" };
				const kids = walk(...within("label"), DEEPEST);
				node = el("a", { ...options, rel: "noopener noreferrer nofollow" }, ...kids);
			} else if (groups.twice) node = el(TAGS[groups.twice], {}, ...walk(...within("inner"), depth + 1));
			else if (groups.once) node = el(TAGS[groups.once], {}, ...walk(...within("slanted"), depth + 1));
			if (!node) continue;
			nodes.push(...shown(done, from + index), node);
			done = from + index + all.length;
		}
		return [...nodes, ...shown(done, to)];
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
