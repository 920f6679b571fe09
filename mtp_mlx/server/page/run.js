// One streamed reply as it comes: its text, its trace, its figures.

import { streamed } from "./api.js";
import { Trace } from "./trace.js";

export class Run {
	constructor(body) {
		this.body = body;
		this.trace = new Trace();
		this.calls = []; // {id, name, arguments}
		this.note = ""; // what the server says while nothing is written
		this.finish = null;
		this.usage = this.timings = this.mtp = null;
		this.stopped = false;
		this.sentAt = this.firstAt = this.lastAt = null;
	}

	/** Until it ends; throws ApiError. A reply that `signal` ended is `stopped`. */
	async read(signal, changed) {
		this.sentAt ??= performance.now();
		const body = { ...this.body, stream: true, stream_options: { include_usage: true } };
		try {
			for await (const event of streamed("v1/chat/completions", body, signal)) {
				if (event.chunk) this.take(event.chunk);
				else this.note = waiting(event.comment);
				changed();
			}
		} catch (fault) {
			if (!signal.aborted) throw fault;
			this.stopped = true;
		}
	}

	take(chunk) {
		for (const name of ["usage", "timings", "mtp"]) this[name] = chunk[name] ?? this[name];
		const choice = chunk.choices?.[0];
		if (!choice) return;
		const { content, reasoning_content: thought, tool_calls: calls } = choice.delta;
		// A round of which no text is shown yet still has its counts.
		if (thought) this.trace.add("reasoning", thought, choice.spec);
		else if (content || choice.spec) this.trace.add("content", content ?? "", choice.spec);
		for (const call of calls ?? []) this.addCall(call);
		if (content || thought || calls?.length) {
			this.note = "";
			this.lastAt = performance.now();
			this.firstAt ??= this.lastAt;
		}
		this.finish = choice.finish_reason ?? this.finish;
	}

	addCall({ index, id, function: part }) {
		this.calls[index] ??= { id, name: "", arguments: "" };
		this.calls[index].name += part?.name ?? "";
		this.calls[index].arguments += part?.arguments ?? "";
	}

	get content() {
		return this.trace.text.content;
	}

	get reasoning() {
		return this.trace.text.reasoning;
	}

	get tokens() {
		return this.usage?.completion_tokens ?? this.trace.count;
	}

	get drafted() {
		return this.timings?.draft_n ?? sum(this.trace.rounds, "drafted");
	}

	get accepted() {
		return this.timings?.draft_n_accepted ?? sum(this.trace.rounds, "accepted");
	}

	/** Seconds until the first text arrived here. */
	get firstS() {
		return this.firstAt === null ? null : (this.firstAt - this.sentAt) / 1000;
	}

	/** The server's measurement; of a reply that was stopped, this page's. */
	get tokensPerS() {
		if (this.timings) return this.timings.predicted_per_second;
		const seconds = (this.lastAt - this.firstAt) / 1000;
		return this.tokens > 1 && seconds > 0 ? (this.tokens - 1) / seconds : null;
	}

	/** As a message of the conversation that follows; null where nothing was written. */
	get message() {
		if (!this.content && !this.calls.length) return null;
		const message = { role: "assistant", content: this.content };
		if (this.calls.length) {
			message.tool_calls = this.calls.map(({ id, name, arguments: text }) => ({
				id,
				type: "function",
				function: { name, arguments: text },
			}));
		}
		return message;
	}
}

function sum(rounds, name) {
	return rounds.reduce((total, round) => total + round[name], 0);
}

function waiting(comment) {
	const [what, rest] = comment.split(" ", 2);
	if (what === "queue") return `Waiting for a row, ${rest} in the queue`;
	if (what === "prefill") return `Reading the prompt, ${rest} tokens`;
	return "";
}
