"""Stands in for `bioxen-worker` and misbehaves as the name says under which it was started.

It takes orders as a zygote does: standard input is a socket that keeps messages apart, and with each
order comes the worker's end of its connection.
"""
import os
import signal
import socket
import struct
import sys
import time

behaviour = os.path.basename(__file__).removesuffix(".py")


def frame(payload):
    return struct.pack(">I", len(payload)) + payload


def text(word):
    return bytes([0xA0 + len(word)]) + word.encode()


SANDBOXED = frame(b"\x81" + text("sandboxed") + b"\x92\x90\x80")


def hello(version=1):
    return frame(b"\x81" + text("hello") + bytes([0x93, version]) + text("Lua 5.4.0") + text("unknown"))


def end(number):
    # id, status, values, error, exit code, cpu time, peak, cut, state lost
    return frame(b"\x81" + text("end") + b"\x99" + bytes([number]) + text("finished")
                 + b"\x90\xc0\xc0\xc0\xc0\x92\xc2\xc2\xc2")


def output(data):
    return frame(b"\x81" + text("output") + b"\x92" + text("stdout")
                 + b"\xc6" + struct.pack(">I", len(data)) + data)


def nested():
    return frame(b"\x81" + text("end") + b"\x99\x01" + text("finished") + b"\x91" * 100_000)


ANSWERS = {
    "garbage": b"HTTP/1.1 200 OK\r\n\r\n" * 50,
    "zeros": bytes(4096),
    "no_message": frame(b"\xc1" * 64),
    "huge_frame": b"\xff\xff\xff\xff" + bytes(64),
    "wrong_number": end(99),
    "too_much_output": output(bytes(17 << 20)),
    "hello_again": hello(),
    "nested": nested(),
    "fatal": frame(b"\x81" + text("fatal") + text("no reason")),
    "half_a_frame": frame(bytes(100))[:50],
    "well": end(1),
}


def serve(connection):
    """A worker's life: it introduces itself, and answers the first evaluation as it pleases."""
    introductions = {
        "garbage_first": b"garbage " * 100,
        "wrong_version": SANDBOXED + hello(version=77),
        "not_held_in": hello(),
        "endless_introduction": SANDBOXED * 10_000,
        "closes_at_once": b"",
        "silent_worker": None,
    }
    introduction = introductions.get(behaviour, SANDBOXED + hello())
    if introduction is None:
        time.sleep(1000)
    connection.sendall(introduction)
    if behaviour in introductions:
        return
    seen = b""
    while b"evaluate" not in seen:
        data = connection.recv(65536)
        if not data:
            return
        seen += data
    connection.sendall(ANSWERS[behaviour])
    if behaviour != "half_a_frame":
        time.sleep(1000)


def main():
    if behaviour == "silent_zygote":
        time.sleep(1000)
    if behaviour == "says_why":
        sys.exit("this worker will not")
    control = socket.socket(fileno=0)
    if behaviour == "garbage_from_zygote":
        control.send(b"\xc1garbage")
    control.send(b"\x81" + text("ready") + b"\x92\x90\x80")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 200_000, 1)
        if not message:
            os.kill(0, signal.SIGKILL)
        number = message[1:2]  # the first field; small numbers are one byte
        if behaviour == "dies_on_order":
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "refuses":
            control.send(b"\x81" + text("refused") + b"\x92" + number + text("no room"))
            continue
        worker = os.fork()
        if worker == 0:
            # Workers are killed as process groups.
            os.setpgid(0, 0)
            control.close()
            serve(socket.socket(fileno=descriptors[0]))
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        named = b"\xce" + struct.pack(">I", worker)
        control.send(b"\x81" + text("forked") + b"\x92" + number + named)
        if behaviour == "half_a_frame":
            os.waitpid(worker, 0)
            exited = b"\x93\x81" + text("exited") + b"\x00\x00\x00"
            control.send(b"\x81" + text("ended") + b"\x92" + named + exited)


os.setpgid(0, 0)
main()
