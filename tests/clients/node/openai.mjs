// The openai client for Node.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { check, collect, eventually, key, png, said, stage, state, url, weather } from "./checks.mjs";

const client = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 0, timeout: 20_000 });
const tools = [{ type: "function", function: weather }];
const Person = z.object({ name: z.string(), age: z.number().int(), tags: z.array(z.string()) });
const ada = { name: "Paris", age: 7, tags: ["Paris"] };
const user = (content) => [{ role: "user", content }];

check("a whole answer tells its usage and request id", async () => {
  const { data, response, request_id: id } = await client.chat.completions
    .create({ model: "auto", messages: user("Hello there") })
    .withResponse();
  assert.equal(data.choices[0].message.content, `${said}Hello there`);
  assert.equal(data.usage.total_tokens, data.usage.prompt_tokens + data.usage.completion_tokens);
  assert.equal(response.headers.get("x-moe-attempts"), "1");
  assert.equal(id, response.headers.get("x-request-id"));
});

check("a stream brings role, text and usage only when asked", async () => {
  for (const [options, expected] of [[{}, 0], [{ stream_options: { include_usage: true } }, 1]]) {
    const chunks = await collect(
      await client.chat.completions.create({ model: "auto", messages: user("Hello"), stream: true, ...options }),
    );
    const choices = chunks.flatMap((chunk) => chunk.choices);
    assert.equal(choices[0].delta.role, "assistant");
    assert.equal(choices.map((choice) => choice.delta.content ?? "").join(""), `${said}Hello`);
    assert.equal(choices.at(-1).finish_reason, "stop");
    assert.equal(chunks.filter((chunk) => chunk.usage).length, expected);
  }
});

check("the tool runner calls the tool and answers with its result", async () => {
  const run = (city) => `21 °C in ${JSON.parse(city).city}`;
  const runner = client.chat.completions.runTools({
    model: "auto",
    stream: true,
    messages: user("Weather in Paris?"),
    tools: [{ type: "function", function: { ...weather, function: run } }],
  });
  assert.equal(await runner.finalContent(), "The tool says: 21 °C in Paris – voilà.");
});

check("a streamed tool call is put together by the helper", async () => {
  const stream = client.chat.completions.stream({ model: "coder", messages: user("Weather in Paris?"), tools });
  const completion = await stream.finalChatCompletion();
  assert.equal(completion.choices[0].finish_reason, "tool_calls");
  assert.equal(completion.choices[0].message.tool_calls[0].function.arguments, '{"city": "Paris"}');
});

check("parse gives an instance of the schema", async () => {
  const format = zodResponseFormat(Person, "person");
  const parsed = await client.chat.completions.parse({
    model: "auto",
    messages: user("Who is Ada?"),
    response_format: format,
  });
  assert.deepEqual(parsed.choices[0].message.parsed, ada);
});

check("an image goes to an expert that sees", async () => {
  const image = { type: "image_url", image_url: { url: `data:image/png;base64,${png}` } };
  const messages = user([{ type: "text", text: "What is this?" }, image]);
  const answer = await client.chat.completions.create({ model: "auto", messages });
  assert.equal(answer.choices[0].message.content, "I see images of 70 bytes.");
});

check("models, embeddings and completions", async () => {
  const models = await collect(await client.models.list());
  assert.equal(models[0].id, "auto");
  assert.equal((await client.models.retrieve("coder")).id, "coder");
  const vectors = [];
  for (const options of [{}, { encoding_format: "float" }]) {
    const found = await client.embeddings.create({ model: "embedder", input: ["one", "two"], ...options });
    vectors.push(found.data.map((item) => item.embedding));
  }
  assert.equal(vectors[0][1].length, 8);
  assert.deepEqual(vectors[0], vectors[1]);
  const stream = await client.completions.create({ model: "coder", prompt: "abc", stream: true });
  assert.equal((await collect(stream)).map((chunk) => chunk.choices[0].text).join(""), " … cba");
});

check("responses are created, streamed, parsed, and call tools", async () => {
  const response = await client.responses.create({ model: "auto", input: "Hello there" });
  assert.equal(response.output_text, `${said}Hello there`);
  const stream = client.responses.stream({
    model: "auto",
    input: "Weather in Paris?",
    tools: [{ type: "function", strict: true, ...weather }],
  });
  const kinds = (await collect(stream)).map((event) => event.type);
  assert.equal(kinds.at(-1), "response.completed");
  assert.equal((await stream.finalResponse()).output[0].arguments, '{"city": "Paris"}');
  const text = { format: zodTextFormat(Person, "person") };
  assert.deepEqual((await client.responses.parse({ model: "auto", input: "Who?", text })).output_parsed, ada);
});

check("errors are the client's own, with their fields", async () => {
  const ask = (options, using = client) =>
    using.chat.completions.create({ model: "auto", messages: user("hi"), ...options });
  await assert.rejects(ask({ messages: [] }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.status, error.type, error.param], [400, "invalid_request_error", "messages"]);
    return Boolean(error.code && error.requestID);
  });
  await assert.rejects(ask({ model: "codr" }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    return error.code === "model_not_found" && error.param === "model";
  });
  const stranger = new OpenAI({ baseURL: url, apiKey: "wrong-key", maxRetries: 0 });
  await assert.rejects(ask({}, stranger), OpenAI.AuthenticationError);
  await assert.rejects(ask({ model: stage.faulty_model, messages: user("fail 429 1 times, node") }), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    return error.headers.get("retry-after") === "1";
  });
});

check("the client retries as it is told and then has its answer", async () => {
  const patient = new OpenAI({ baseURL: url, apiKey: key, maxRetries: 3 });
  const messages = user("fail 503 1 times, node retries");
  const answer = await patient.chat.completions.create({ model: stage.faulty_model, messages });
  assert.match(answer.choices[0].message.content, /node retries/);
  const requests = (await state("faulty")).requests.filter((body) => JSON.stringify(body).includes("node retries"));
  assert.equal(requests.length, 2);
});

check("a stream that breaks off raises", async () => {
  const ask = { model: `${stage.broken_model}0`, messages: user("please break, node"), stream: true };
  await assert.rejects(collect(await client.chat.completions.create(ask)), OpenAI.APIError);
  const input = "please break, node, response";
  await assert.rejects(collect(await client.responses.create({ model: `${stage.broken_model}1`, input, stream: true })));
});

check("a client that leaves or runs out of time frees the expert", async () => {
  const ask = { model: stage.faulty_model, messages: user("please stall"), stream: true };
  const stream = await client.chat.completions.create(ask);
  for await (const chunk of stream) {
    assert.ok(chunk.choices);
    break;
  }
  stream.controller.abort();
  assert.ok(await eventually(async () => (await state("faulty")).open === 0));
  const hang = { model: stage.faulty_model, messages: user("please hang") };
  await assert.rejects(client.chat.completions.create(hang, { timeout: 500 }), OpenAI.APIConnectionTimeoutError);
  assert.ok(await eventually(async () => (await state("faulty")).open === 0));
});

check("a real language model streams words", async () => {
  const ask = { model: "engine", messages: user("Write a long story of a fox."), max_tokens: 6, stream: true };
  const chunks = await collect(await client.chat.completions.create(ask, { timeout: 90_000 }));
  assert.ok(chunks.length > 3);
  assert.ok(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join("").trim());
});
