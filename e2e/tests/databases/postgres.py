"""A client as applications have it: one connection that is kept, and opened anew when it breaks.

    postgres.py HOST PORT

For each number on a line of stdin it asks so many times which server answers, and prints a JSON line: the ports that did, and how often it had to connect.
A connection that cannot be opened at once ends it with 1. So does a minute without an end.
"""

import json
import signal
import sys

import psycopg

HOST, PORT = sys.argv[1:]
connection = None
connects = 0


def connect():
    global connection, connects
    connects += 1
    connection = psycopg.connect(
        host=HOST, port=PORT, user="postgres", dbname="postgres", connect_timeout=10, autocommit=True
    )


def ask():
    """The port of the server that answers. A broken connection costs one other try."""
    for last in (False, True):
        try:
            return connection.execute("select inet_server_port()").fetchone()[0]
        except psycopg.OperationalError:
            if last:
                raise
            connect()


signal.alarm(60)
connect()
for line in sys.stdin:
    ports = sorted({ask() for _ in range(int(line))})
    print(json.dumps({"ports": ports, "connects": connects}), flush=True)
