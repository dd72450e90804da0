"""Many connections at once, held where the caller wants to look.

    crowd.py idle|upload PORT COUNT

idle: each has one GET answered. upload: each sends half of 256 KiB. Then `there` is printed, and a line on stdin lets the uploads end; `done` is printed when
every one of them was answered with 200.
"""
import asyncio
import resource
import sys

UPLOAD = 256 * 1024


async def main(kind, port, count):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    # Not all in one moment: a queue of connections that overflows would be measured, and not the proxy.
    gate = asyncio.Semaphore(128)
    people = await asyncio.gather(*(arrive(gate, kind, port) for _ in range(count)))
    print("there", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    if kind == "upload":
        await asyncio.gather(*(finish(*person) for person in people))
    for _, writer in people:
        writer.close()
    print("done", flush=True)


async def arrive(gate, kind, port):
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if kind == "idle":
        writer.write(b"GET /small HTTP/1.1\r\nHost: bench\r\n\r\n")
        await answered(reader)
    else:
        writer.write(b"PUT /upload HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % UPLOAD)
        writer.write(bytes(UPLOAD // 2))
        await writer.drain()
    return reader, writer


async def finish(reader, writer):
    writer.write(bytes(UPLOAD // 2))
    await writer.drain()
    await answered(reader)


async def answered(reader):
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode("latin-1").lower()
    if not head.startswith("http/1.1 200"):
        sys.exit("not 200: " + head.splitlines()[0])
    length = next(int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:"))
    await asyncio.wait_for(reader.readexactly(length), 30)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
