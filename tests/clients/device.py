"""A device in Python: logs in, subscribes, prints the first message, leaves.

Usage: device.py ADDRESS TOKEN
"""

import asyncio
import json
import sys

import websockets


async def main(address: str, token: str) -> None:
    async with asyncio.timeout(30), websockets.connect(address, proxy=None) as socket:
        for op in ({"op": "auth", "token": token}, {"op": "subscribe", "channel": "@user"}):
            await socket.send(json.dumps(op))
            answer = json.loads(await socket.recv())
            if answer != {"result": True}:
                raise SystemExit(f"{op['op']} was answered {answer}")
        print("subscribed", flush=True)
        print("received", await socket.recv(), flush=True)


sys.stdout.reconfigure(encoding="utf-8")
asyncio.run(main(*sys.argv[1:]))
