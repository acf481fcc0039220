// Cases of streams that drive nats.js as any program would; common.mjs says how the script is called.
//
// The server may be a cluster: then streams have CONFORMANCE_REPLICAS replicas, and a direct get may read one that
// is behind.

import { setTimeout as pause } from "node:timers/promises";

import { check, connect, define, nats, require, runAsScript, same, take } from "./common.mjs";

const { jetstream, jetstreamManager } = require("@nats-io/jetstream");

const REPLICAS = Number(process.env.CONFORMANCE_REPLICAS ?? 1);

function headers(fields) {
  const all = nats.headers();
  for (const [name, value] of Object.entries(fields)) all.append(name, value);
  return all;
}

// The reason of a rejected promise.
async function rejection(promise) {
  const result = await promise.then((value) => ({ value }), (error) => ({ error }));
  if (result.error === undefined) throw new Error(`an error was due, ${JSON.stringify(result.value)} came`);
  return result.error;
}

// The error code in the answer of the API.
async function apiCode(promise) {
  const error = await rejection(promise);
  return error.code ?? error.apiError?.()?.err_code ?? String(error);
}

// A client, its contexts, and a stream on `name.>` that the server knows to listen.
async function openStream(url, name, settings = {}) {
  const client = await connect(url);
  const context = jetstream(client, { timeout: 10_000 });
  const manager = await jetstreamManager(client, { timeout: 10_000 });
  const config = {
    name,
    subjects: [`${name}.>`],
    storage: "memory",
    allow_direct: true,
    num_replicas: REPLICAS,
    ...settings,
  };
  const info = await manager.streams.add(config);
  for (;;) {
    const code = await apiCode(context.publish(`${name}.heard`, "", { expect: { streamName: "?" } }));
    if (code === 10060) return { client, context, manager, info, config };
    check(REPLICAS > 1, `the stream does not listen: ${code}`);
    await pause(10);
  }
}

// Waits until a direct get finds this sequence: the replica that answers may be behind.
async function settled(manager, stream, seq) {
  while ((await manager.direct.getMessage(stream, { seq })) === null) {
    check(REPLICAS > 1, `sequence ${seq} is not there`);
    await pause(10);
  }
}

async function all(iterator) {
  const messages = [];
  for await (const message of iterator) messages.push(message);
  return messages;
}

define("streams", async function a_stream_is_added_and_described(url) {
  const settings = { max_msgs: 10, max_age: 3_600_000_000_000, metadata: { k: "v" } };
  const { manager, info } = await openStream(url, "jsadd", settings);
  const { config, state } = await manager.streams.info("jsadd");
  check(config.name === "jsadd" && same(config.subjects, ["jsadd.>"]), config);
  check(config.max_msgs === 10 && config.max_bytes === -1 && config.max_age === 3_600_000_000_000, config);
  check(config.num_replicas === REPLICAS && config.metadata.k === "v", config);
  check(state.messages === 0 && state.first_seq === 0 && state.last_seq === 0, state);
  check(info.created.length > 0, info);
});

define("streams", async function a_stream_is_added_twice_if_equal_and_refused_if_not(url) {
  const { manager, config } = await openStream(url, "jstwice", { max_msgs: 10 });
  await manager.streams.add(config);
  check((await apiCode(manager.streams.add({ ...config, max_msgs: 11 }))) === 10058, "another error");
});

define("streams", async function a_publish_is_acknowledged(url) {
  const { context } = await openStream(url, "jsack");
  for (const seq of [1, 2]) {
    const ack = await context.publish("jsack.a", "x");
    check(ack.stream === "jsack" && ack.seq === seq && !ack.duplicate, ack);
  }
});

define("streams", async function a_publish_to_no_stream_says_so(url) {
  const client = await connect(url);
  const error = await rejection(jetstream(client).publish("js.no.stream", "x", { retries: 0 }));
  check(/503|respond|jetstream is not enabled/i.test(String(error)), String(error));
});

define("streams", async function a_second_publish_of_an_id_is_a_duplicate(url) {
  const { context } = await openStream(url, "jsdup");
  const first = await context.publish("jsdup.a", "x", { msgID: "one" });
  const again = await context.publish("jsdup.a", "x", { msgID: "one" });
  check(first.seq === 1 && !first.duplicate && again.seq === 1 && again.duplicate, again);
});

define("streams", async function unexpected_sequences_are_refused(url) {
  const { context } = await openStream(url, "jsexp");
  await context.publish("jsexp.a", "x");
  for (const expect of [{ lastSequence: 7 }, { lastSubjectSequence: 7 }]) {
    check((await apiCode(context.publish("jsexp.a", "x", { expect }))) === 10071, expect);
  }
  const ack = await context.publish("jsexp.a", "x", { expect: { lastSequence: 1, lastSubjectSequence: 1 } });
  check(ack.seq === 2, ack);
});

define("streams", async function a_message_is_got_by_sequence(url) {
  const { context, manager } = await openStream(url, "jsget");
  await context.publish("jsget.a", "one", { headers: headers({ "X-One": "1" }) });
  const message = await manager.streams.getMessage("jsget", { seq: 1 });
  check(message.string() === "one" && message.subject === "jsget.a" && message.seq === 1, message.subject);
  check(message.header.get("X-One") === "1", message.header.toString());
  check((await manager.streams.getMessage("jsget", { seq: 2 })) === null, "nothing was due");
});

define("streams", async function a_message_is_got_directly(url) {
  const { context, manager } = await openStream(url, "jsdirect");
  for (const subject of ["a", "b", "a", "b"]) {
    await context.publish(`jsdirect.${subject}`, subject, { headers: headers({ X: "y" }) });
  }
  await settled(manager, "jsdirect", 4);
  const due = [
    [{ seq: 2 }, 2],
    [{ last_by_subj: "jsdirect.a" }, 3],
    [{ seq: 2, next_by_subj: "jsdirect.a" }, 3],
    [{ start_time: new Date(0), next_by_subj: "jsdirect.b" }, 2],
  ];
  for (const [query, seq] of due) {
    const message = await manager.direct.getMessage("jsdirect", query);
    check(message.seq === seq && message.header.get("X") === "y", { query, seq: message.seq });
  }
  check((await manager.direct.getMessage("jsdirect", { seq: 9 })) === null, "nothing was due");
});

define("streams", async function a_batch_is_read(url) {
  const { context, manager } = await openStream(url, "jsbatch");
  for (const subject of ["a", "b", "a", "b", "a"]) await context.publish(`jsbatch.${subject}`, subject);
  await settled(manager, "jsbatch", 5);
  const query = { seq: 1, next_by_subj: "jsbatch.a", batch: 2 };
  const messages = await all(await manager.direct.getBatch("jsbatch", query));
  check(same(messages.map((message) => message.seq), [1, 3]), messages.map((message) => message.seq));
  check(same(messages.map((message) => message.pending), [2, 1]), messages.map((message) => message.pending));
});

define("streams", async function the_last_messages_of_subjects_are_read(url) {
  const { context, manager } = await openStream(url, "jstails");
  for (const subject of ["a", "b", "a", "c"]) await context.publish(`jstails.${subject}`, subject);
  await settled(manager, "jstails", 4);
  const query = { multi_last: ["jstails.a", "jstails.b"] };
  const messages = await all(await manager.direct.getLastMessagesFor("jstails", query));
  check(same(messages.map((message) => message.seq), [2, 3]), messages.map((message) => message.seq));
});

define("streams", async function a_stream_is_purged(url) {
  const { context, manager } = await openStream(url, "jspurge");
  for (const subject of ["a", "b", "a", "b"]) await context.publish(`jspurge.${subject}`, "x");
  check((await manager.streams.purge("jspurge", { filter: "jspurge.a" })).purged === 2, "two were due");
  const { state } = await manager.streams.info("jspurge", { subjects_filter: ">" });
  check(same(state.subjects, { "jspurge.b": 2 }) && state.first_seq === 2, state);
  check((await manager.streams.purge("jspurge", { keep: 1 })).purged === 1, "one was due");
  check((await manager.streams.purge("jspurge", { seq: 5 })).purged === 1, "one was due");
  const after = (await manager.streams.info("jspurge")).state;
  check(after.messages === 0 && after.first_seq === 5 && after.last_seq === 4, after);
});

define("streams", async function a_message_is_deleted(url) {
  const { context, manager } = await openStream(url, "jsdelmsg");
  await context.publish("jsdelmsg.a", "x");
  check(await manager.streams.deleteMessage("jsdelmsg", 1), "it is not deleted");
  check((await manager.streams.getMessage("jsdelmsg", { seq: 1 })) === null, "nothing was due");
});

define("streams", async function a_stream_is_updated(url) {
  const { context, manager } = await openStream(url, "jsupdate");
  const info = await manager.streams.update("jsupdate", { max_msgs_per_subject: 1 });
  check(info.config.max_msgs_per_subject === 1, info.config);
  await context.publish("jsupdate.a", "1");
  await context.publish("jsupdate.a", "2");
  check((await manager.streams.info("jsupdate")).state.messages === 1, "the limit does not hold");
});

define("streams", async function a_missing_stream_is_not_found(url) {
  const manager = await jetstreamManager(await connect(url));
  for (const call of ["info", "delete", "purge"]) {
    check((await apiCode(manager.streams[call]("jsmissing"))) === 10059, call);
  }
});

define("streams", async function a_stream_is_deleted(url) {
  const { manager } = await openStream(url, "jsdelete");
  check(await manager.streams.delete("jsdelete"), "it is not deleted");
  check((await apiCode(manager.streams.info("jsdelete"))) === 10059, "it is there");
});

define("streams", async function streams_are_found_and_listed(url) {
  const { manager } = await openStream(url, "jsfind");
  check((await manager.streams.find("jsfind.x")) === "jsfind", "another name");
  check((await manager.streams.names("jsfind.>").next()).includes("jsfind"), "it has no name");
  const [info] = await manager.streams.list("jsfind.>").next();
  check(info.config.name === "jsfind", info);
});

define("streams", async function a_full_stream_that_discards_new_refuses(url) {
  const { context } = await openStream(url, "jsfull", { max_msgs: 1, discard: "new" });
  await context.publish("jsfull.a", "x");
  check((await apiCode(context.publish("jsfull.a", "x"))) === 10077, "another error");
});

define("streams", async function what_is_stored_is_republished(url) {
  const republish = { src: "jslog.>", dest: "jslive.>" };
  const { client, context, manager } = await openStream(url, "jslog", { republish });
  check((await manager.streams.info("jslog")).config.republish.dest === "jslive.>", "it is not kept");
  const copies = client.subscribe("jslive.>");
  await client.flush();
  const first = take(copies, 1);
  // On a cluster the leader's node learns of the subscription late.
  let message;
  while (message === undefined) {
    await context.publish("jslog.a", "x", { headers: headers({ X: "y" }) });
    const limit = REPLICAS === 1 ? 10_000 : 200;
    [message] = await Promise.race([first, pause(limit, [undefined], { ref: false })]);
    check(message !== undefined || REPLICAS > 1, "no copy came");
  }
  check(message.subject === "jslive.a" && message.string() === "x" && !message.reply, message.subject);
  check(message.headers.get("X") === "y" && message.headers.get("Nats-Subject") === "jslog.a", "other headers");
  check(REPLICAS > 1 || message.headers.get("Nats-Sequence") === "1", message.headers.get("Nats-Sequence"));
});

define("streams", async function the_account_is_described(url) {
  const { manager } = await openStream(url, "jsaccount");
  const account = await manager.getAccountInfo();
  check(account.streams >= 1 && account.limits.max_streams !== 0, account);
});

await runAsScript();
