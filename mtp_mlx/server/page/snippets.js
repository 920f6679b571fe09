// Code to copy: requests to this server for other clients. Keys are named, never written out.

const KEY = "MTP_MLX_API_KEY";

/** The request of a reply without what only this page needs; `seed`: the one that was used. */
export function bare(body, seed) {
	const { spec_trace: _, ...kept } = body;
	return seed === undefined || seed === null ? kept : { ...kept, seed };
}

export function curl(base, body, withKey) {
	const key = withKey ? ` \\\n  -H "Authorization: Bearer $${KEY}"` : "";
	const json = JSON.stringify(body, null, 2).replaceAll("'", "'\\''");
	return `curl ${base}/chat/completions \\
  -H 'Content-Type: application/json'${key} \\
  -d '${json}'`;
}

/** Names that are arguments of the openai client; the others travel in extra_body. */
const OPENAI = new Set(["model", "messages", "temperature", "max_tokens", "seed", "tools"]);

export function python(base, body, withKey) {
	const fields = Object.entries(body);
	const given = fields.filter(([name]) => OPENAI.has(name));
	const extra = fields.filter(([name]) => !OPENAI.has(name));
	const lines = given.map(([name, value]) => `    ${name}=${literal(value)},`);
	if (extra.length) lines.push(`    extra_body=${literal(Object.fromEntries(extra))},`);
	return `${withKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url=${literal(base)}, api_key=${keyOf(withKey)})
reply = client.chat.completions.create(
${lines.join("\n")}
)
print(reply.choices[0].message.content)`;
}

const keyOf = (withKey) => (withKey ? `os.environ["${KEY}"]` : '"not needed"');

/** A value of JSON as Python writes it. */
function literal(value) {
	const names = { true: "True", false: "False", null: "None" };
	const json = JSON.stringify(value, null, 4).replaceAll("\n", "\n    ");
	return json.replace(/"(?:[^"\\]|\\.)*"|\b(?:true|false|null)\b/g, (part) => names[part] ?? part);
}

export function openWebUi(base, withKey) {
	return `pip install open-webui
OPENAI_API_BASE_URL=${base} \\
OPENAI_API_KEY=${withKey ? `"$${KEY}"` : "not-needed"} \\
open-webui serve --port 3000`;
}

export function swift(base, model, withKey) {
	const key = withKey
		? `\nlet key = ProcessInfo.processInfo.environment["${KEY}"]!
request.setValue("Bearer \\(key)", forHTTPHeaderField: "Authorization")`
		: "";
	return `import Foundation

struct Chunk: Decodable {
    struct Choice: Decodable { let delta: Delta }
    struct Delta: Decodable { let content: String? }
    let choices: [Choice]
}

var request = URLRequest(url: URL(string: ${JSON.stringify(`${base}/chat/completions`)})!)
request.httpMethod = "POST"
request.setValue("application/json", forHTTPHeaderField: "Content-Type")${key}
request.httpBody = try JSONSerialization.data(withJSONObject: [
    "model": ${JSON.stringify(model)},
    "messages": [["role": "user", "content": "Tell me a story about a fox."]],
    "stream": true,
])

let (bytes, response) = try await URLSession.shared.bytes(for: request)
guard (response as? HTTPURLResponse)?.statusCode == 200 else { throw URLError(.badServerResponse) }
for try await line in bytes.lines where line.hasPrefix("data: ") && line != "data: [DONE]" {
    let chunk = try JSONDecoder().decode(Chunk.self, from: Data(line.dropFirst(6).utf8))
    print(chunk.choices.first?.delta.content ?? "", terminator: "")
}`;
}
