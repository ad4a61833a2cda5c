// What the official client for Node makes of the server: one JSON object on standard output.
import OpenAI from "openai";

const [url, request] = process.argv.slice(2);
const { model, plain, call, tools, failing } = JSON.parse(request);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });

const models = [];
for await (const entry of client.models.list()) models.push(entry.id);

const whole = await client.chat.completions.create({ model, messages: plain });

const stream = await client.chat.completions.create({
  model,
  messages: plain,
  stream: true,
  stream_options: { include_usage: true },
});
const streamed = { content: "", reasoning: "", reasons: [], usage: null };
for await (const chunk of stream) {
  streamed.usage = chunk.usage ?? streamed.usage;
  for (const { delta, finish_reason } of chunk.choices) {
    streamed.content += delta.content ?? "";
    streamed.reasoning += delta.reasoning_content ?? "";
    if (finish_reason) streamed.reasons.push(finish_reason);
  }
}

// The client's own accumulator, which is strict about the shape of deltas.
const runner = client.chat.completions.stream({ model, messages: call, tools });
const called = (await runner.finalChatCompletion()).choices[0];

// Its accumulator for responses, too.
const responses = client.responses.stream({ model, input: plain });
const responded = (await responses.finalResponse()).output.at(-1).content[0].text;

const left = await client.chat.completions.create({ model, messages: plain, stream: true });
for await (const _ of left) break;

let error = null;
try {
  await client.chat.completions.create({ model: "gpt-4", messages: failing });
} catch (caught) {
  error = { name: caught.constructor.name, status: caught.status, code: caught.code };
}

console.log(JSON.stringify({ models, whole, streamed, called, responded, error }));
