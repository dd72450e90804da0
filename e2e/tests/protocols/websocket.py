"""WebSocket through the sidecar: a server and a client of the websockets library.

    websocket.py serve            prints its port, then serves until stdin ends
    websocket.py talk ADDRESS     exit code 0 if everything that was said came back
"""
import asyncio
import os
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosedError


async def echo(connection):
    async for message in connection:
        if message == "close":
            return await connection.close(4321, "as you wish")
        await connection.send(message)


async def run_server():
    async with serve(echo, "127.0.0.1", 0, max_size=None, subprotocols=["echo.v2"]) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def talk(address):
    async with connect(f"ws://{address}/chat?room=a%2Fb", max_size=None, subprotocols=["echo.v1", "echo.v2"]) as connection:
        assert connection.subprotocol == "echo.v2", connection.subprotocol
        assert "permessage-deflate" in connection.response.headers["Sec-WebSocket-Extensions"]
        for message in ["hello", "ü" * 10_000, b"", os.urandom(5 << 20)]:
            await connection.send(message)
            assert await connection.recv() == message
        # In fragments, with pings in between.
        await connection.send(iter(["one ", "two ", "three"]))
        assert await connection.recv() == "one two three"
        assert await asyncio.wait_for(await connection.ping(), 10) >= 0
        await connection.send("close")
        try:
            await connection.recv()
            raise AssertionError("it was not closed")
        except ConnectionClosedError as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4321, "as you wish"), closed
    async with asyncio.timeout(30):
        await asyncio.gather(*(one_of_many(address, n) for n in range(100)))


async def one_of_many(address, n):
    async with connect(f"ws://{address}/", open_timeout=30, subprotocols=["echo.v2"]) as connection:
        for turn in range(10):
            await connection.send(f"{n} {turn}")
            assert await connection.recv() == f"{n} {turn}"


if sys.argv[1] == "serve":
    asyncio.run(run_server())
else:
    asyncio.run(talk(sys.argv[2]))
