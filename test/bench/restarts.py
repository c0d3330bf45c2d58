"""Kills of hotcelld, and how long its clients wait: for an answer, and for the next event of what runs."""

import os
import pathlib
import signal
import sys
import time

import grpc

import machine
from programs import Failed

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))
import scenario  # noqa: E402  pylint: disable=wrong-import-position
import stubs  # noqa: E402  pylint: disable=wrong-import-position

SETTLE_SECONDS = 6  # a hotcelld that ran for so long is started again without a longer wait
TRY_SECONDS = 0.002
GIVE_UP_SECONDS = 30
TICKS = "import time\nwhile True: print('tick', flush=True); time.sleep(0.001)"


def _kill(runtime_pid):
    for pid in machine.children(runtime_pid):
        if machine.program_of(pid) == "hotcelld":
            os.kill(pid, signal.SIGKILL)
            return time.monotonic_ns()
    raise Failed("there is no hotcelld among the children of hotcell-runtime")


def first(target, function):
    """What @function gives, with a new connection for each try, as soon as the server answers."""
    end = time.monotonic() + GIVE_UP_SECONDS
    while True:
        with stubs.Client(target) as client:
            try:
                return function(client)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                    raise Failed(f"after a kill: {error.code()}: {error.details()}") from error
        time.sleep(TRY_SECONDS)


def measure(target, runtime_pid, n_samples):
    """(nanoseconds to the first answer, to the first event of a stream that is attached again), of each kill."""
    answers, events = [], []
    with stubs.Client(target) as client:
        sandbox_id = scenario.create(client).sandbox_id
        stream = client.executions.Execute(scenario.request(sandbox_id, TICKS, on_disconnect=2, output_bytes=1 << 30, timeout=600), timeout=60)
        run = scenario.fold_until(stream, lambda seen: seen.stdout)
    try:
        for _ in range(n_samples):
            time.sleep(SETTLE_SECONDS)
            last = first(target, lambda client: _newest(client, run.execution_id))
            start = _kill(runtime_pid)
            first(target, lambda client: client.sandboxes.GetSandbox(stubs.sandbox_service.GetSandboxRequest(sandbox_id=sandbox_id), timeout=60))
            answers.append(time.monotonic_ns() - start)
            first(target, lambda client, last=last: _next_event(client, run.execution_id, last))
            events.append(time.monotonic_ns() - start)
    finally:
        first(target, lambda client: scenario.delete(client, sandbox_id))
    return answers, events


def _newest(client, execution_id):
    message = stubs.execution_service.GetExecutionRequest(execution_id=execution_id)
    return client.executions.GetExecution(message, timeout=60).execution.last_sequence


def _next_event(client, execution_id, last):
    message = stubs.execution_service.AttachExecutionRequest(execution_id=execution_id, after_sequence=last)
    stream = client.executions.AttachExecution(message, timeout=60)
    try:
        next(stream)
    finally:
        stream.cancel()
