// Elements and small helpers. Text of others enters the page as text nodes only, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** An element. `options`: attributes by name; `class`, `text` and `on` ({event: handler}) are special. */
export function el(tag, options = {}, ...children) {
	return build(document.createElement(tag), options, children);
}

export function svg(tag, options = {}, ...children) {
	return build(document.createElementNS(SVG, tag), options, children);
}

function build(node, options, children) {
	for (const [name, value] of Object.entries(options)) {
		if (value === null || value === undefined || value === false) continue;
		if (name === "text") node.textContent = value;
		else if (name === "on") {
			for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
		} else node.setAttribute(name, value === true ? "" : value);
	}
	node.append(...children.filter((child) => child !== null && child !== undefined));
	return node;
}

export function button(label, handler, options = {}) {
	return el("button", { type: "button", text: label, on: { click: handler }, ...options });
}

export const byId = (id) => document.getElementById(id);
export const on = (id, event, handler) => byId(id).addEventListener(event, handler);

/** Said by a screen reader when it has time. */
export function announce(text) {
	byId("said").textContent = text;
}

/** Copies; the button says so for a moment. */
export async function copy(text, from) {
	const label = (from.dataset.label ??= from.textContent);
	from.textContent = (await written(text)) ? "Copied" : "Not copied";
	announce(from.textContent);
	setTimeout(() => (from.textContent = label), 1200);
}

async function written(text) {
	try {
		await navigator.clipboard.writeText(text);
		return true;
	} catch {
		return false; // not allowed, or a page that came neither over https nor from this machine
	}
}

export function save(name, text) {
	const url = URL.createObjectURL(new Blob([text, "\n"]));
	el("a", { href: url, download: name }).click();
	setTimeout(() => URL.revokeObjectURL(url), 1000);
}
