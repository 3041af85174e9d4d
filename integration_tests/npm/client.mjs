// The Vercel AI SDK as a client: `node client.mjs URL API` asks a server in each of the SDK's ways, and prints what came as JSON.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, Output, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, api] = process.argv.slice(2);
const settings = { baseURL, apiKey: "none", name: "rlfocal" };
const openai = createOpenAI(settings);
const model = {
  chat: () => openai.chat("rlfocal"),
  responses: () => openai.responses("rlfocal"),
  compatible: () => createOpenAICompatible({ ...settings, supportsStructuredOutputs: true, includeUsage: true })("rlfocal"),
}[api]();
// The SDK refers to stored items otherwise, and no server that stores nothing can know them.
const stateless = { model, maxRetries: 0, providerOptions: { openai: { store: false } } };

const weather = tool({
  description: "Tells the weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `Fog in ${city}.`,
});
const person = z.object({ name: z.string(), age: z.number().int() });

async function streamed(result) {
  let text = "", pieces = 0;
  for await (const piece of result.textStream) {
    text += piece;
    pieces += 1;
  }
  return { text, pieces, finish: await result.finishReason, usage: (await result.usage).totalTokens };
}

const failures = [];
const onError = ({ error }) => failures.push(String(error));
const capital = { ...stateless, prompt: "What is the capital of Peru?" };
const question = { ...stateless, prompt: "Ask the tool `weather` about Lima.", tools: { weather }, stopWhen: stepCountIs(3) };

const whole = await generateText(capital);
const looped = await generateText(question);
const object = await generateObject({ ...stateless, schema: person, prompt: "Who is 'Ada', at 36?" });
const output = await generateText({ ...stateless, output: Output.object({ schema: person }), prompt: "Who is 'Ada', at 36?" });
const partial = streamObject({ ...stateless, schema: person, prompt: "Who is 'Ada', at 36?", onError });
for await (const _ of partial.partialObjectStream);

let referring = null;
if (api === "responses") {
  try {
    const turns = [{ role: "user", content: capital.prompt }, ...whole.response.messages, { role: "user", content: "Why?" }];
    await generateText({ model, maxRetries: 0, messages: turns });
  } catch (error) {
    referring = { status: error.statusCode, message: error.message };
  }
}

console.log(
  JSON.stringify({
    whole: { text: whole.text, finish: whole.finishReason, usage: whole.usage.totalTokens },
    streamed: await streamed(streamText({ ...capital, onError })),
    looped: {
      text: looped.text,
      steps: looped.steps.map((step) => step.toolCalls.map((call) => [call.toolName, call.input])),
    },
    loopedStream: await streamed(streamText({ ...question, onError })),
    object: object.object,
    output: output.output,
    partial: await partial.object,
    referring,
    failures,
  }),
);
