"""A publisher in Python over the publishing WebSocket: it knows only a URL. Prints one answer per line.

Publishes TEXT once for each line of standard input, so that the test decides when.

Usage: publish_socket.py URL CHANNEL TEXT
"""

import json
import sys

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

url, channel, text = sys.argv[1:]
try:
    with connect(url, proxy=None, open_timeout=30) as socket:
        for number, _ in enumerate(sys.stdin):
            call = {"m": "mesh.publish", "p": {"c": channel, "d": text}, "i": number}
            socket.send(json.dumps(call))
            print(socket.recv(timeout=30), flush=True)
except InvalidStatus as refused:
    print("refused", refused.response.status_code, flush=True)
except ConnectionClosed as closed:
    print("closed", closed.rcvd and closed.rcvd.code, flush=True)
