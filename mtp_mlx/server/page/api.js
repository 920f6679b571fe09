// Requests to the server that sent this page. The key lives in this module and nowhere else.

import { frames } from "./sse.js";

let key = null;
let wanted = null; // the question for a key that is open
let askForKey = async () => null;

export class ApiError extends Error {
	/** `retryAfter`: seconds after which the server wants to be asked again, or null. */
	constructor(status, message, retryAfter = null) {
		super(message);
		this.status = status;
		this.retryAfter = retryAfter;
	}
}

/** `ask(message)` gives a key, or null. */
export function onKeyWanted(ask) {
	askForKey = ask;
}

export const hasKey = () => key !== null;

/** A reply of status 2xx, or an ApiError. `quiet`: do not ask for a key. */
async function call(path, { body, signal, quiet = false } = {}) {
	for (;;) {
		const used = key;
		const response = await sent(path, body, signal);
		if (response.ok) return response;
		const fault = await faultOf(response);
		if (response.status !== 401 || quiet) throw fault;
		if (used !== key) continue; // another request got one meanwhile
		wanted ??= askForKey(fault.message).finally(() => (wanted = null));
		const given = await wanted;
		if (given === null) throw fault;
		key = given;
	}
}

export async function read(path, options) {
	return (await call(path, options)).json();
}

/** {chunk} and {comment} of a streamed reply; throws ApiError where it does not end well. */
export async function* streamed(path, body, signal) {
	const response = await call(path, { body, signal });
	for await (const { data, comment } of frames(response.body)) {
		if (comment !== undefined) yield { comment };
		else if (data === "[DONE]") return;
		else {
			const chunk = JSON.parse(data);
			if (chunk.error) throw new ApiError(200, chunk.error.message);
			yield { chunk };
		}
	}
	throw new ApiError(0, "The connection ended before the reply was complete.");
}

async function sent(path, body, signal) {
	const headers = key === null ? {} : { authorization: `Bearer ${key}` };
	const options = { headers, signal, cache: "no-store", credentials: "omit" };
	if (body !== undefined) {
		headers["content-type"] = "application/json";
		Object.assign(options, { method: "POST", body: JSON.stringify(body) });
	}
	try {
		return await fetch(path, options);
	} catch (fault) {
		if (signal?.aborted) throw fault;
		throw new ApiError(0, "The server cannot be reached. Is it still running?");
	}
}

async function faultOf(response) {
	const after = Number.parseFloat(response.headers.get("retry-after"));
	const { error } = await response.json().catch(() => ({}));
	const message = error?.message ?? `The server answered ${response.status}.`;
	return new ApiError(response.status, message, Number.isNaN(after) ? null : after);
}
