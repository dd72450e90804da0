"""gRPC through the sidecar: a server and a client of the grpcio library, with bytes as messages.

    grpc_echo.py serve            prints its port, then serves until stdin ends
    grpc_echo.py talk ADDRESS     exit code 0 if everything came back, in every kind of call
"""
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc

LARGE = 3 << 20


class Echo(grpc.GenericRpcHandler):
    cancelled = threading.Event()

    def service(self, details):
        return {
            "/test.Echo/One": grpc.unary_unary_rpc_method_handler(self.one),
            "/test.Echo/Out": grpc.unary_stream_rpc_method_handler(self.out),
            "/test.Echo/In": grpc.stream_unary_rpc_method_handler(self.count),
            "/test.Echo/Both": grpc.stream_stream_rpc_method_handler(self.both),
            "/test.Echo/Refuse": grpc.unary_unary_rpc_method_handler(self.refuse),
            "/test.Echo/Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "/test.Echo/Hang": grpc.unary_stream_rpc_method_handler(self.hang),
            "/test.Echo/Cancelled": grpc.unary_unary_rpc_method_handler(self.was_cancelled),
        }.get(details.method)

    def one(self, message, context):
        context.set_trailing_metadata((("said-bin", b"\x00\xff"), ("said", "all")))
        return message

    def out(self, message, context):
        for n in range(int(message)):
            yield str(n).encode()

    def count(self, messages, context):
        return str(sum(len(message) for message in messages)).encode()

    def both(self, messages, context):
        yield from messages

    def refuse(self, message, context):
        context.set_trailing_metadata((("why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nö: " + message.decode())

    def wait(self, message, context):
        time.sleep(5)
        return message

    def hang(self, message, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        yield b"begun"
        if ended.wait(20):
            self.cancelled.set()

    def was_cancelled(self, message, context):
        return b"yes" if self.cancelled.wait(20) else b"no"


def serve():
    server = grpc.server(ThreadPoolExecutor(32), handlers=(Echo(),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()


def talk(address):
    with grpc.insecure_channel(address) as channel:
        one = channel.unary_unary("/test.Echo/One")
        for message in [b"hello", b"", os.urandom(LARGE)]:
            answer, call = one.with_call(message, timeout=20)
            assert answer == message
            assert dict(call.trailing_metadata()) == {"said-bin": b"\x00\xff", "said": "all"}, call.trailing_metadata()
        assert [int(n) for n in channel.unary_stream("/test.Echo/Out")(b"1000", timeout=20)] == list(range(1000))
        sent = channel.stream_unary("/test.Echo/In")(iter([os.urandom(1 << 20)] * 20), timeout=20)
        assert int(sent) == 20 << 20

        # Each message is sent when the one before it has come back: nothing is held back until the stream ends.
        back = threading.Semaphore(1)

        def ask():
            for n in range(50):
                assert back.acquire(timeout=20)
                yield str(n).encode()

        heard = []
        for message in channel.stream_stream("/test.Echo/Both")(ask(), timeout=30):
            heard.append(int(message))
            back.release()
        assert heard == list(range(50))

        try:
            channel.unary_unary("/test.Echo/Refuse")(b"you", timeout=20)
            raise AssertionError("it was not refused")
        except grpc.RpcError as error:
            assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "nö: you"), error
            assert dict(error.trailing_metadata())["why"] == "because"
        try:
            channel.unary_unary("/test.Echo/None")(b"", timeout=20)
            raise AssertionError("there is no such method")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error
        try:
            channel.unary_unary("/test.Echo/Wait")(b"", timeout=0.5)
            raise AssertionError("the deadline has passed")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error

        # A stream on which nobody says anything is taken back all the same.
        hanging = channel.unary_stream("/test.Echo/Hang")(b"", timeout=60)
        assert next(hanging) == b"begun"
        hanging.cancel()
        assert channel.unary_unary("/test.Echo/Cancelled")(b"", timeout=30) == b"yes"

        with ThreadPoolExecutor(50) as pool:
            calls = [pool.submit(one, str(n).encode(), timeout=30) for n in range(500)]
            assert [int(call.result()) for call in calls] == list(range(500))


if sys.argv[1] == "serve":
    serve()
else:
    talk(sys.argv[2])
