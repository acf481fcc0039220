"""A recovering device in Python: reads one address per line, and continues at each from its last id.

Usage: recover.py TOKEN
"""

import asyncio
import json
import sys

import websockets


async def session(address: str, token: str, last: str) -> str:
    """Receives until the connection ends; returns the last id."""
    async with websockets.connect(address, proxy=None) as socket:
        await socket.send(json.dumps({"op": "auth", "token": token}))
        await socket.send(json.dumps({"op": "subscribe", "channel": "@user", "after": last}))
        if (answer := json.loads(await socket.recv())) != {"result": True}:
            raise SystemExit(f"auth was answered {answer}")
        answer = json.loads(await socket.recv())
        if answer.get("result") is not True:
            raise SystemExit(f"subscribe was answered {answer}")
        first, last = last == "", answer["id"] if last == "" or not answer["recovered"] else last
        print("subscribed" if first else "recovered" if answer["recovered"] else "reload", flush=True)
        try:
            async for frame in socket:
                message = json.loads(frame)
                if message.get("event") == "@reload":
                    print("reload", flush=True)
                elif "d" in message:
                    print("message", message["d"], flush=True)
                # @position, @reload and every message have an id; @reconnect has none.
                last = message.get("id", last)
        except websockets.ConnectionClosed:
            pass
    print("gone", flush=True)
    return last


async def main(token: str) -> None:
    last = ""
    while address := (await asyncio.to_thread(sys.stdin.readline)).strip():
        last = await session(address, token, last)


sys.stdout.reconfigure(encoding="utf-8")
asyncio.run(asyncio.wait_for(main(sys.argv[1]), 120))
