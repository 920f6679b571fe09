// The draft view: tokens tinted by their place in the round, a card about a round, and the replay.

import { button, byId, el } from "./dom.js";

const PLACES = 7; // tints; deeper places share the last
const STEP_MS = 450; // of a replay that plays

const ORIGIN = {
	d: (token) => `draft ${token.place}, accepted`,
	t: () => "the target's own token",
	p: () => "plain decoding, no drafts",
};

/** Nodes for a range of a reply's text; where drafts are shown, an element a token. */
export function nodesOf(trace, kind, start, end) {
	const text = trace.text[kind];
	if (!byId("tinted").checked) return [document.createTextNode(text.slice(start, end))];
	return trace.pieces(kind, start, end).map(([from, to, token]) => {
		const piece = text.slice(from, to);
		if (!token) return document.createTextNode(piece);
		const data = { "data-i": token.index, "data-r": token.round.round };
		return el("span", { class: `tok${tint(token)}`, text: piece, ...data });
	});
}

/** Hover and keyboard for the tokens within `root`: one stop of Tab, then the arrow keys. */
export function watch(root, trace) {
	const at = (event) => event.target.closest?.(".tok");
	const show = (event) => {
		const node = at(event);
		if (node) showCard(node, trace, trace.tokens[node.dataset.i]);
		else if (event.type === "pointerover") hideCard();
	};
	for (const event of ["pointerover", "focusin"]) root.addEventListener(event, show);
	for (const event of ["pointerleave", "focusout"]) root.addEventListener(event, hideCard);
	root.addEventListener("keydown", (event) => {
		const node = at(event);
		if (!node) return;
		const all = [...root.querySelectorAll(".tok")];
		const here = all.indexOf(node);
		const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: all.length - 1 }[event.key];
		if (to === undefined || !all[to]) return;
		event.preventDefault();
		stopAt(all[to], node);
		all[to].focus();
	});
}

/** Lets Tab reach the first token. */
export function reachable(root) {
	const first = root.querySelector(".tok");
	if (first) stopAt(first);
}

function stopAt(node, before) {
	for (const name of ["tabindex", "aria-describedby"]) before?.removeAttribute(name);
	node.setAttribute("tabindex", "0");
	node.setAttribute("aria-describedby", "card");
}

export function hideCard() {
	byId("card").hidden = true;
}

function showCard(node, trace, token) {
	const card = byId("card");
	const { round, drafted, accepted, rejected, tokens } = token.round;
	const counts = drafted ? `drafted ${drafted}, accepted ${accepted}` : "no drafts";
	card.replaceChildren(
		el("p", {}, el("strong", { text: `Round ${round}` }), ` · ${counts}`),
		el("p", { class: "chips" }, ...tokens.map((each) => chip(trace, each, each === token)), ...struck(rejected)),
		el("p", { class: "quiet", text: ORIGIN[token.origin](token) }),
	);
	card.hidden = false;
	place(card, node.getClientRects()[0] ?? node.getBoundingClientRect());
}

const tint = (token) => (token.origin === "d" ? ` d p${Math.min(token.place, PLACES)}` : "");

function chip(trace, token, isCurrent) {
	const now = isCurrent ? " now" : "";
	return el("span", { class: `chip tok${tint(token)}${now}`, text: visible(trace.textOf(token)) });
}

/** Rejected drafts, struck through. */
function struck(rejected) {
	return rejected.map(({ text }) =>
		el("s", { class: "chip rejected" }, el("span", { class: "hidden", text: "rejected: " }), visible(text)),
	);
}

const visible = (text) => text.replaceAll("\n", "↵").replaceAll(" ", "·") || "∅";

/** Below the token, above it where there is no room; never out of the window. */
function place(card, box) {
	const { offsetWidth: width, offsetHeight: height } = card;
	const left = Math.max(8, Math.min(box.left, innerWidth - width - 8));
	const below = box.bottom + 6;
	const top = below + height > innerHeight ? Math.max(8, box.top - height - 6) : below;
	card.style.left = `${left}px`;
	card.style.top = `${top}px`;
}

/** A slider over the rounds of a reply; `show(round)` shows the text up to it, null the whole. */
export function replay(trace, show) {
	const { rounds } = trace;
	const last = rounds.length - 1;
	const said = el("output", { class: "quiet" });
	const slider = el("input", { type: "range", min: 0, max: last, value: last, "aria-label": "Round" });
	const step = () => {
		const round = rounds[slider.value];
		const counts = round.drafted ? `${round.drafted} drafted, ${round.accepted} accepted` : "no drafts";
		said.textContent = `Round ${slider.value} of ${last}: ${counts}`;
		slider.setAttribute("aria-valuetext", said.textContent);
		show(round);
	};
	const go = (value) => {
		slider.value = value;
		step();
	};
	slider.addEventListener("input", step);
	let timer = null;
	const stop = () => {
		timer = clearInterval(timer);
		play.textContent = "Play";
	};
	const play = button("Play", () => {
		if (timer) return stop();
		go(slider.valueAsNumber === last ? 0 : slider.valueAsNumber + 1);
		play.textContent = "Pause";
		timer = setInterval(() => {
			if (slider.isConnected && slider.valueAsNumber < last) go(slider.valueAsNumber + 1);
			else stop();
		}, STEP_MS);
	});
	step();
	return el("div", { class: "replay" }, play, slider, said);
}

/** What a round left behind the text that it wrote. */
export function leftovers(round) {
	return round.rejected.length ? el("span", { class: "leftover" }, ...struck(round.rejected)) : null;
}
