"""A publisher in Python, as written for connmix: it knows only a URL. Prints body and status.

Usage: publish.py URL CHANNEL TEXT
"""

import sys

import requests

url, channel, text = sys.argv[1:]
answer = requests.post(url, json={"c": channel, "d": text}, timeout=30)
print(answer.text, answer.status_code)
