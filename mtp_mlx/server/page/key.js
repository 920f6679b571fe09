// The question for a key, when the server wants one.

import { byId } from "./dom.js";

/** A key, or null where the question was closed. */
export function askKey(message) {
	const dialog = byId("key-dialog");
	const input = byId("key");
	byId("key-why").textContent = message;
	input.value = "";
	dialog.showModal();
	input.focus();
	return new Promise((resolve) => {
		let given = null;
		byId("key-form").onsubmit = (event) => {
			event.preventDefault();
			given = input.value.trim() || null;
			dialog.close();
		};
		byId("key-cancel").onclick = () => dialog.close();
		dialog.onclose = () => {
			input.value = "";
			resolve(given);
		};
	});
}
