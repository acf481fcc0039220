// Shared by the scripts that drive nats.js: a list of cases, and a command line that runs them.
//
//   SCRIPT --list         prints "GROUP NAME" per case; the group says which server it needs
//   SCRIPT URL NAME...    runs these cases, printing "ok NAME" or "not ok NAME: REASON" for each
//
// A case of the group "restart" prints "restart" to have the server stopped and started again.

import { createRequire } from "node:module";

export const require = createRequire(`${process.env.MC_TEST_NODE_PATH}/`);
export const nats = require("@nats-io/transport-node");

const DEADLINE_MS = 20_000;
export const { CONFORMANCE_TOKEN: TOKEN, CONFORMANCE_USER: USER, CONFORMANCE_PASSWORD: PASSWORD } = process.env;

const cases = new Map();

export function define(group, run) {
  cases.set(run.name, { group, run });
}

export function check(condition, message) {
  if (!condition) throw new Error(typeof message === "string" ? message : JSON.stringify(message));
}

const open = [];

// Every client is closed after each case, failed ones included.
export async function connect(servers, options = {}) {
  const client = await nats.connect({ servers, reconnect: false, ...options });
  open.push(client);
  return client;
}

async function closeAll() {
  await Promise.all(open.splice(0).map((client) => client.close()));
}

const iterators = new WeakMap();

// The next `count` messages; the subscription stays open.
export async function take(subscription, count) {
  // A subscription can be iterated over only once.
  if (!iterators.has(subscription)) iterators.set(subscription, subscription[Symbol.asyncIterator]());
  const iterator = iterators.get(subscription);
  const messages = [];
  while (messages.length < count) {
    const { value, done } = await iterator.next();
    if (done) throw new Error(`the subscription ended after ${messages.length} of ${count} messages`);
    messages.push(value);
  }
  return messages;
}

// Unsubscribes; returns the messages that have arrived and were not read.
export async function finish(subscription) {
  await subscription.drain();
  const messages = [];
  for await (const message of subscription) messages.push(message);
  return messages;
}

export function text(message) {
  return message.string();
}

export function numbers(count) {
  return [...Array(count).keys()];
}

export function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

async function run(url, name) {
  if (!cases.has(name)) return "there is no such case";
  let timer;
  const deadline = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  try {
    await Promise.race([cases.get(name).run(url), deadline]);
    return null;
  } catch (error) {
    return String(error);
  } finally {
    clearTimeout(timer);
    await closeAll();
  }
}

async function main(url, names) {
  let failed = false;
  for (const name of names) {
    const reason = await run(url, name);
    failed ||= reason !== null;
    console.log(reason === null ? `ok ${name}` : `not ok ${name}: ${reason.replace(/\s+/g, " ")}`);
  }
  return failed ? 1 : 0;
}

// Runs the command line; the last call of a script.
export async function runAsScript() {
  const [url, ...names] = process.argv.slice(2);
  if (url === "--list") {
    for (const [name, { group }] of cases) console.log(group, name);
  } else if (names.length === 0) {
    console.error(`usage: ${process.argv[1]} --list | URL NAME...`);
    process.exitCode = 64;
  } else {
    // A client that cannot be closed must not keep the process alive.
    process.exit(await main(url, names));
  }
}
