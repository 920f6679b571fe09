// Puts the parts of the page together.

import { ApiError, onKeyWanted, read } from "./api.js";
import { Chat } from "./chat.js";
import { connect } from "./connect.js";
import { byId, on } from "./dom.js";
import { askKey } from "./key.js";
import { Race } from "./race.js";
import { Strip } from "./strip.js";
import { tabs } from "./tabs.js";

const base = new URL("v1", document.baseURI).href;
let served = { model: "default", exactness: null, base };

onKeyWanted(askKey);
tabs(byId("tabs"));
new Chat(() => served);
new Race(() => served);
const strip = new Strip();
byId("live").open = innerWidth > 1000;
connect(byId("connect-body"), served);
on("theme", "click", switchTheme);
on("again", "click", meet);
meet();

/** Learns what is served; everything but the strip works without. */
async function meet() {
	byId("trouble").hidden = true;
	try {
		const status = await read("v1/status");
		served = { model: status.model, exactness: status.exactness, base };
		byId("model").textContent = status.model;
		document.title = `${status.model} · mtp-mlx`;
		byId("drafter").textContent = status.draft_model ? `drafter ${status.draft_model}` : "no drafter: plain decoding";
		const level = byId("level");
		level.hidden = !status.exactness;
		level.textContent = `exactness ${status.exactness}`;
		byId("version").textContent = status.version;
		connect(byId("connect-body"), served);
		strip.start();
	} catch (fault) {
		if (!(fault instanceof ApiError)) throw fault;
		byId("trouble-text").textContent = fault.message;
		byId("trouble").hidden = false;
		if (fault.retryAfter !== null) setTimeout(meet, fault.retryAfter * 1000);
	}
}

/** To the next theme; "auto" is the system's. */
function switchTheme({ target }) {
	const { dataset } = document.documentElement;
	dataset.theme = { light: "dark", dark: "auto" }[dataset.theme] ?? "light";
	target.textContent = `Theme: ${dataset.theme}`;
}
