"""What tests of the built `hotcell` (path in HOTCELL_CLI) share."""

import os
import socket
import subprocess
import threading
import unittest

from fake_server import FakeServer, ended, execution, queued

HOTCELL = os.environ["HOTCELL_CLI"]
TIMEOUT = 60  # for what should take milliseconds, on a busy machine
UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"


def started():
    return {"started": execution.Started(context_generation=1, execution_count=1)}


def play(*events):
    """A script of fixed events between `started` and an end that is OK unless the last one is `ended`."""
    def script(_server, _after):
        yield queued()
        yield started()
        yield from events
        if not events or "ended" not in events[-1]:
            yield ended(execution.OUTCOME_OK)
    return script


class SlowRelay:
    """A socket in front of a server, behind which nothing moves for a while after a connection."""

    def __init__(self, path, address, seconds):
        self.address, self.seconds = address, seconds
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.sockets = [self.listener]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            self.sockets.append(near)
            threading.Timer(self.seconds, self.connect, [near]).start()

    def connect(self, near):
        far = socket.socket(socket.AF_UNIX)
        self.sockets.append(far)
        far.connect(self.address.removeprefix("unix:"))
        for pair in ((near, far), (far, near)):
            threading.Thread(target=self.pass_on, args=pair, daemon=True).start()

    @staticmethod
    def pass_on(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        for each in self.sockets:
            each.close()


class CliTest(unittest.TestCase):
    def serve(self, script=None, **handlers):
        server = FakeServer(script)
        self.addCleanup(server.close)
        server.handlers.update(handlers)
        return server

    def environment(self, server=None, **more):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HOTCELL_")}
        if server:
            environment["HOTCELL_TARGET"] = server.address
        environment.update(more)
        return environment

    def hotcell(self, server, *arguments, stdin=b"", **more):
        return subprocess.run([HOTCELL, *arguments], env=self.environment(server, **more), input=stdin,
                              capture_output=True, timeout=TIMEOUT, check=False)

    def spawn(self, server, *arguments):
        process = subprocess.Popen([HOTCELL, *arguments], env=self.environment(server),
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def run_script(self, script, *arguments):
        return self.hotcell(self.serve(script), "run", *arguments, "-c", "code")
