// One reply on the page: its thought, its text, its calls of tools, its figures.

import { announce, button, copy, el } from "./dom.js";
import { hideCard, leftovers, nodesOf, reachable, replay, watch } from "./draft.js";
import { figures } from "./figures.js";
import { MarkdownView } from "./markdown.js";

export class ReplyView {
	/** `name`: who speaks. `onToolResult(id, text)`: what the user answers to a call. */
	constructor(run, name, onToolResult) {
		this.run = run;
		this.onToolResult = onToolResult;
		this.limit = null; // a round: the text up to it, as the replay shows it
		this.thought = el("div", { class: "text" });
		this.fold = el("details", { class: "thought", hidden: true }, el("summary"), this.thought);
		this.text = el("div", { class: "text" });
		this.calls = el("div");
		this.wait = el("p", { class: "quiet wait", text: "Waiting for the first token" });
		this.figures = el("p", { class: "figures" });
		this.fault = el("div");
		this.acts = el("div", { class: "acts" });
		this.replay = el("div");
		this.root = el(
			"article",
			{ class: "reply", "aria-busy": "true" },
			el("h3", { text: name }),
			...[this.fold, this.text, this.calls, this.wait, this.replay, this.figures, this.fault, this.acts],
		);
		this.views = { content: this.view("content", this.text) };
		this.views.reasoning = this.view("reasoning", this.thought);
		watch(this.text, run.trace);
		watch(this.thought, run.trace);
	}

	view(kind, root) {
		return new MarkdownView(root, (start, end) => nodesOf(this.run.trace, kind, start, end));
	}

	/** Writes what is new, at most once a frame. */
	changed() {
		this.frame ??= requestAnimationFrame(() => {
			this.frame = null;
			this.draw();
		});
	}

	draw() {
		const { run, limit } = this;
		for (const [kind, view] of Object.entries(this.views)) {
			view.update(run.trace.text[kind].slice(0, limit ? limit.ends[kind] : undefined));
		}
		this.fold.hidden = !run.reasoning;
		const isThinking = run.lastAt && !run.content && this.root.ariaBusy === "true";
		this.fold.firstChild.textContent = isThinking ? "Thinking …" : "Thought";
		this.wait.hidden = Boolean(run.firstAt);
		if (run.note) this.wait.textContent = run.note;
		while (this.calls.childElementCount < run.calls.length) this.calls.append(callCard());
		run.calls.forEach((call, i) => fillCall(this.calls.children[i], call));
	}

	/** The tint was switched: all text anew. */
	redraw() {
		for (const view of Object.values(this.views)) view.reset();
		this.draw();
		if (this.root.ariaBusy === "false") this.makeReachable();
	}

	makeReachable() {
		reachable(this.text);
		reachable(this.thought);
	}

	/** The reply has ended. `acts`: buttons. */
	finish(exactness, acts) {
		cancelAnimationFrame(this.frame);
		this.frame = null;
		this.root.ariaBusy = "false";
		this.draw();
		this.wait.hidden = true;
		this.figures.textContent = figures(this.run, exactness);
		announce(`Reply complete: ${this.figures.textContent}`);
		this.makeReachable();
		if (this.run.finish === "tool_calls") {
			this.run.calls.forEach((call, i) => this.calls.children[i].append(this.answer(call)));
		}
		this.acts.replaceChildren(
			button("Copy", (event) => copy(this.run.content, event.target)),
			...(this.run.trace.rounds.length > 1 ? [this.replayButton()] : []),
			...acts,
		);
	}

	replayButton() {
		const toggle = button("Replay", () => {
			const isOpen = toggle.getAttribute("aria-expanded") !== "true";
			toggle.setAttribute("aria-expanded", isOpen);
			if (isOpen) this.replay.replaceChildren(replay(this.run.trace, (round) => this.showRound(round)));
			else {
				this.replay.replaceChildren();
				this.showRound(null);
			}
		});
		toggle.setAttribute("aria-expanded", "false");
		return toggle;
	}

	showRound(round) {
		this.limit = round;
		hideCard();
		this.redraw();
		if (!round) return;
		this.fold.open ||= round.tokens.some(({ kind }) => kind === "reasoning");
		for (const node of this.root.querySelectorAll(`.text [data-r="${round.round}"]`)) {
			node.classList.add("now");
		}
		const rest = leftovers(round);
		const kind = round.tokens.at(-1)?.kind ?? "content";
		if (rest) lastBlock(kind === "content" ? this.text : this.thought).append(rest);
	}

	/** A form for what a call gave. Nothing is carried out by this page or by the server. */
	answer(call) {
		const input = el("textarea", { rows: 2, "aria-label": `Result of ${call.name}`, placeholder: "Its result" });
		const send = button("Send result", () => {
			send.disabled = input.disabled = true;
			this.onToolResult(call.id, input.value);
		});
		return el("div", { class: "answer" }, input, send);
	}
}

/** Where text that follows would stand. */
function lastBlock(root) {
	let node = root.lastElementChild ?? root;
	while (node.matches("ul, ol, blockquote, li:has(> p)")) node = node.lastElementChild ?? node;
	return node.matches("pre") ? node.firstElementChild : node;
}

function callCard() {
	return el("section", { class: "call" }, el("h4"), el("pre", { tabindex: "0" }, el("code")));
}

function fillCall(card, call) {
	const [title, pre] = card.children;
	title.textContent = `Calls ${call.name}`;
	let text = call.arguments;
	try {
		text = JSON.stringify(JSON.parse(text), null, 2);
	} catch {
		// not complete yet, or not JSON: as it is
	}
	pre.firstElementChild.textContent = text;
}
