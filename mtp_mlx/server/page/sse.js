// A stream of server-sent events, however its bytes are cut: {data} or {comment}.

export async function* frames(body) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let held = "";
	let data = [];
	try {
		for (;;) {
			// One that breaks ends too.
			const { value, done } = await reader.read().catch(() => ({ done: true }));
			if (done) return;
			const lines = (held + value).split("\n");
			held = lines.pop();
			for (const raw of lines) {
				const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
				if (line.startsWith(":")) yield { comment: line.slice(1).trim() };
				else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
				else if (line === "" && data.length) {
					yield { data: data.join("\n") };
					data = [];
				}
			}
		}
	} finally {
		reader.cancel().catch(() => {});
	}
}
