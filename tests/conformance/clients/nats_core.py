"""Cases that drive nats-core, the newer Python client, as any program would.

    nats_core.py --list          prints "GROUP NAME" per case; the group says which server it needs
    nats_core.py URL NAME...     runs these cases, printing "ok NAME" or "not ok NAME: REASON" for each
"""

import asyncio

from nats.client import connect
from nats.client.errors import NoRespondersError

import nats_py
from nats_py import PASSWORD, TOKEN, USER, case, check

# The import also registered the cases of nats.py, which another script runs.
nats_py.CASES.clear()


async def raised(kind, awaitable):
    try:
        result = await awaitable
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was due, {result!r} came")


@case("open")
async def it_connects_and_reads_what_the_server_says_of_itself(url):
    client = await connect(url)
    info = client.server_info
    check(info.server_id and info.version and info.go_version, info)
    check(info.host == "127.0.0.1" and str(info.port) == url.rsplit(":", 1)[1], info)
    check(info.headers and not info.auth_required and not info.tls_required, info)
    check(info.max_payload == 1 << 20 and info.proto == 1 and info.client_id, info)
    await client.close()


@case("open")
async def a_message_with_headers_reaches_another_client(url):
    one, other = await connect(url), await connect(url)
    subscription = await one.subscribe("core.plain")
    await one.rtt()
    await other.publish("core.plain", b"hello", headers={"A": ["b", "c"]})
    message = await asyncio.wait_for(subscription.next(), 10)
    check(message.data == b"hello" and message.headers.get_all("A") == ["b", "c"], message)
    await one.close()
    await other.close()


@case("open")
async def a_queue_group_shares_messages(url):
    client = await connect(url)
    one = await client.subscribe("core.queue", queue="g")
    other = await client.subscribe("core.queue", queue="g")
    await client.rtt()
    for _ in range(50):
        await client.publish("core.queue", b"x")
    await client.flush()
    check(one.pending[0] + other.pending[0] == 50, (one.pending, other.pending))
    await client.close()


@case("open")
async def a_request_is_answered(url):
    client = await connect(url)
    subscription = await client.subscribe("core.ask")

    async def answer():
        message = await subscription.next()
        await client.publish(message.reply, message.data + b"!")

    answering = asyncio.create_task(answer())
    message = await client.request("core.ask", b"hello", timeout=10)
    check(message.data == b"hello!", message)
    await answering
    await client.close()


@case("open")
async def a_request_that_nobody_hears_fails_at_once(url):
    client = await connect(url)
    await raised(NoRespondersError, client.request("core.nobody", b"", timeout=10))
    await client.close()


@case("open")
async def draining_hands_out_what_has_come(url):
    client = await connect(url)
    subscription = await client.subscribe("core.drain")
    await client.publish("core.drain", b"last")
    # A ping alone would overtake the writes still buffered in the client.
    await client.flush()
    await subscription.drain()
    check((await asyncio.wait_for(subscription.next(), 10)).data == b"last", "it is gone")
    await client.close()


@case("token")
async def a_token_lets_in(url):
    client = await connect(url, token=TOKEN)
    check(client.server_info.auth_required, client.server_info)
    await client.rtt()
    await client.close()
    await raised(Exception, connect(url, token="wrong", allow_reconnect=False))


@case("password")
async def a_password_lets_in(url):
    client = await connect(url, user=USER, password=PASSWORD)
    await client.rtt()
    await client.close()
    await raised(Exception, connect(url, user=USER, password="wrong", allow_reconnect=False))


if __name__ == "__main__":
    nats_py.run_as_script(__doc__)
