"""Cases that drive nats.py as any program would.

    nats_py.py --list          prints "GROUP NAME" per case; the group says which server it needs
    nats_py.py URL NAME...     runs these cases, printing "ok NAME" or "not ok NAME: REASON" for each

A case of the group "restart" prints "restart" to have the server stopped and started again.
"""

import asyncio
import os
import sys

import nats
import nats.errors

DEADLINE = 20
TOKEN = os.environ.get("CONFORMANCE_TOKEN", "")
USER = os.environ.get("CONFORMANCE_USER", "")
PASSWORD = os.environ.get("CONFORMANCE_PASSWORD", "")

CASES = {}


def case(group):
    """Registers a case; its function gets the URL of the server."""

    def register(function):
        CASES[function.__name__] = (group, function)
        return function

    return register


def check(condition, message):
    if not condition:
        raise AssertionError(message)


async def silent(_error):
    """Drops the client's own log: every error fails its case anyway."""


async def connect(url, **options):
    options.setdefault("error_cb", silent)
    options.setdefault("allow_reconnect", False)
    return await nats.connect(url, **options)


async def settle(client):
    """Returns once the server has handled everything that this client sent.

    flush() would not do: its PING overtakes the client's buffered writes. The answer to a request without responders
    is queued behind them.
    """
    try:
        await client.request("py.settle.nobody", b"", timeout=10)
    except nats.errors.NoRespondersError:
        return
    raise AssertionError("someone answered")


async def take(subscription, count):
    return [await subscription.next_msg(timeout=10) for _ in range(count)]


async def pending(subscription):
    """The messages that have arrived and were not read yet; call settle first."""
    messages = []
    while subscription.pending_msgs:
        messages.append(await subscription.next_msg(timeout=10))
    return messages


@case("open")
async def a_message_reaches_another_client(url):
    one, other = await connect(url), await connect(url)
    subscription = await one.subscribe("py.plain")
    await settle(one)
    await other.publish("py.plain", b"hello")
    [message] = await take(subscription, 1)
    check(message.data == b"hello" and message.subject == "py.plain", message)
    check(not message.reply and not message.headers, message)
    await one.close()
    await other.close()


@case("open")
async def an_empty_payload_arrives(url):
    client = await connect(url)
    subscription = await client.subscribe("py.empty")
    await client.publish("py.empty")
    [message] = await take(subscription, 1)
    check(message.data == b"", message)
    await client.close()


@case("open")
async def a_binary_payload_arrives(url):
    client = await connect(url)
    subscription = await client.subscribe("py.binary")
    payload = bytes(range(256)) + b"\r\nPING\r\n"
    await client.publish("py.binary", payload)
    [message] = await take(subscription, 1)
    check(message.data == payload, "the payload came back changed")
    await client.close()


@case("open")
async def a_message_of_1_mib_arrives(url):
    client = await connect(url)
    subscription = await client.subscribe("py.large")
    await client.publish("py.large", b"x" * (1 << 20))
    [message] = await take(subscription, 1)
    check(len(message.data) == 1 << 20, len(message.data))
    await client.close()


@case("open")
async def a_message_over_the_limit_is_refused_by_the_client(url):
    client = await connect(url)
    check(client.max_payload == 1 << 20, f"max_payload is {client.max_payload}")
    try:
        await client.publish("py.over", b"x" * ((1 << 20) + 1))
    except nats.errors.MaxPayloadError:
        return await client.close()
    raise AssertionError("the limit that INFO tells was not kept")


@case("open")
async def headers_arrive(url):
    client = await connect(url)
    subscription = await client.subscribe("py.headers")
    await client.publish("py.headers", b"body", headers={"traceparent": "00-aa-bb-01", "X-Case": "Kept"})
    [message] = await take(subscription, 1)
    check(message.headers == {"traceparent": "00-aa-bb-01", "X-Case": "Kept"}, message.headers)
    check(message.data == b"body", message.data)
    await client.close()


@case("open")
async def a_reply_subject_arrives(url):
    client = await connect(url)
    subscription = await client.subscribe("py.reply")
    await client.publish("py.reply", b"x", reply="some.where.else")
    [message] = await take(subscription, 1)
    check(message.reply == "some.where.else", message.reply)
    await client.close()


@case("open")
async def wildcards_match(url):
    client = await connect(url)
    star = await client.subscribe("py.wild.*.x")
    tail = await client.subscribe("py.wild.>")
    for subject in ("py.wild.a.x", "py.wild.a.y", "py.wild.b.x", "py.wild", "py.wild.a.x.y"):
        await client.publish(subject)
    await settle(client)
    seen = [message.subject for message in await pending(star)]
    check(seen == ["py.wild.a.x", "py.wild.b.x"], seen)
    seen = [message.subject for message in await pending(tail)]
    check(seen == ["py.wild.a.x", "py.wild.a.y", "py.wild.b.x", "py.wild.a.x.y"], seen)
    await client.close()


@case("open")
async def a_queue_group_on_two_connections_shares_the_work(url):
    one, other = await connect(url), await connect(url)
    first = await one.subscribe("py.queue", queue="workers")
    second = await other.subscribe("py.queue", queue="workers")
    await settle(one)
    await settle(other)
    for number in range(300):
        await one.publish("py.queue", str(number).encode())
    await settle(one)
    await settle(other)
    first, second = await pending(first), await pending(second)
    numbers = sorted(int(message.data) for message in first + second)
    check(numbers == list(range(300)), f"each of 300 was due once: {numbers}")
    check(len(first) > 20 and len(second) > 20, f"not shared out: {len(first)} and {len(second)}")
    await one.close()
    await other.close()


@case("open")
async def several_groups_and_plain_subscriptions_each_get_a_copy(url):
    client = await connect(url)
    subscriptions = [
        await client.subscribe("py.groups", queue="red"),
        await client.subscribe("py.groups", queue="blue"),
        await client.subscribe("py.groups"),
        await client.subscribe("py.*"),
    ]
    for number in range(20):
        await client.publish("py.groups", str(number).encode())
    await settle(client)
    for subscription in subscriptions:
        numbers = [int(message.data) for message in await pending(subscription)]
        check(numbers == list(range(20)), numbers)
    await client.close()


@case("open")
async def unsubscribe_ends_the_subscription(url):
    client = await connect(url)
    got = []

    async def collect(message):
        got.append(message.data)

    subscription = await client.subscribe("py.unsub", cb=collect)
    watcher = await client.subscribe("py.unsub")
    await client.publish("py.unsub", b"before")
    await take(watcher, 1)
    await subscription.unsubscribe()
    await client.publish("py.unsub", b"after")
    await take(watcher, 1)
    check(b"after" not in got, got)
    await client.close()


@case("open")
async def unsubscribe_with_a_limit_ends_after_so_many(url):
    client = await connect(url)
    subscription = await client.subscribe("py.limit")
    await subscription.unsubscribe(limit=3)
    for number in range(10):
        await client.publish("py.limit", str(number).encode())
    await settle(client)
    got = [message.data for message in await take(subscription, 3)]
    check(got == [b"0", b"1", b"2"], got)
    check(subscription.pending_msgs == 0, "more came than the limit")
    await client.close()


@case("open")
async def no_echo_keeps_own_messages_away(url):
    quiet, other = await connect(url, no_echo=True), await connect(url)
    subscription = await quiet.subscribe("py.echo")
    await quiet.publish("py.echo", b"mine")
    await settle(quiet)
    await other.publish("py.echo", b"theirs")
    [message] = await take(subscription, 1)
    check(message.data == b"theirs", message.data)
    await quiet.close()
    await other.close()


async def answer(message):
    await message.respond(b"re: " + message.data)


@case("open")
async def a_request_is_answered(url):
    client, responder = await connect(url), await connect(url)
    await responder.subscribe("py.ask", cb=answer)
    await settle(responder)
    reply = await client.request("py.ask", b"what", timeout=10)
    check(reply.data == b"re: what", reply.data)
    await client.close()
    await responder.close()


@case("open")
async def a_request_of_the_old_style_is_answered(url):
    client = await connect(url)
    await client.subscribe("py.ask.old", cb=answer)
    reply = await client.request("py.ask.old", b"what", timeout=10, old_style=True)
    check(reply.data == b"re: what", reply.data)
    await client.close()


@case("open")
async def two_hundred_requests_at_once_each_get_their_answer(url):
    client, responder = await connect(url), await connect(url)
    await responder.subscribe("py.ask.many", cb=answer)
    await settle(responder)
    replies = await asyncio.gather(
        *(client.request("py.ask.many", str(number).encode(), timeout=10) for number in range(200))
    )
    check([reply.data for reply in replies] == [f"re: {number}".encode() for number in range(200)], "answers mixed up")
    await client.close()
    await responder.close()


@case("open")
async def a_request_that_nobody_hears_fails_at_once(url):
    client = await connect(url)
    try:
        await client.request("py.ask.nobody", b"x", timeout=10)
    except nats.errors.NoRespondersError:
        return await client.close()
    raise AssertionError("someone answered")


@case("open")
async def a_request_that_is_not_answered_times_out(url):
    client = await connect(url)
    await client.subscribe("py.ask.silent")
    try:
        await client.request("py.ask.silent", b"x", timeout=0.1)
    except nats.errors.TimeoutError:
        return await client.close()
    raise AssertionError("someone answered")


@case("open")
async def ten_thousand_messages_keep_their_order(url):
    publisher, client = await connect(url), await connect(url)
    one = await client.subscribe("py.order.x")
    other = await client.subscribe("py.order.*")
    await settle(client)
    for number in range(10_000):
        await publisher.publish("py.order.x", str(number).encode())
    await settle(publisher)
    for subscription in (one, other):
        numbers = [int(message.data) for message in await take(subscription, 10_000)]
        check(numbers == list(range(10_000)), "out of order")
    await publisher.close()
    await client.close()


@case("open")
async def flush_waits_for_the_server(url):
    client = await connect(url)
    await client.flush(timeout=10)
    await client.close()


@case("open")
async def draining_a_client_delivers_what_was_sent(url):
    client = await connect(url)
    got = []

    async def collect(message):
        got.append(message.data)

    await client.subscribe("py.drain", cb=collect)
    for _ in range(100):
        await client.publish("py.drain", b"x")
    await client.drain()
    check(len(got) == 100, f"100 were sent before the drain, {len(got)} came")
    check(client.is_closed, "drain did not close the client")


@case("open")
async def draining_a_subscription_delivers_what_was_sent(url):
    client = await connect(url)
    got = []

    async def collect(message):
        got.append(message.data)

    subscription = await client.subscribe("py.drain.sub", cb=collect)
    for _ in range(100):
        await client.publish("py.drain.sub", b"x")
    await settle(client)
    await subscription.drain()
    check(len(got) == 100, f"100 were sent before the drain, {len(got)} came")
    await settle(client)
    await client.close()


async def refused(url, **options):
    errors = []

    async def note(error):
        errors.append(str(error))

    try:
        client = await connect(url, error_cb=note, max_reconnect_attempts=0, **options)
    except (nats.errors.Error, OSError) as error:
        errors.append(str(error))
        told = " ".join(errors).lower()
        return check("authorization" in told, f"refused, but for {errors}")
    await client.close()
    raise AssertionError("let in")


@case("token")
async def the_right_token_is_let_in(url):
    client = await connect(url, token=TOKEN)
    await settle(client)
    await client.close()


@case("token")
async def a_wrong_token_is_refused(url):
    await refused(url, token="wrong")


@case("token")
async def a_missing_token_is_refused(url):
    await refused(url)


@case("password")
async def the_right_password_is_let_in(url):
    client = await connect(url, user=USER, password=PASSWORD)
    await settle(client)
    await client.close()


@case("password")
async def a_password_in_the_url_is_let_in(url):
    client = await connect(url.replace("nats://", f"nats://{USER}:{PASSWORD}@"))
    await settle(client)
    await client.close()


@case("password")
async def a_wrong_password_is_refused(url):
    await refused(url, user=USER, password="wrong")


@case("restart")
async def subscriptions_are_restored_after_a_restart(url):
    back = asyncio.Event()

    async def reconnected():
        back.set()

    client = await connect(
        url, allow_reconnect=True, reconnect_time_wait=0.05, max_reconnect_attempts=-1, reconnected_cb=reconnected
    )
    plain = await client.subscribe("py.back")
    group = await client.subscribe("py.back", queue="g")
    await client.publish("py.back", b"before")
    await take(plain, 1)
    await take(group, 1)
    print("restart", flush=True)
    await back.wait()
    await settle(client)
    other = await connect(url)
    await other.publish("py.back", b"after")
    for subscription in (plain, group):
        [message] = await take(subscription, 1)
        check(message.data == b"after", message.data)
    await client.close()
    await other.close()


async def run(url, name):
    if name not in CASES:
        return "there is no such case"
    try:
        await asyncio.wait_for(CASES[name][1](url), DEADLINE)
    except asyncio.TimeoutError as error:
        return f"a wait ran out, or the deadline of {DEADLINE} s: {error!r}"
    except Exception as error:  # Whatever it is, it is the reason.
        return f"{type(error).__name__}: {error}"
    return None


async def main(url, names):
    failed = False
    for name in names:
        reason = await run(url, name)
        failed = failed or reason is not None
        print(f"ok {name}" if reason is None else f"not ok {name}: {' '.join(reason.split())}", flush=True)
    return 1 if failed else 0


def run_as_script(usage):
    """Runs the command line."""
    if sys.argv[1:] == ["--list"]:
        for name, (group, _) in CASES.items():
            print(group, name)
    elif len(sys.argv) < 3:
        sys.exit(usage)
    else:
        sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))


if __name__ == "__main__":
    run_as_script(__doc__)
