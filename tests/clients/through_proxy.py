"""A device and a back end in Python, over TLS: messages published by POST and by WebSocket reach the device.

Usage: through_proxy.py DEVICES PUBLISHING CA TOKEN USER
  DEVICES     host:port of the WebSocket for devices
  PUBLISHING  host:port for back ends
  CA          PEM file of the authority behind both certificates
"""

import asyncio
import json
import ssl
import sys
import urllib.request

import websockets


def post(url: str, body: dict, trust: ssl.SSLContext) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
    )
    with opener.open(request, timeout=20) as answer:
        return json.load(answer)


async def main(devices: str, publishing: str, ca: str, token: str, user: str) -> None:
    trust = ssl.create_default_context(cafile=ca)
    counted = {"s": 1, "f": 0}
    address = f"wss://{devices}/message-center"
    async with asyncio.timeout(30), websockets.connect(address, ssl=trust, proxy=None) as device:
        for op in ({"op": "auth", "token": token}, {"op": "subscribe", "channel": "@user"}):
            await device.send(json.dumps(op))
            assert json.loads(await device.recv()) == {"result": True}, op
        message = {"c": f"user:{user}", "d": "by POST"}
        answer = await asyncio.to_thread(post, f"https://{publishing}/v1/mesh/publish", message, trust)
        assert answer == {"E": None, "r": counted}, answer
        assert await device.recv() == "by POST"
        async with websockets.connect(f"wss://{publishing}/ws/v1", ssl=trust, proxy=None) as publisher:
            message["d"] = "by WebSocket"
            await publisher.send(json.dumps({"m": "mesh.publish", "p": message, "i": 7}))
            answer = json.loads(await publisher.recv())
            assert answer == {"E": None, "r": counted, "i": 7}, answer
        assert await device.recv() == "by WebSocket"


asyncio.run(main(*sys.argv[1:]))
