// Ready code for other clients, with this server's address and model.

import { hasKey } from "./api.js";
import { button, copy, el } from "./dom.js";
import { curl, openWebUi, python, swift } from "./snippets.js";

export function connect(root, { base, model }) {
	const withKey = hasKey();
	const hello = { model, messages: [{ role: "user", content: "Tell me a story about a fox." }] };
	const key = withKey
		? "This server wants a key. The code below reads it from MTP_MLX_API_KEY."
		: "This server wants no key; clients that insist on one may send anything.";
	root.replaceChildren(
		el("dl", {}, ...fact("Base URL", base), ...fact("Model", model)),
		el("p", { text: key }),
		...block("openai for Python", python(base, hello, withKey)),
		...block("curl", curl(base, hello, withKey)),
		...block("Open WebUI", openWebUi(base, withKey), DOCKER),
		...block("Swift, URLSession", swift(base, model, withKey)),
	);
}

const DOCKER =
	"In Docker, use host.docker.internal in the URL, and start the server with --host, a key and " +
	"--allowed-hosts host.docker.internal.";

const fact = (name, value) => [el("dt", { text: name }), el("dd", {}, el("code", { text: value }))];

function block(title, code, note) {
	const head = el("div", { class: "head" }, el("h3", { text: title }));
	head.append(
		button("Copy", (event) => copy(code, event.target), { "aria-label": `Copy: ${title}` }),
	);
	const pre = el("pre", { tabindex: "0" }, el("code", { text: code }));
	return [head, pre, note ? el("p", { class: "quiet", text: note }) : null].filter(Boolean);
}
