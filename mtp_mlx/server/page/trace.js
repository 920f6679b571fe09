// What is known of each token of a reply: its text, its round, its place among the round's drafts.

const KINDS = ["content", "reasoning"];

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** For byte offsets into a text's UTF-8: offsets into its string. */
function places(text) {
	const bytes = new TextEncoder().encode(text);
	return (count) => decoder.decode(bytes.subarray(0, count)).length;
}

export class Trace {
	/** `tokens`: {kind, start, end, origin: "d"|"t"|"p", place: of a draft in its round, from 1, round}.
	 * `rounds`: {round, drafted, accepted, rejected, tokens, ends: length of each text after it}. */
	constructor() {
		this.text = { content: "", reasoning: "" };
		this.tokens = []; // those with text
		this.count = 0;
		this.rounds = [];
		this.of = { content: [], reasoning: [] };
	}

	/** A delta of one kind; `spec` is the server's, or missing. */
	add(kind, delta, spec) {
		const base = this.text[kind].length;
		this.text[kind] += delta;
		if (!spec) return;
		const round = this.round(spec);
		const at = places(delta);
		this.count += spec.spans.length;
		for (const [start, end, origin] of spec.spans) {
			if (origin === "d") round.places += 1;
			if (start === end) continue;
			const token = { kind, start: base + at(start), end: base + at(end), origin, round };
			token.place = origin === "d" ? round.places : 0;
			token.index = this.tokens.push(token) - 1;
			round.tokens.push(token);
			this.of[kind].push(token);
		}
		for (const name of KINDS) round.ends[name] = this.text[name].length;
	}

	/** The round of a delta; one round may come as several, of several kinds. */
	round(spec) {
		let round = this.rounds.at(-1);
		if (round?.round !== spec.round) {
			round = { round: spec.round, drafted: 0, accepted: 0, rejected: [], tokens: [], ends: {} };
			round.places = 0;
			this.rounds.push(round);
		}
		round.drafted += spec.drafted;
		round.accepted += spec.accepted;
		round.rejected.push(...spec.rejected);
		return round;
	}

	/** A range of a text, cut where tokens end: [start, end, token or null]. */
	pieces(kind, start, end) {
		const tokens = this.of[kind];
		let low = 0;
		let high = tokens.length;
		while (low < high) {
			const middle = (low + high) >> 1;
			if (tokens[middle].end <= start) low = middle + 1;
			else high = middle;
		}
		const found = [];
		let at = start;
		for (; low < tokens.length && tokens[low].start < end && at < end; low++) {
			const token = tokens[low];
			if (token.start > at) found.push([at, (at = token.start), null]);
			const stop = Math.min(token.end, end);
			if (stop > at) found.push([at, (at = stop), token]);
		}
		if (at < end) found.push([at, end, null]);
		return found;
	}

	textOf(token) {
		return this.text[token.kind].slice(token.start, token.end);
	}
}
