// What the checks of clients for Node need.
import { setTimeout as sleep } from "node:timers/promises";

export const stage = JSON.parse(process.env.MOE_CLIENTS);
export const url = `${stage.url}/v1`;
export const key = stage.key;
export const said = "Grüße 👋, you said: ";
export const png =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
export const weather = {
  name: "get_weather",
  description: "Current weather in a city",
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};

export const checks = [];

export function check(name, run) {
  checks.push({ name, run });
}

// What a fake model was asked: {open, requests}.
export async function state(model) {
  return (await fetch(`${stage[model].replace(/\/v1$/, "")}/state`)).json();
}

export async function eventually(isTrue, seconds = 10) {
  const until = Date.now() + seconds * 1000;
  while (Date.now() < until) {
    if (await isTrue()) return true;
    await sleep(20);
  }
  return false;
}

export async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}
