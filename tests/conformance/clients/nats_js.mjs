// Cases that drive nats.js as any program would; common.mjs says how the script is called.

import {
  TOKEN,
  USER,
  PASSWORD,
  check,
  connect,
  define,
  finish,
  nats,
  numbers,
  same,
  take,
  text,
  runAsScript,
} from "./common.mjs";

define("open", async function a_message_reaches_another_client(url) {
  const [one, other] = [await connect(url), await connect(url)];
  const subscription = one.subscribe("js.plain");
  await one.flush();
  other.publish("js.plain", "hello");
  const [message] = await take(subscription, 1);
  check(text(message) === "hello" && message.subject === "js.plain", text(message));
  check(!message.reply && !message.headers, "it came with a reply subject or headers");
});

define("open", async function an_empty_payload_arrives(url) {
  const client = await connect(url);
  const subscription = client.subscribe("js.empty");
  client.publish("js.empty");
  const [message] = await take(subscription, 1);
  check(message.data.length === 0, text(message));
});

define("open", async function a_binary_payload_arrives(url) {
  const client = await connect(url);
  const subscription = client.subscribe("js.binary");
  const payload = Uint8Array.from(numbers(256));
  client.publish("js.binary", payload);
  const [message] = await take(subscription, 1);
  check(Buffer.compare(message.data, payload) === 0, "the payload came back changed");
});

define("open", async function a_message_of_1_mib_arrives(url) {
  const client = await connect(url);
  const subscription = client.subscribe("js.large");
  client.publish("js.large", new Uint8Array(1 << 20).fill(7));
  const [message] = await take(subscription, 1);
  check(message.data.length === 1 << 20 && message.data.every((byte) => byte === 7), "the payload came back changed");
});

define("open", async function the_limit_in_info_is_understood(url) {
  const client = await connect(url);
  check(client.info.max_payload === 1 << 20, client.info);
  check(client.info.headers === true && client.info.proto === 1, client.info);
});

define("open", async function headers_with_duplicates_arrive(url) {
  const client = await connect(url);
  const subscription = client.subscribe("js.headers");
  const headers = nats.headers();
  headers.append("Accept", "one");
  headers.append("Accept", "two");
  headers.set("traceparent", "00-aa-bb-01");
  client.publish("js.headers", "body", { headers });
  const [message] = await take(subscription, 1);
  check(same(message.headers.values("Accept"), ["one", "two"]), message.headers.values("Accept"));
  check(message.headers.get("traceparent") === "00-aa-bb-01", "a header is missing");
  check(text(message) === "body", text(message));
});

define("open", async function a_reply_subject_arrives(url) {
  const client = await connect(url);
  const subscription = client.subscribe("js.reply");
  client.publish("js.reply", "x", { reply: "some.where.else" });
  const [message] = await take(subscription, 1);
  check(message.reply === "some.where.else", message.reply);
});

define("open", async function wildcards_match(url) {
  const client = await connect(url);
  const [star, tail] = [client.subscribe("js.wild.*.x"), client.subscribe("js.wild.>")];
  for (const subject of ["js.wild.a.x", "js.wild.a.y", "js.wild.b.x", "js.wild", "js.wild.a.x.y"]) {
    client.publish(subject);
  }
  const seen = [await finish(star), await finish(tail)].map((messages) => messages.map((message) => message.subject));
  check(same(seen[0], ["js.wild.a.x", "js.wild.b.x"]), seen[0]);
  check(same(seen[1], ["js.wild.a.x", "js.wild.a.y", "js.wild.b.x", "js.wild.a.x.y"]), seen[1]);
});

define("open", async function a_queue_group_on_two_connections_shares_the_work(url) {
  const [one, other] = [await connect(url), await connect(url)];
  const subscriptions = [one, other].map((client) => client.subscribe("js.queue", { queue: "workers" }));
  await one.flush();
  await other.flush();
  for (const number of numbers(300)) one.publish("js.queue", String(number));
  await one.flush();
  await other.flush();
  const [first, second] = [await finish(subscriptions[0]), await finish(subscriptions[1])];
  const seen = [...first, ...second].map((message) => Number(text(message))).sort((a, b) => a - b);
  check(same(seen, numbers(300)), `each of 300 was due once: ${seen}`);
  check(first.length > 20 && second.length > 20, `not shared out: ${first.length} and ${second.length}`);
});

define("open", async function several_groups_and_plain_subscriptions_each_get_a_copy(url) {
  const client = await connect(url);
  const subscriptions = [
    client.subscribe("js.groups", { queue: "red" }),
    client.subscribe("js.groups", { queue: "blue" }),
    client.subscribe("js.groups"),
    client.subscribe("js.*"),
  ];
  for (const number of numbers(20)) client.publish("js.groups", String(number));
  for (const subscription of subscriptions) {
    const seen = (await finish(subscription)).map((message) => Number(text(message)));
    check(same(seen, numbers(20)), seen);
  }
});

define("open", async function unsubscribe_ends_the_subscription(url) {
  const client = await connect(url);
  const [leaving, watcher] = [client.subscribe("js.unsub"), client.subscribe("js.unsub")];
  client.publish("js.unsub", "before");
  await take(watcher, 1);
  leaving.unsubscribe();
  client.publish("js.unsub", "after");
  await take(watcher, 1);
  const seen = [];
  for await (const message of leaving) seen.push(text(message));
  check(!seen.includes("after"), seen);
});

define("open", async function a_maximum_ends_the_subscription_after_so_many(url) {
  const client = await connect(url);
  const subscription = client.subscribe("js.max", { max: 3 });
  for (const number of numbers(10)) client.publish("js.max", String(number));
  const seen = [];
  for await (const message of subscription) seen.push(text(message));
  check(same(seen, ["0", "1", "2"]), seen);
});

define("open", async function no_echo_keeps_own_messages_away(url) {
  const [quiet, other] = [await connect(url, { noEcho: true }), await connect(url)];
  const subscription = quiet.subscribe("js.echo");
  quiet.publish("js.echo", "mine");
  await quiet.flush();
  other.publish("js.echo", "theirs");
  const [message] = await take(subscription, 1);
  check(text(message) === "theirs", text(message));
});

define("open", async function verbose_and_pedantic_clients_work(url) {
  const client = await connect(url, { verbose: true, pedantic: true });
  const subscription = client.subscribe("js.verbose.*");
  client.publish("js.verbose.x", "hello");
  const [message] = await take(subscription, 1);
  check(text(message) === "hello", text(message));
  await client.flush();
});

// Answers requests with their own payload.
function respond(client, subject) {
  client.subscribe(subject, { callback: (_error, message) => message.respond(`re: ${text(message)}`) });
  return client.flush();
}

define("open", async function a_request_is_answered(url) {
  const [client, responder] = [await connect(url), await connect(url)];
  await respond(responder, "js.ask");
  const reply = await client.request("js.ask", "what", { timeout: 10_000 });
  check(text(reply) === "re: what", text(reply));
});

define("open", async function a_request_without_the_shared_inbox_is_answered(url) {
  const client = await connect(url);
  await respond(client, "js.ask.own");
  const reply = await client.request("js.ask.own", "what", { timeout: 10_000, noMux: true });
  check(text(reply) === "re: what", text(reply));
});

define("open", async function two_hundred_requests_at_once_each_get_their_answer(url) {
  const [client, responder] = [await connect(url), await connect(url)];
  await respond(responder, "js.ask.many");
  const asks = numbers(200).map((number) => client.request("js.ask.many", String(number), { timeout: 10_000 }));
  const replies = (await Promise.all(asks)).map(text);
  check(same(replies, numbers(200).map((number) => `re: ${number}`)), "answers mixed up");
});

async function failure(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it did not fail");
}

define("open", async function a_request_that_nobody_hears_fails_at_once(url) {
  const client = await connect(url);
  const error = await failure(client.request("js.ask.nobody", "x", { timeout: 10_000 }));
  const cause = error instanceof nats.NoRespondersError || error.cause instanceof nats.NoRespondersError;
  check(cause, `no responders was due, ${error} came`);
});

define("open", async function a_request_that_is_not_answered_times_out(url) {
  const client = await connect(url);
  client.subscribe("js.ask.silent", { callback: () => {} });
  const error = await failure(client.request("js.ask.silent", "x", { timeout: 100 }));
  const cause = error instanceof nats.TimeoutError || error.cause instanceof nats.TimeoutError;
  check(cause, `a timeout was due, ${error} came`);
});

define("open", async function many_answers_to_one_request_are_collected(url) {
  const client = await connect(url);
  for (const _ of numbers(3)) await respond(client, "js.ask.all");
  const answers = await client.requestMany("js.ask.all", "x", { maxMessages: 3, maxWait: 10_000, strategy: "count" });
  let count = 0;
  for await (const _ of answers) count += 1;
  check(count === 3, `3 answers were due, ${count} came`);
});

define("open", async function ten_thousand_messages_keep_their_order(url) {
  const [publisher, client] = [await connect(url), await connect(url)];
  const subscriptions = [client.subscribe("js.order.x"), client.subscribe("js.order.*")];
  await client.flush();
  for (const number of numbers(10_000)) publisher.publish("js.order.x", String(number));
  await publisher.flush();
  for (const subscription of subscriptions) {
    const seen = (await take(subscription, 10_000)).map((message) => Number(text(message)));
    check(same(seen, numbers(10_000)), "out of order");
  }
});

define("open", async function draining_a_client_delivers_what_was_sent(url) {
  const client = await connect(url);
  let count = 0;
  client.subscribe("js.drain", { callback: () => (count += 1) });
  for (const _ of numbers(100)) client.publish("js.drain", "x");
  await client.drain();
  check(count === 100, `100 were sent before the drain, ${count} came`);
  check(client.isClosed(), "drain did not close the client");
});

define("open", async function a_round_trip_can_be_measured(url) {
  const client = await connect(url);
  const milliseconds = await client.rtt();
  check(milliseconds >= 0, `the round trip took ${milliseconds} ms`);
});

async function refused(url, options) {
  const error = await failure(connect(url, options));
  check(error instanceof nats.AuthorizationError, `an authorization error was due, ${error} came`);
}

define("token", async function the_right_token_is_let_in(url) {
  await (await connect(url, { token: TOKEN })).flush();
});

define("token", async function a_wrong_token_is_refused(url) {
  await refused(url, { token: "wrong" });
});

define("token", async function a_missing_token_is_refused(url) {
  await refused(url, {});
});

define("password", async function the_right_password_is_let_in(url) {
  await (await connect(url, { user: USER, pass: PASSWORD })).flush();
});

define("password", async function a_wrong_password_is_refused(url) {
  await refused(url, { user: USER, pass: "wrong" });
});

define("restart", async function subscriptions_are_restored_after_a_restart(url) {
  const client = await connect(url, { reconnect: true, reconnectTimeWait: 50, maxReconnectAttempts: -1 });
  const subscriptions = [client.subscribe("js.back"), client.subscribe("js.back", { queue: "g" })];
  client.publish("js.back", "before");
  for (const subscription of subscriptions) await take(subscription, 1);
  const back = (async () => {
    for await (const status of client.status()) if (status.type === "reconnect") return;
  })();
  console.log("restart");
  await back;
  await client.flush();
  const other = await connect(url);
  other.publish("js.back", "after");
  for (const subscription of subscriptions) {
    const [message] = await take(subscription, 1);
    check(text(message) === "after", text(message));
  }
});

await runAsScript();
