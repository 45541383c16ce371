"""Interpreters for papers that need no walls: forked from one that has loaded torch, 4 CPU seconds saved on each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import psutil

from tools.classroom import sandbox

SERVER = """
import os, signal, socket, sys
import torch, xai_course.checks
from tools.classroom import runner
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
asked = socket.socket(fileno=int(sys.argv[1]))
while fds := socket.recv_fds(asked, 1, 3)[1]:
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asked.close()
        for at, fd in enumerate(fds):
            os.dup2(fd, at)
        runner.main()
        os._exit(0)
    asked.sendall(child.to_bytes(8, "big"))
    for fd in fds:
        os.close(fd)
"""


class Forked:
    """As much of a ``Popen`` as `Sandbox` uses."""

    asked: socket.socket
    one_at_a_time = threading.Lock()

    def __init__(self):
        (orders, stdin), (stdout, reports), (errors, stderr) = os.pipe(), os.pipe(), os.pipe()
        with self.one_at_a_time:
            socket.send_fds(self.asked, [b"!"], [orders, reports, stderr])
            self.pid = int.from_bytes(self.asked.recv(8), "big")
        for fd in (orders, reports, stderr):
            os.close(fd)
        self.stdin, self.stdout, self.stderr = os.fdopen(stdin, "wb"), os.fdopen(stdout, "rb"), os.fdopen(errors, "rb")

    def wait(self) -> None:
        while psutil.pid_exists(self.pid):
            time.sleep(0.01)


@contextmanager
def forks():
    """A server, for as long as the context lasts, from which `Unguarded` gets its interpreters."""
    mine, its = socket.socketpair()
    command = [sys.executable, "-c", SERVER, str(its.fileno())]
    with mine, subprocess.Popen(command, pass_fds=[its.fileno()]) as server:
        its.close()
        Forked.asked = mine
        yield
        server.kill()


class Unguarded(sandbox.Sandbox):
    """A sandbox for papers of our own, which do no harm."""

    def _interpreter(self) -> Forked:
        return Forked()
