"""A client that loses nothing over restarts of hotcelld: it asks again with the same request_id, and attaches again by sequence."""

import time
import uuid

import grpc

import scenario
from daemons import PATIENCE
from stubs import execution_service

SECONDS = 120 * PATIENCE


def new_id():
    return str(uuid.uuid4())


def is_away(error):
    return error.code() == grpc.StatusCode.UNAVAILABLE


def retry(call, on_lost=lambda: None):
    """Calls until the server answers."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if not is_away(error) or time.monotonic() > end:
                raise
            on_lost()
            time.sleep(0.02)


# A call that fails at once would leave the connection to a poller that looks every five seconds.
OPTIONS = {"timeout": SECONDS, "wait_for_ready": True}


def ask(method, message, on_lost=lambda: None):
    """A unary call. Whoever changes something gives the message a request_id."""
    return retry(lambda: method(message, **OPTIONS), on_lost)


class Cell:
    """One execution, whose events are read when they are asked for."""

    def __init__(self, client, message, on_lost=lambda: None):
        assert message.request_id
        self.client, self.message, self.on_lost = client, message, on_lost
        self.run = scenario.Run()
        self.stream = self.events = None

    def open(self):
        if self.run.execution_id:
            self.stream = self.client.executions.AttachExecution(execution_service.AttachExecutionRequest(
                execution_id=self.run.execution_id, after_sequence=self.run.sequence), **OPTIONS)
        else:
            self.stream = self.client.executions.Execute(self.message, **OPTIONS)
        self.events = (event for response in self.stream for event in response.events)

    def leave(self):
        if self.stream:
            self.stream.cancel()
        self.stream = self.events = None

    def next(self):
        """Reads one event. False: it was the last one before."""
        if not self.events:
            self.open()
        event = next(self.events, None)
        if event:
            self.run.take(event)
        return event is not None

    def until(self, condition):
        end = time.monotonic() + SECONDS
        while not condition(self.run):
            try:
                assert self.next(), f"the stream ended before: {self.run}"
            except grpc.RpcError as error:
                if not is_away(error) or time.monotonic() > end:
                    raise
                self.on_lost()
                self.leave()
                time.sleep(0.02)
        return self.run

    def finish(self):
        run = self.until(lambda r: r.ended)
        self.leave()
        return run
