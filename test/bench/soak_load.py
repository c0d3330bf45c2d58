"""The clients of a soak: each does one kind of thing over and over, and checks each answer. Kills of hotcelld must not show in any."""

import collections
import pathlib
import sys
import threading
import time
import uuid

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import kills  # noqa: E402  pylint: disable=wrong-import-position
import scenario  # noqa: E402  pylint: disable=wrong-import-position
import stubs  # noqa: E402  pylint: disable=wrong-import-position
from stubs import execution_service, sandbox_service  # noqa: E402  pylint: disable=wrong-import-position

MIB = 2**20
PAUSE_SECONDS = 0.02
N_CELL_CLIENTS = 4
FAILURES_MAX = 20  # that are kept


class Wrong(Exception):
    """An answer that is not that of the question."""


def expect(got, wanted):
    if got != wanted:
        raise Wrong(f"{got} instead of {wanted}")


class Load:
    """Threads with a client each. Use as a context manager."""

    def __init__(self, target):
        self.target = target
        self.over = threading.Event()
        self.lock = threading.Lock()
        self.latencies, self.counts, self.failures = [], collections.Counter(), []
        kinds = [Cells] * N_CELL_CLIENTS + [OneShots, Sandboxes, Output, Ends, Readers, Watches]
        self.clients = [kind(self) for kind in kinds]

    def __enter__(self):
        for client in self.clients:
            client.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for client in self.clients:
            client.thread.join()

    def take_latencies(self):
        with self.lock:
            latencies, self.latencies = self.latencies, []
        return latencies

    def note(self, kind, msec=None):
        with self.lock:
            self.counts[kind] += 1
            if msec is not None:
                self.latencies.append(msec)

    def fail(self, text):
        with self.lock:
            if len(self.failures) < FAILURES_MAX:
                self.failures.append(text)


class LoadClient:
    """Calls `start`, then `step` until the load is over, then `stop`."""

    name = ""

    def __init__(self, load):
        self.load = load
        self.client = stubs.Client(load.target)
        self.thread = threading.Thread(target=self._run)
        self.sandbox_id = None

    def _run(self):
        with self.client:
            try:
                self.start()
                while not self.load.over.wait(PAUSE_SECONDS):
                    self.step()
                    self.load.note(self.name)
                self.stop()
            except (Wrong, AssertionError, grpc.RpcError) as error:
                self.load.fail(f"{self.name}: {type(error).__name__}: {error}")

    def start(self):
        pass

    def step(self):
        raise NotImplementedError

    def stop(self):
        if self.sandbox_id:
            self.delete(self.sandbox_id)

    def create(self, **fields):
        limits = {"disk_bytes": 64 * MIB}
        message = sandbox_service.CreateSandboxRequest(spec=scenario.spec(256 * MIB, limits=limits, **fields), request_id=str(uuid.uuid4()))
        return kills.retry(lambda: self.client.sandboxes.CreateSandbox(message, timeout=60)).sandbox.sandbox_id

    def delete(self, sandbox_id):
        kills.retry(lambda: scenario.delete(self.client, sandbox_id))

    def execute(self, sandbox_id, code, **fields):
        """After a kill it attaches where it was cut off; before the first event the same request again is as good."""
        message = scenario.request(sandbox_id, code, request_id=str(uuid.uuid4()), **fields)
        run = scenario.Run()

        def follow():
            if run.execution_id:
                return scenario.attach(self.client, run.execution_id, run.sequence, run)
            return scenario.fold(self.client.executions.Execute(message, timeout=120), run)

        return kills.retry(follow)


class Cells(LoadClient):
    """One cell after the other in a sandbox that counts them."""

    name = "cells"

    def start(self):
        self.sandbox_id = self.create()
        self.n = 0
        expect(self.execute(self.sandbox_id, "n = 0").outcome, "OK")

    def step(self):
        self.n += 1
        begin = time.monotonic()
        run = self.execute(self.sandbox_id, "n += 1; print(n); n")
        self.load.note("latencies", (time.monotonic() - begin) * 1000)
        expect((run.outcome, run.text, run.stdout), ("OK", str(self.n), f"{self.n}\n".encode()))


class OneShots(LoadClient):
    """Sandboxes for one cell."""

    name = "one-shots"

    def step(self):
        spec = scenario.spec(256 * MIB, limits={"disk_bytes": 64 * MIB})
        run = self.execute(None, "6 * 7", sandbox=spec)
        expect((run.outcome, run.text), ("OK", "42"))


class Sandboxes(LoadClient):
    """Made, changed, deleted."""

    name = "sandboxes"

    def step(self):
        one = self.create(labels={"soak": "yes"}, environment={"A": "b"})
        message = sandbox_service.UpdateSandboxRequest(sandbox_id=one, update_mask={"paths": ["labels"]}, labels={"soak": "changed"})
        kills.retry(lambda: self.client.sandboxes.UpdateSandbox(message, timeout=60))
        self.delete(one)


class Output(LoadClient):
    """A megabyte of output and an image's worth of result."""

    name = "outputs"

    def start(self):
        self.sandbox_id = self.create()

    def step(self):
        run = self.execute(self.sandbox_id, "display('x' * 100_000)\nfor i in range(1024): print('y' * 1023)")
        expect((run.outcome, len(run.stdout), bool(run.gaps)), ("OK", MIB, False))
        self.load.over.wait(0.3)


class Ends(LoadClient):
    """What does not end well, and interpreters that are started anew."""

    name = "ends"
    CODES = {"RAISED": "1/0", "EXITED": "import os; os._exit(3)", "TIMEOUT": "while True: pass", "OOM": "x = b'x' * (1 << 30)"}

    def start(self):
        self.sandbox_id = self.create()

    def step(self):
        for outcome, code in self.CODES.items():
            run = self.execute(self.sandbox_id, code, timeout=0.5 if outcome == "TIMEOUT" else 60)
            expect((run.outcome, code), (outcome, code))


class Readers(LoadClient):
    """Lists, and replays of what is over."""

    name = "reads"

    def step(self):
        answer = kills.retry(lambda: self.client.executions.ListExecutions(
            execution_service.ListExecutionsRequest(page_size=100, states=[3]), timeout=60))
        kills.retry(lambda: self.client.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(states=[1, 2, 3, 4]), timeout=60))
        for one in answer.executions[:5]:
            try:
                run = kills.retry(lambda one=one: scenario.attach(self.client, one.execution_id))
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.FAILED_PRECONDITION):
                    raise  # it was not retained any more
                continue
            expect(run.ended.outcome, one.ended.outcome)
        self.load.over.wait(0.2)


class Watches(LoadClient):
    """A watch that goes on where it was cut off."""

    name = "watches"

    def start(self):
        self.token = ""

    def step(self):
        message = sandbox_service.WatchSandboxesRequest(watch_token=self.token)
        stream = self.client.sandboxes.WatchSandboxes(message, timeout=2)
        try:
            for response in stream:
                self.token = response.events[-1].watch_token if response.events else self.token
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
                raise
