// The Vercel AI SDK, through @ai-sdk/openai (its Responses API and its chat) and @ai-sdk/openai-compatible.
import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, isStepCount, streamObject, streamText, tool } from "ai";
import { z } from "zod";
import { check, collect, key, png, said, stage, url } from "./checks.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const openai = createOpenAI({ baseURL: url, apiKey: key });
const compatible = createOpenAICompatible({
  name: "moe",
  baseURL: url,
  apiKey: key,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const kinds = { responses: (id) => openai(id), chat: (id) => openai.chat(id), compatible: (id) => compatible(id) };
const Person = z.object({ name: z.string(), age: z.number().int() });
const ada = { name: "Paris", age: 7 };
const tools = {
  get_weather: tool({
    description: "Current weather in a city",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `21 °C in ${city}`,
  }),
};
const each = async (run) => {
  for (const [kind, model] of Object.entries(kinds)) {
    try {
      await run(model("auto"), kind, model);
    } catch (error) {
      error.stack = `with ${kind}: ${error.stack} ${error.responseBody ?? ""}`;
      throw error;
    }
  }
};

check("generateText brings text and usage", () =>
  each(async (model) => {
    const { text, usage, finishReason } = await generateText({ model, prompt: "Hello there", maxRetries: 0 });
    assert.equal(text, `${said}Hello there`);
    assert.equal(finishReason, "stop");
    assert.ok(usage.inputTokens > 0 && usage.outputTokens > 0);
  }));

check("streamText brings pieces and usage", () =>
  each(async (model) => {
    const result = streamText({ model, prompt: "Hello there", maxRetries: 0 });
    const pieces = await collect(result.textStream);
    assert.ok(pieces.length > 3);
    assert.equal(pieces.join(""), `${said}Hello there`);
    assert.ok((await result.usage).outputTokens > 0);
  }));

check("a tool is called and its result answered", () =>
  each(async (model) => {
    const prompt = "Weather in Paris?";
    const { text, steps } = await generateText({ model, prompt, tools, stopWhen: isStepCount(3), maxRetries: 0 });
    assert.equal(steps.length, 2);
    assert.equal(text, "The tool says: 21 °C in Paris – voilà.");
  }));

check("a streamed tool call is run and answered", () =>
  each(async (model) => {
    const prompt = "Weather in Paris?";
    const result = streamText({ model, prompt, tools, stopWhen: isStepCount(3), maxRetries: 0 });
    const parts = await collect(result.fullStream);
    assert.deepEqual(parts.find((part) => part.type === "tool-call").input, { city: "Paris" });
    assert.equal(await result.text, "The tool says: 21 °C in Paris – voilà.");
  }));

check("generateObject and streamObject keep to the schema", () =>
  each(async (model) => {
    const asked = { model, schema: Person, prompt: "Who is Ada?", maxRetries: 0 };
    assert.deepEqual((await generateObject(asked)).object, ada);
    const result = streamObject(asked);
    assert.ok((await collect(result.partialObjectStream)).length > 1);
    assert.deepEqual(await result.object, ada);
  }));

check("reasoning is told apart from the text", () =>
  each(async (model, kind) => {
    const result = streamText({ model, prompt: "think hard", maxRetries: 0 });
    assert.equal(await result.text, `${said}think hard`);
    if (kind === "compatible") assert.equal(await result.reasoningText, "Let me see.");
  }));

check("an image goes to an expert that sees", () =>
  each(async (model) => {
    const content = [
      { type: "text", text: "What is this?" },
      { type: "image", image: Buffer.from(png, "base64") },
    ];
    const { text } = await generateText({ model, messages: [{ role: "user", content }], maxRetries: 0 });
    assert.equal(text, "I see images of 70 bytes.");
  }));

check("embeddings", async () => {
  const { embeddings } = await embedMany({ model: openai.embedding("embedder"), values: ["one", "two"] });
  assert.deepEqual(embeddings.map((vector) => vector.length), [8, 8]);
});

check("an error tells its status and whether to retry", () =>
  each(async (_, kind, model) => {
    const ask = (prompt, id) => generateText({ model: model(id), prompt, maxRetries: 0 });
    await assert.rejects(ask("hi", "codr"), (error) => error.statusCode === 404 && !error.isRetryable);
    const busy = ask(`fail 400 1 times, ai ${kind}`, stage.faulty_model);
    await assert.rejects(busy, (error) => error.statusCode === 400 && /refused with 400/.test(error.message));
  }));

check("a stream that breaks off tells an error", () =>
  each(async (_, kind, model) => {
    const errors = [];
    const broken = stage.broken_model + (2 + Object.keys(kinds).indexOf(kind));
    const ask = { model: model(broken), prompt: `please break, ai ${kind}`, maxRetries: 0 };
    const parts = await collect(streamText({ ...ask, onError: ({ error }) => errors.push(error) }).fullStream);
    assert.ok(parts.some((part) => part.type === "text-delta"));
    assert.ok(parts.some((part) => part.type === "error"));
    assert.equal(errors.length, 1);
  }));
