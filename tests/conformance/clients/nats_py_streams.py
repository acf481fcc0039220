"""Cases of streams that drive nats.py as any program would.

    nats_py_streams.py --list          prints "GROUP NAME" per case; the group says which server it needs
    nats_py_streams.py URL NAME...     runs these cases, printing "ok NAME" or "not ok NAME: REASON" for each

The server may be a cluster: then streams have CONFORMANCE_REPLICAS replicas, and a direct get may read
one that is behind.
"""

import asyncio
import os

import nats.errors
import nats.js.errors
from nats.js.api import DiscardPolicy, RePublish, StreamConfig, StorageType

import nats_py
from nats_py import case, check, connect

REPLICAS = int(os.environ.get("CONFORMANCE_REPLICAS", "1"))
# The import also registered the cases of core NATS, which another script runs.
nats_py.CASES.clear()


async def open_stream(url, name, **settings):
    """A client, its JetStream context, and a stream on `name.>` that the server knows to listen."""
    client = await connect(url)
    context = client.jetstream(timeout=10)
    settings.setdefault("subjects", [f"{name}.>"])
    settings.setdefault("storage", StorageType.MEMORY)
    settings.setdefault("allow_direct", True)
    await context.add_stream(name=name, num_replicas=REPLICAS, **settings)
    while True:
        try:
            await context.publish(f"{name}.heard", b"", headers={"Nats-Expected-Stream": "?"})
        except nats.js.errors.NoStreamResponseError:
            await asyncio.sleep(0.01)
        except nats.js.errors.APIError as error:
            check(error.err_code == 10060, error)
            return client, context


async def raised(kind, awaitable):
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was due, {result!r} came")


async def settled(context, stream, seq):
    """Waits until a direct get finds this sequence: the replica that answers may be behind."""
    while True:
        try:
            return await context.get_msg(stream, seq, direct=True)
        except nats.js.errors.NotFoundError:
            check(REPLICAS > 1, f"sequence {seq} is not there")
            await asyncio.sleep(0.01)


@case("streams")
async def a_stream_is_added_and_described(url):
    client, context = await open_stream(url, "pyadd", max_msgs=10, max_age=3600, metadata={"k": "v"})
    info = await context.stream_info("pyadd")
    config = info.config
    check(config.name == "pyadd" and config.subjects == ["pyadd.>"], config)
    check(config.max_msgs == 10 and config.max_bytes == -1 and config.max_age == 3600, config)
    check(config.num_replicas == REPLICAS and config.metadata["k"] == "v", config)
    check(info.state.messages == 0 and info.state.first_seq == 0 and info.state.last_seq == 0, info.state)
    await client.close()


@case("streams")
async def a_stream_is_added_twice_if_equal_and_refused_if_not(url):
    client, context = await open_stream(url, "pytwice", max_msgs=10)
    same = dict(name="pytwice", subjects=["pytwice.>"], storage=StorageType.MEMORY, allow_direct=True, num_replicas=REPLICAS)
    await context.add_stream(max_msgs=10, **same)
    error = await raised(nats.js.errors.BadRequestError, context.add_stream(max_msgs=11, **same))
    check(error.err_code == 10058, error)
    await client.close()


@case("streams")
async def a_publish_is_acknowledged(url):
    client, context = await open_stream(url, "pyack")
    for seq in (1, 2):
        ack = await context.publish("pyack.a", b"x")
        check(ack.stream == "pyack" and ack.seq == seq and not ack.duplicate, ack)
    await client.close()


@case("streams")
async def a_publish_to_no_stream_says_so(url):
    client = await connect(url)
    await raised(nats.js.errors.NoStreamResponseError, client.jetstream().publish("py.no.stream", b"x"))
    await client.close()


@case("streams")
async def a_second_publish_of_an_id_is_a_duplicate(url):
    client, context = await open_stream(url, "pydup")
    headers = {"Nats-Msg-Id": "one"}
    first = await context.publish("pydup.a", b"x", headers=headers)
    again = await context.publish("pydup.a", b"x", headers=headers)
    check(first.seq == again.seq == 1 and again.duplicate and not first.duplicate, again)
    await client.close()


@case("streams")
async def an_unexpected_sequence_is_refused(url):
    client, context = await open_stream(url, "pyexp")
    await context.publish("pyexp.a", b"x")
    headers = {"Nats-Expected-Last-Sequence": "7"}
    error = await raised(nats.js.errors.APIError, context.publish("pyexp.a", b"x", headers=headers))
    check(error.err_code == 10071 and "wrong last sequence: 1" in str(error.description), error)
    await client.close()


@case("streams")
async def a_message_is_got_by_sequence(url):
    client, context = await open_stream(url, "pyget")
    await context.publish("pyget.a", b"one", headers={"X-One": "1"})
    message = await context.get_msg("pyget", 1)
    check(message.data == b"one" and message.subject == "pyget.a" and message.seq == 1, message)
    check(message.headers["X-One"] == "1", message.headers)
    await raised(nats.js.errors.NotFoundError, context.get_msg("pyget", 2))
    await client.close()


@case("streams")
async def a_message_is_got_directly(url):
    client, context = await open_stream(url, "pydirect")
    for subject in ("a", "b", "a", "b"):
        await context.publish(f"pydirect.{subject}", subject.encode(), headers={"X": "y"})
    await settled(context, "pydirect", 4)
    message = await context.get_msg("pydirect", 2, direct=True)
    check(message.data == b"b" and message.seq == 2 and message.subject == "pydirect.b", message)
    check(message.headers["X"] == "y" and message.headers["Nats-Stream"] == "pydirect", message.headers)
    message = await context.get_last_msg("pydirect", "pydirect.a", direct=True)
    check(message.seq == 3, message)
    message = await context.get_msg("pydirect", 2, subject="pydirect.a", direct=True, next=True)
    check(message.seq == 3, message)
    await raised(nats.js.errors.NotFoundError, context.get_msg("pydirect", 9, direct=True))
    await client.close()


@case("streams")
async def the_last_message_of_a_subject_is_got(url):
    client, context = await open_stream(url, "pylast")
    for subject in ("a", "a", "b"):
        await context.publish(f"pylast.{subject}", b"x")
    message = await context.get_last_msg("pylast", "pylast.a")
    check(message.seq == 2, message)
    await client.close()


@case("streams")
async def a_batch_is_read_by_hand(url):
    client, context = await open_stream(url, "pybatch")
    for subject in ("a", "b", "a"):
        await context.publish(f"pybatch.{subject}", b"x")
    await settled(context, "pybatch", 3)
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    request = b'{"seq":1,"next_by_subj":"pybatch.a","batch":10}'
    await client.publish("$JS.API.DIRECT.GET.pybatch", request, reply=inbox)
    messages = [await answers.next_msg(timeout=10) for _ in range(3)]
    check([m.headers.get("Nats-Sequence") for m in messages] == ["1", "3", None], messages)
    check(messages[2].headers["Status"] == "204" and messages[2].headers["Nats-Num-Pending"] == "0", messages[2].headers)
    await client.close()


@case("streams")
async def a_stream_is_purged(url):
    client, context = await open_stream(url, "pypurge")
    for subject in ("a", "b", "a", "b"):
        await context.publish(f"pypurge.{subject}", b"x")
    check(await context.purge_stream("pypurge", subject="pypurge.a"), "it is not purged")
    info = await context.stream_info("pypurge", subjects_filter=">")
    check(info.state.subjects == {"pypurge.b": 2} and info.state.first_seq == 2, info.state)
    check(await context.purge_stream("pypurge", keep=1), "it is not purged")
    check((await context.stream_info("pypurge")).state.messages == 1, "one was due")
    check(await context.purge_stream("pypurge"), "it is not purged")
    state = (await context.stream_info("pypurge")).state
    check(state.messages == 0 and state.first_seq == 5 and state.last_seq == 4, state)
    await client.close()


@case("streams")
async def a_message_is_deleted(url):
    client, context = await open_stream(url, "pydelmsg")
    await context.publish("pydelmsg.a", b"x")
    check(await context.delete_msg("pydelmsg", 1), "it is not deleted")
    await raised(nats.js.errors.NotFoundError, context.get_msg("pydelmsg", 1))
    await client.close()


@case("streams")
async def a_stream_is_updated(url):
    client, context = await open_stream(url, "pyupdate")
    config = (await context.stream_info("pyupdate")).config
    config.max_msgs_per_subject = 1
    config.duplicate_window = 5
    info = await context.update_stream(config)
    check(info.config.max_msgs_per_subject == 1 and info.config.duplicate_window == 5, info.config)
    await context.publish("pyupdate.a", b"1")
    await context.publish("pyupdate.a", b"2")
    check((await context.stream_info("pyupdate")).state.messages == 1, "the limit does not hold")
    await client.close()


@case("streams")
async def a_missing_stream_is_not_found(url):
    client = await connect(url)
    context = client.jetstream()
    for call in (context.stream_info, context.delete_stream, context.purge_stream):
        error = await raised(nats.js.errors.NotFoundError, call("pymissing"))
        check(error.err_code == 10059, error)
    await client.close()


@case("streams")
async def a_stream_is_deleted(url):
    client, context = await open_stream(url, "pydelete")
    check(await context.delete_stream("pydelete"), "it is not deleted")
    await raised(nats.js.errors.NotFoundError, context.stream_info("pydelete"))
    await client.close()


@case("streams")
async def a_stream_is_found_by_subject(url):
    client, context = await open_stream(url, "pyfind")
    check(await context.find_stream_name_by_subject("pyfind.x") == "pyfind", "another name")
    names = [info.config.name for info in await context.streams_info()]
    check("pyfind" in names, names)
    await client.close()


@case("streams")
async def a_full_stream_that_discards_new_refuses(url):
    client, context = await open_stream(url, "pyfull", max_msgs=1, discard=DiscardPolicy.NEW)
    await context.publish("pyfull.a", b"x")
    error = await raised(nats.js.errors.APIError, context.publish("pyfull.a", b"x"))
    check(error.err_code == 10077, error)
    await client.close()


@case("streams")
async def what_is_stored_is_republished(url):
    republish = RePublish(src="pylog.>", dest="pylive.>")
    client, context = await open_stream(url, "pylog", republish=republish)
    copies = await client.subscribe("pylive.>")
    await nats_py.settle(client)
    # On a cluster the leader's node learns of the subscription late.
    message = None
    seq = 0
    while message is None:
        seq = (await context.publish("pylog.a", b"x", headers={"X": "y"})).seq
        try:
            message = await copies.next_msg(timeout=10 if REPLICAS == 1 else 0.2)
        except nats.errors.TimeoutError:
            check(REPLICAS > 1, "no copy came")
    check(message.subject == "pylive.a" and message.data == b"x" and not message.reply, message)
    headers = message.headers
    check(headers["X"] == "y" and headers["Nats-Stream"] == "pylog" and headers["Nats-Subject"] == "pylog.a", headers)
    check(REPLICAS > 1 or (headers["Nats-Sequence"], headers["Nats-Last-Sequence"]) == (str(seq), "0"), headers)
    await client.close()


@case("streams")
async def the_account_is_described(url):
    client, context = await open_stream(url, "pyaccount")
    account = await context.account_info()
    check(account.streams >= 1 and account.limits.max_streams != 0, account)
    await client.close()


@case("streams")
async def a_stream_from_a_configuration_object_is_added(url):
    client = await connect(url)
    config = StreamConfig(name="pyconfig", subjects=["pyconfig.>"], storage=StorageType.FILE, num_replicas=REPLICAS)
    info = await client.jetstream(timeout=10).add_stream(config)
    check(info.config.storage == StorageType.FILE and info.created is not None, info)
    await client.close()


if __name__ == "__main__":
    nats_py.run_as_script(__doc__)
