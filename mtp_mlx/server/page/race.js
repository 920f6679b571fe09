// One prompt and seed, decoded plainly and with drafts, one after the other: are the texts the same?

import { byId, el, on } from "./dom.js";
import { figures, rate } from "./figures.js";
import { Run } from "./run.js";

const CONTEXT = 60; // characters shown before the first difference

export class Race {
	constructor(served) {
		this.served = served;
		this.going = null;
		on("race-form", "submit", (event) => {
			event.preventDefault();
			if (this.going) this.going.abort();
			else if (event.target.reportValidity()) this.race();
		});
	}

	async race() {
		this.going = new AbortController();
		const { signal } = this.going;
		byId("race-go").textContent = "Stop";
		byId("race-result").replaceChildren();
		const lanes = ["plain", "mtp"].map((name) => ({ name, seconds: byId(`${name}-s`), text: byId(`${name}-text`) }));
		for (const lane of lanes) {
			lane.text.textContent = lane.seconds.textContent = byId(`${lane.name}-line`).textContent = "";
		}
		try {
			const runs = [];
			for (const lane of lanes) runs.push(await this.run(lane, signal));
			byId("race-result").replaceChildren(...verdict(...runs));
		} catch (fault) {
			const text = signal.aborted ? "Stopped." : fault.message;
			byId("race-result").replaceChildren(el("p", { class: "fault", text }));
		}
		this.going = null;
		byId("race-go").textContent = "Race";
	}

	async run(lane, signal) {
		const run = new Run({
			model: this.served().model,
			messages: [{ role: "user", content: byId("race-prompt").value }],
			num_draft_tokens: lane.name === "plain" ? 0 : "auto",
			seed: Number(byId("race-seed").value),
			max_tokens: Number(byId("race-max").value),
			temperature: Number(byId("race-temperature").value),
			cache: false, // no part of the prompt is taken from the other's run
			spec_trace: true,
		});
		await run.read(signal, () => {
			lane.text.textContent = run.content;
			lane.seconds.textContent = `${seconds(run).toFixed(2)} s`;
		});
		if (signal.aborted) throw new Error("stopped");
		byId(`${lane.name}-line`).textContent = figures(run);
		return run;
	}
}

const seconds = (run) => ((run.lastAt ?? performance.now()) - run.sentAt) / 1000;

/** The two texts compared, token by token; then the two times. */
function verdict(plain, mtp) {
	const at = firstDifference(plain.content, mtp.content);
	const faster = plain.tokensPerS && mtp.tokensPerS ? mtp.tokensPerS / plain.tokensPerS : null;
	const speed = faster
		? `${rate(mtp.tokensPerS)} tok/s against ${rate(plain.tokensPerS)}: ${faster.toFixed(2)} times plain decoding’s.`
		: "";
	if (at === null) {
		const what = el("strong", { text: "identical" });
		return [el("p", { class: "verdict" }, what, `: all ${plain.tokens} tokens. ${speed}`)];
	}
	return [
		el("p", { class: "verdict differs" }, el("strong", { text: "different" }), ` from character ${at + 1} on. ${speed}`),
		el("dl", {}, ...side("plain", plain, at), ...side("MTP", mtp, at)),
	];
}

function firstDifference(a, b) {
	if (a === b) return null;
	let at = 0;
	while (a[at] === b[at]) at += 1;
	return at;
}

/** The text around the first differing token, which is marked. */
function side(name, run, at) {
	const { content } = run;
	const [from, to] = run.trace.pieces("content", 0, content.length).find(([, end]) => end > at) ?? [at, at];
	const token = el("mark", { text: content.slice(from, to) || "(ends here)" });
	const before = content.slice(Math.max(0, from - CONTEXT), from);
	return [el("dt", { text: name }), el("dd", {}, before, token, content.slice(to, to + CONTEXT))];
}
