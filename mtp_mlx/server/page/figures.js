// The line below a reply, in the words of the command line's chat. What was not measured is left out.

export function rate(value) {
	return value >= 100 ? value.toFixed(0) : value.toFixed(1);
}

export function rough(value) {
	return String(Number(value.toPrecision(3)));
}

const UNITS = [[2 ** 30, "GiB", 1], [2 ** 20, "MiB", 0], [2 ** 10, "KiB", 0]];

export function bytes(size) {
	const [unit, name, digits] = UNITS.find(([unit]) => size >= unit) ?? UNITS.at(-1);
	return `${(size / unit).toFixed(digits)} ${name}`;
}

/** The figures of a run. `exactness`: the server's level, where the run has none. */
export function figures(run, exactness) {
	if (run.stopped && !run.tokens) return "stopped before the first token";
	const parts = [`${run.tokens.toLocaleString("en")} tok`];
	if (run.tokensPerS) {
		const plain = run.drafted ? run.mtp?.plain_tps_estimate : null;
		parts.push(`${rate(run.tokensPerS)} tok/s${plain ? ` (plain ~${rough(plain)})` : ""}`);
	}
	if (run.drafted) parts.push(`drafts ${run.accepted}/${run.drafted} accepted`, perRound(run));
	else if (run.trace.rounds.length) parts.push("no drafts");
	if (run.firstS !== null) parts.push(`TTFT ${run.firstS.toFixed(2)} s`);
	const level = run.mtp?.exactness ?? exactness;
	if (level) parts.push(`exactness ${level}`);
	if (run.stopped) parts.push("stopped");
	else if (run.finish === "length") parts.push(`cut at ${run.tokens.toLocaleString("en")} tokens`);
	if (run.mtp?.parked) parts.push(`drafting ended: ${run.mtp.parked}`);
	if (run.mtp?.warning) parts.push(run.mtp.warning);
	return parts.filter(Boolean).join(" · ");
}

/** Tokens a round, the first left out: it is the prompt's. */
function perRound(run) {
	const rounds = run.trace.rounds.filter(({ round }) => round).length;
	return rounds ? `${((run.tokens - 1) / rounds).toFixed(1)} tok/round` : null;
}
