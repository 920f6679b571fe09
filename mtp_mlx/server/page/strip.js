// The live strip: what the engine does, asked for once a second while the page is in sight.

import { read } from "./api.js";
import { byId, el, svg } from "./dom.js";
import { bytes, rate, rough } from "./figures.js";

const PERIOD_MS = 1000;
const SECONDS = 60; // that the line of speed shows
const WIDTH = 240;
const HEIGHT = 48;
const STATES = { queued: "waits", prefill: "reads", decode: "writes" };

export class Strip {
	constructor() {
		this.speeds = [];
		this.timer = null;
		this.isAsking = false;
		document.addEventListener("visibilitychange", () => this.start());
	}

	start() {
		clearTimeout(this.timer);
		if (document.hidden) this.speeds = [];
		else if (!this.isAsking) this.ask();
	}

	async ask() {
		this.isAsking = true;
		try {
			this.show(await read("v1/status", { quiet: true }));
		} catch (fault) {
			byId("live-brief").textContent = fault.status === 401 ? "wants a key" : "not reached";
			byId("live").classList.add("stale");
		}
		this.isAsking = false;
		if (!document.hidden) this.timer = setTimeout(() => this.ask(), PERIOD_MS);
	}

	show(status) {
		byId("live").classList.remove("stale");
		this.speeds = [...this.speeds, status.tokens_per_s ?? 0].slice(-SECONDS);
		const speed = status.tokens_per_s ? rate(status.tokens_per_s) : "0";
		const plain = status.plain_tokens_per_s;
		const busy = `${status.running + status.prefilling} of ${status.slots} rows`;
		byId("live-brief").textContent = `${speed} tok/s · ${busy} · ${status.waiting} waiting`;
		byId("speed").textContent = speed;
		byId("plain").textContent = plain ? `plain ~${rough(plain)}` : "";
		byId("speed-line").replaceChildren(...this.line(plain));
		byId("places").replaceChildren(...bars(status.acceptance_by_position));
		const depth = status.depth.length ? `drafts now: ${status.depth.join(" ")}` : "";
		byId("depth").textContent = status.parked ? `parked: ${status.parked}` : depth;
		byId("lanes").replaceChildren(...lanes(status));
		byId("queue").textContent = `${status.waiting} waiting of ${status.queue_limit}`;
		memory(status.memory);
	}

	/** Speed over the last minute, and plain decoding's as a dashed line. */
	line(plain) {
		const top = Math.max(...this.speeds, (plain ?? 0) * 1.2, 1) * 1.08;
		const y = (value) => (HEIGHT - (value / top) * HEIGHT).toFixed(1);
		const x = (i) => (((SECONDS - this.speeds.length + i) / (SECONDS - 1)) * WIDTH).toFixed(1);
		const points = this.speeds.map((value, i) => `${x(i)},${y(value)}`).join(" ");
		return [
			svg("polygon", { points: `${x(0)},${HEIGHT} ${points} ${WIDTH},${HEIGHT}` }),
			svg("polyline", { points }),
			plain ? svg("line", { x2: WIDTH, y1: y(plain), y2: y(plain) }) : "",
		];
	}
}

/** A bar a place of the round, in the tint of its drafts. */
function bars(shares) {
	if (!shares.length) return [el("li", { class: "quiet", text: "no drafts yet" })];
	return shares.slice(0, 7).map((share, i) => {
		const bar = el("i", { class: `p${i + 1}` });
		bar.style.height = `${Math.max(2, Math.round(share * 40))}px`;
		const said = el("span", { class: "hidden", text: `place ${i + 1}: ` });
		return el("li", {}, said, `${Math.round(share * 100)}`, bar, el("small", { text: i + 1 }));
	});
}

function lanes({ slots, rows }) {
	const found = new Map(rows.map((row) => [row.slot, row]));
	return Array.from({ length: slots }, (_, slot) => lane(slot + 1, found.get(slot)));
}

/** A row of the batch: what it does, how far it is, the share of its drafts that was accepted. */
function lane(number, row) {
	const cells = [el("small", { text: number }), el("span", { text: row ? STATES[row.state] : "free" })];
	if (!row) return el("li", { class: "idle" }, ...cells);
	const isReading = row.state === "prefill";
	const share = row.drafted ? ` · ${Math.round((100 * row.accepted) / row.drafted)} %` : "";
	const text = isReading ? `${row.prompt_done}/${row.prompt_tokens}` : `${row.tokens} tok${share}`;
	const node = el("li", { class: row.state }, ...cells, el("span", { text }));
	const done = isReading ? row.prompt_done / Math.max(1, row.prompt_tokens) : 1;
	node.style.setProperty("--done", `${Math.round(done * 100)}%`);
	return node;
}

function memory(sizes) {
	const { kv_reserved_bytes: kept, kv_budget_bytes: budget } = sizes;
	byId("memory-bar").style.width = `${budget ? Math.min(100, (100 * kept) / budget) : 0}%`;
	const parts = [`K/V ${bytes(kept)}${budget ? ` of ${bytes(budget)}` : ""}`];
	if (sizes.prompt_cache_bytes) parts.push(`kept prompts ${bytes(sizes.prompt_cache_bytes)}`);
	if (sizes.peak_bytes) parts.push(`peak ${bytes(sizes.peak_bytes)}`);
	byId("memory").textContent = parts.join(" · ");
}
