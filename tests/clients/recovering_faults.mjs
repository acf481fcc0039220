// Runs the sample client against a scripted server: handlers of its user that are slow or fail, and a refused
// token. The only argument is the path of the client. Exits with 0 if every check holds.

import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const { MessageCenter } = await import(pathToFileURL(process.argv[2]));

// Timers run as soon as nothing else does, except those that give up a silent server.
let timers = new Map();
globalThis.setTimeout = (step, wait) => {
  const timer = { wait };
  timers.set(timer, step);
  return timer;
};
globalThis.clearTimeout = (timer) => timers.delete(timer);
const settle = async () => {
  for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
};
const runTimers = async () => {
  const due = [...timers].filter(([{ wait }]) => wait < 100_000);
  for (const [timer, step] of due) {
    timers.delete(timer);
    step();
  }
  await settle();
  return Math.max(0, ...due.map(([{ wait }]) => wait));
};

class Socket {
  static OPEN = 1;
  static all = [];
  readyState = 0;
  sent = [];
  constructor() {
    Socket.all.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.readyState = 3;
  }
  async open() {
    this.readyState = 1;
    this.onopen();
    await settle();
  }
  async says(frame) {
    this.onmessage({ data: JSON.stringify(frame) });
    await settle();
  }
  async ends(code) {
    this.readyState = 3;
    this.onclose({ code, reason: "" });
    await settle();
  }
  get after() {
    return this.sent.find(({ op }) => op === "subscribe").after;
  }
}
globalThis.WebSocket = Socket;
Math.random = () => 1;

const begin = async (on) => {
  [Socket.all, timers] = [[], new Map()];
  const options = { url: "ws://x", token: async () => "t", quiet: 1_000_000, patience: 1_000_000 };
  const client = new MessageCenter({ ...options, position: "0", ...on });
  return client;
};
const welcome = async (socket, recovered = true) => {
  await socket.open();
  await socket.says({ result: true, i: "auth" });
  await socket.says({ result: true, i: "subscribe", id: "9", recovered });
};
const newest = () => Socket.all.at(-1);

{
  // A handler that fails gets its message again; no later message was handed out or skipped.
  for (const fail of [() => { throw new Error("no"); }, async () => { throw new Error("no"); }]) {
    const [seen, positions, errors] = [[], [], []];
    let broken = true;
    const client = await begin({
      onMessage: (text) => { seen.push(text); return text === "2" && broken ? fail() : undefined; },
      onPosition: (id) => positions.push(id),
      onError: (error) => errors.push(error.message),
    });
    await welcome(newest());
    for (const id of ["1", "2", "3"]) await newest().says({ id, channel: "@user", d: id });
    assert.deepEqual([seen, positions, errors], [["1", "2"], ["1"], ["no"]]);
    const first = await runTimers();
    await welcome(newest());
    assert.equal(newest().after, "1");
    await newest().says({ id: "2", channel: "@user", d: "2" });
    assert.ok((await runTimers()) > first, "it waits longer each time");
    broken = false;
    await welcome(newest());
    for (const id of ["2", "3"]) await newest().says({ id, channel: "@user", d: id });
    assert.deepEqual(positions, ["1", "2", "3"]);
    client.stop();
  }
}
{
  // The list is loaded before any further message is handed out, and only then the position moves.
  const [seen, positions] = [[], []];
  let loaded;
  const client = await begin({
    onMessage: (text) => seen.push(text),
    onReload: () => new Promise((resolve) => { loaded = resolve; }),
    onPosition: (id) => positions.push(id),
  });
  await welcome(newest(), false);
  await newest().says({ id: "10", channel: "@user", d: "10" });
  assert.deepEqual([seen, positions], [[], []]);
  loaded();
  await settle();
  assert.deepEqual([seen, positions], [["10"], ["9", "10"]]);
  client.stop();
}
{
  // A token is refused three times.
  let [asked, end] = [0, undefined];
  await begin({ token: async () => { asked += 1; return "stolen"; }, onEnd: (code) => { end = code; } });
  for (let turn = 0; turn < 10 && end === undefined; turn += 1) {
    await newest().open();
    await newest().says({ code: 2, msg: "Auth Failed", i: "auth" });
    await newest().ends(4401);
    await runTimers();
  }
  assert.deepEqual([asked, end, Socket.all.length], [3, 4401, 3]);
}
{
  // After an expired login a new token is accepted.
  let end;
  const client = await begin({ onEnd: (code) => { end = code; } });
  for (let turn = 0; turn < 5; turn += 1) {
    await welcome(newest());
    await newest().ends(4401);
    await runTimers();
  }
  assert.deepEqual([end, Socket.all.length], [undefined, 6]);
  client.stop();
}
