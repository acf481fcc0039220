"""Cases of streams that drive nats-jetstream, the newer Python client, as any program would.

    nats_jetstream.py --list          prints "GROUP NAME" per case; the group says which server it needs
    nats_jetstream.py URL NAME...     runs these cases, printing "ok NAME" or "not ok NAME: REASON" for each

The server may be a cluster: then streams have CONFORMANCE_REPLICAS replicas.
"""

import asyncio
import os

from nats import jetstream
from nats.client import connect
from nats.jetstream import errors

import nats_core
import nats_py
from nats_core import raised
from nats_py import case, check

REPLICAS = int(os.environ.get("CONFORMANCE_REPLICAS", "1"))
# The import also registered the cases of core NATS, which another script runs.
nats_py.CASES.clear()


async def open_stream(url, name, **settings):
    """A client, its JetStream context, and a stream on `name.>` that the server knows to listen."""
    client = await connect(url)
    context = jetstream.new(client)
    settings = {"subjects": [f"{name}.>"], "storage": "memory", "allow_direct": True, "num_replicas": REPLICAS, **settings}
    stream = await context.create_stream(name=name, **settings)
    while True:
        answer = await client.request(f"{name}.heard", b"", timeout=10, headers={"Nats-Expected-Stream": "?"}, return_on_error=True)
        if answer.status is None:
            return client, context, stream
        await asyncio.sleep(0.01)


@case("streams")
async def the_account_is_described(url):
    client = await connect(url)
    info = await jetstream.new(client).account_info()
    check(info.streams >= 0 and info.api.total >= 0 and info.limits.max_streams != 0, info)
    await client.close()


@case("streams")
async def a_stream_is_made_described_changed_and_deleted(url):
    client, context, stream = await open_stream(url, "njmade", max_msgs=10)
    info = await stream.get_info()
    check(info.config.name == "njmade" and info.config.subjects == ["njmade.>"] and info.config.max_msgs == 10, info)
    check("njmade" in [name async for name in context.stream_names()], "it is not listed")
    changed = await context.update_stream(
        name="njmade", subjects=["njmade.>"], storage="memory", allow_direct=True, num_replicas=REPLICAS, max_msgs=20
    )
    check(changed.config.max_msgs == 20, changed)
    check(await context.delete_stream("njmade"), "it is not deleted")
    await client.close()


@case("streams")
async def an_equal_stream_is_made_again(url):
    client, context, _ = await open_stream(url, "njsame", max_msgs=10)
    settings = {"subjects": ["njsame.>"], "storage": "memory", "allow_direct": True, "num_replicas": REPLICAS}
    await context.create_stream(name="njsame", max_msgs=10, **settings)
    await raised(errors.StreamNameAlreadyInUseError, context.create_stream(name="njsame", max_msgs=11, **settings))
    await client.close()


@case("streams")
async def a_publish_is_acknowledged_and_repeated_as_a_duplicate(url):
    client, context, _ = await open_stream(url, "njack")
    first = await context.publish("njack.a", b"x", headers={"Nats-Msg-Id": "one"})
    again = await context.publish("njack.a", b"x", headers={"Nats-Msg-Id": "one"})
    check(first.stream == "njack" and first.sequence == again.sequence == 1 and again.duplicate, (first, again))
    await client.close()


@case("streams")
async def messages_are_got_and_deleted(url):
    client, context, stream = await open_stream(url, "njget")
    for text in (b"one", b"two", b"three"):
        await context.publish("njget.a", text, headers={"K": "v"})
    message = await context.get_message("njget", 2)
    check(message.data == b"two" and message.sequence == 2 and message.subject == "njget.a", message)
    last = await context.get_last_message_for_subject("njget", "njget.a")
    check(last.data == b"three" and last.sequence == 3, last)
    await stream.delete_message(2)
    await raised(errors.MessageNotFoundError, context.get_message("njget", 2))
    await client.close()


@case("streams")
async def a_stream_is_purged(url):
    client, context, stream = await open_stream(url, "njpurge")
    for _ in range(3):
        await context.publish("njpurge.a", b"x")
    await stream.purge()
    check((await stream.get_info()).state.messages == 0, "messages are left")
    await client.close()


@case("streams")
async def a_stream_without_consumers_has_none(url):
    client, context, stream = await open_stream(url, "njnone")
    check([name async for name in context.consumer_names("njnone")] == [], "there are some")
    await raised(errors.ConsumerNotFoundError, context.get_consumer("njnone", "c"))
    await client.close()


@case("streams")
async def a_consumer_hands_out_messages(url):
    client, context, stream = await open_stream(url, "njconsumer")
    await context.publish("njconsumer.a", b"x")
    consumer = await stream.create_consumer(name="c", durable_name="c", ack_policy="explicit")
    batch = await consumer.fetch(max_messages=1, max_wait=10)
    check([message.data async for message in batch] == [b"x"], "it did not come")
    await client.close()


if __name__ == "__main__":
    nats_py.run_as_script(__doc__)
