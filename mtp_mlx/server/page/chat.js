// The chat: turns, the box that messages are written in, and what can be done with both.

import { hasKey } from "./api.js";
import { announce, button, byId, copy, el, on, save } from "./dom.js";
import { hideCard } from "./draft.js";
import { ReplyView } from "./reply.js";
import { Run } from "./run.js";
import { settings, systemPrompt } from "./settings.js";
import { bare, curl, python } from "./snippets.js";

const RETRIES = 5; // of a server that is busy

export class Chat {
	/** `served()`: {model, exactness, base}. */
	constructor(served) {
		this.served = served;
		this.turns = []; // {message, root, view}
		this.log = byId("log");
		this.box = byId("message");
		this.going = null; // AbortController of the reply that is being written
		on("compose", "submit", (event) => {
			event.preventDefault();
			if (this.going) this.going.abort();
			else this.send(this.box.value);
		});
		this.box.addEventListener("input", () => grow(this.box));
		this.box.addEventListener("keydown", (event) => {
			if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
			event.preventDefault();
			if (!this.going) this.send(this.box.value);
		});
		document.addEventListener("keydown", (event) => {
			if (event.key === "Escape" && byId("card").hidden) this.going?.abort();
			if (!event.defaultPrevented) hideCard(); // arrows show the next
		});
		for (const node of byId("ideas").children) {
			node.addEventListener("click", () => this.send(node.textContent));
		}
		on("new", "click", () => this.cutTo(0));
		on("export-md", "click", () => this.exportMarkdown());
		on("export-json", "click", () => this.exportJson());
		on("tinted", "change", () => this.turns.forEach(({ view }) => view?.redraw()));
		this.log.addEventListener("scroll", hideCard);
	}

	send(text) {
		if (!text.trim()) return;
		this.box.value = "";
		grow(this.box);
		for (const form of this.log.querySelectorAll(".answer")) form.remove();
		this.add(this.userTurn(text));
		this.reply();
	}

	add(turn) {
		this.turns.push(turn);
		this.log.append(turn.root);
		byId("hello").hidden = true;
		this.log.scrollTop = this.log.scrollHeight;
	}

	/** Forgets the turns from the one numbered `count` on. */
	cutTo(count) {
		this.going?.abort();
		for (const { root } of this.turns.splice(count)) root.remove();
		byId("hello").hidden = this.turns.length > 0;
		if (!count) this.box.focus();
	}

	userTurn(text) {
		const shown = el("div", { class: "text", text });
		const acts = el("div", { class: "acts" });
		const root = el("article", { class: "user" }, el("h3", { text: "You" }), shown, acts);
		const turn = { message: { role: "user", content: text }, root };
		acts.append(button("Edit", () => this.edit(turn, shown, acts)));
		return turn;
	}

	edit(turn, shown, acts) {
		const area = el("textarea", { "aria-label": "Edit the message", rows: 3 });
		area.value = turn.message.content;
		const close = () => {
			form.replaceWith(shown);
			acts.hidden = false;
		};
		const resend = () => {
			this.cutTo(this.turns.indexOf(turn));
			this.send(area.value.trim() ? area.value : turn.message.content);
		};
		area.addEventListener("keydown", (event) => {
			if (event.key === "Escape") {
				event.stopPropagation();
				close();
			}
			if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
				event.preventDefault();
				resend();
			}
		});
		const form = el(
			"div",
			{ class: "edit" },
			area,
			el("div", { class: "acts" }, button("Send", resend), button("Cancel", close)),
		);
		shown.replaceWith(form);
		acts.hidden = true;
		area.focus();
	}

	/** Messages as the next request has them. */
	messages() {
		const system = systemPrompt();
		const turns = this.turns.flatMap(({ message, run }) => message ?? run?.message ?? []);
		return system ? [{ role: "system", content: system }, ...turns] : turns;
	}

	async reply() {
		let fields;
		try {
			fields = settings();
		} catch (fault) {
			byId("settings").open = true;
			return this.failedTurn(fault);
		}
		const { model, exactness } = this.served();
		const run = new Run({ model, messages: this.messages(), spec_trace: true, ...fields });
		const view = new ReplyView(run, model, (id, text) => this.toolResult(run, id, text));
		const turn = { run, view, root: view.root };
		this.add(turn);
		const going = (this.going = new AbortController());
		this.showGoing();
		announce("Writing");
		const fault = await this.read(run, view, going.signal);
		if (this.going === going) this.going = null;
		this.showGoing();
		view.finish(exactness, this.actsOf(turn));
		if (fault) view.fault.replaceChildren(this.faultLine(fault, turn));
		this.follow();
	}

	/** Reads a reply; asks again where the server says when. The fault that ended it, or null. */
	async read(run, view, signal) {
		for (let attempt = 0; ; attempt++) {
			try {
				await run.read(signal, () => {
					view.changed();
					this.follow();
				});
				return null;
			} catch (fault) {
				const isBusy = fault.status === 503 && fault.retryAfter !== null;
				if (!isBusy || attempt === RETRIES) return fault;
				view.wait.textContent = `${fault.message} Asking again in ${fault.retryAfter} s.`;
				if (await stopped(fault.retryAfter * 1000, signal)) {
					run.stopped = true;
					return null;
				}
			}
		}
	}

	/** A request that could not be made. */
	failedTurn(fault) {
		const root = el("article", { class: "reply" });
		const turn = { root };
		root.append(this.faultLine(fault, turn));
		this.add(turn);
	}

	faultLine(fault, turn) {
		const again = button("Try again", () => this.again(turn));
		return el("p", { class: "fault", role: "alert" }, el("span", { text: fault.message }), again);
	}

	again(turn) {
		this.cutTo(this.turns.indexOf(turn));
		this.reply();
	}

	actsOf(turn) {
		const { run } = turn;
		const code = (make) => (event) => {
			copy(make(this.served().base, bare(run.body, run.mtp?.seed), hasKey()), event.target);
		};
		return [
			button("Retry", () => this.again(turn)),
			button("Copy as curl", code(curl)),
			button("Copy as Python", code(python)),
		];
	}

	/** The user's answer to a call; the reply goes on when all calls have theirs. */
	toolResult(run, id, content) {
		const text = el("div", { class: "text", text: content });
		const root = el("article", { class: "user" }, el("h3", { text: "Result" }), text);
		this.add({ message: { role: "tool", tool_call_id: id, content }, root });
		const given = new Set(this.turns.map(({ message }) => message?.tool_call_id));
		if (run.calls.every((call) => given.has(call.id))) this.reply();
	}

	showGoing() {
		const isGoing = this.going !== null;
		byId("send").textContent = isGoing ? "Stop" : "Send";
		byId("send").classList.toggle("stop", isGoing);
	}

	/** Keeps the end in sight for those who are there. */
	follow() {
		const { scrollHeight, scrollTop, clientHeight } = this.log;
		if (scrollHeight - scrollTop - clientHeight < 120) this.log.scrollTop = scrollHeight;
	}

	exportJson() {
		const body = { model: this.served().model, messages: this.messages() };
		save("chat.json", JSON.stringify(body, null, 2));
	}

	exportMarkdown() {
		const names = { user: "You", assistant: this.served().model, tool: "Result", system: "System" };
		const parts = this.messages().map(({ role, content, tool_calls: calls = [] }) => {
			const called = calls.map((call) => `\`${call.function.name}(${call.function.arguments})\``);
			return [`## ${names[role]}`, content, ...called].filter(Boolean).join("\n\n");
		});
		save("chat.md", parts.join("\n\n"));
	}
}

/** Waits; true where `signal` ended it. */
function stopped(ms, signal) {
	return new Promise((resolve) => {
		const timer = setTimeout(() => resolve(false), ms);
		signal.addEventListener("abort", () => {
			clearTimeout(timer);
			resolve(true);
		});
	});
}

function grow(area) {
	area.style.height = "auto";
	area.style.height = `${Math.min(area.scrollHeight + 2, innerHeight * 0.4)}px`;
}
