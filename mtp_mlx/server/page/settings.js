// The settings of the chat, as fields of a request. An empty one is left to the checkpoint.

import { byId } from "./dom.js";

const NUMBERS = ["temperature", "max_tokens", "seed", "num_draft_tokens"];

/** Fields of the next request; throws an Error that names the setting. */
export function settings() {
	const fields = {};
	for (const name of NUMBERS) {
		const input = byId(name);
		if (!input.validity.valid) throw new Error(`${labelOf(input)}: ${input.validationMessage}`);
		if (input.value !== "") fields[name] = Number(input.value);
	}
	if (byId("thinking").checked) fields.enable_thinking = true;
	const tools = byId("tools").value.trim();
	if (tools) fields.tools = listOf(tools);
	return fields;
}

export const systemPrompt = () => byId("system").value.trim();

function labelOf(input) {
	return input.labels[0].firstChild.textContent.trim();
}

function listOf(text) {
	try {
		const tools = JSON.parse(text);
		if (Array.isArray(tools)) return tools;
	} catch {
		// said below
	}
	throw new Error("Tools: a JSON list is wanted, as in OpenAI’s API.");
}
