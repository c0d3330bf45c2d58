"""What the tests of all clients share: an execution's events folded together."""

import dataclasses

import grpc

import stubs
from daemons import PATIENCE
from stubs import execution, execution_service, sandbox

MIB = 1 << 20


@dataclasses.dataclass
class Run:
    """The events of one execution."""

    execution_id: str = ""
    sandbox_id: str = ""
    context_id: str = ""
    stdout: bytes = b""
    stderr: bytes = b""
    order: list = dataclasses.field(default_factory=list)
    results: list = dataclasses.field(default_factory=list)
    displays: list = dataclasses.field(default_factory=list)
    error: object = None
    gaps: list = dataclasses.field(default_factory=list)
    egress: list = dataclasses.field(default_factory=list)
    pressures: list = dataclasses.field(default_factory=list)
    started: object = None
    ended: object = None
    sequence: int = 0

    def take(self, event):
        gap = event.WhichOneof("event") == "gap"
        if not gap and not self.gaps:
            assert event.sequence == self.sequence + 1, f"sequence {event.sequence} after {self.sequence}"
        self.sequence = event.sequence
        kind = event.WhichOneof("event")
        body = getattr(event, kind)
        if kind == "queued":
            self.execution_id, self.sandbox_id, self.context_id = body.execution_id, body.sandbox_id, body.context_id
        elif kind in ("stdout", "stderr"):
            if not self.gaps:
                assert body.offset == len(getattr(self, kind)), f"{kind} at {body.offset}"
            setattr(self, kind, getattr(self, kind) + body.data)
        elif kind == "result":
            self.results.append(parts(body.bundle))
        elif kind == "display":
            self.displays.append(parts(body.bundle))
        elif kind == "error":
            self.error = body
        elif kind == "gap":
            self.gaps.append(body)
        elif kind == "egress":
            self.egress.append(body)
        elif kind == "pressure":
            # What others do on this machine may cause it at any time: it has no place in the order.
            self.pressures.append(body)
            return
        elif kind == "started":
            self.started = body
        elif kind == "ended":
            self.ended = body
        self.order.append((kind, bytes(body.data) if kind in ("stdout", "stderr") else b""))

    @property
    def outcome(self):
        return execution.Outcome.Name(self.ended.outcome).removeprefix("OUTCOME_")

    @property
    def cause(self):
        return execution.Cause.Name(self.ended.cause).removeprefix("CAUSE_")

    @property
    def text(self):
        """The value of the last expression as text."""
        return self.results[0]["text/plain"].decode() if self.results else None


def parts(bundle):
    return {part.type: part.data for part in bundle.parts}


def request(sandbox_id, code, **fields):
    timeout = fields.pop("timeout", None)
    output_bytes = fields.pop("output_bytes", None)
    message = execution_service.ExecuteRequest(code=code, **fields)
    if sandbox_id:
        message.sandbox_id = sandbox_id
    if timeout is not None:
        message.limits.timeout.FromMilliseconds(int(timeout * 1000))
    if output_bytes is not None:
        message.limits.output_bytes = output_bytes
    return message


def fold(stream, run=None):
    run = run or Run()
    for response in stream:
        for event in response.events:
            run.take(event)
    return run


def fold_until(stream, condition):
    """Reads the stream just until the condition holds."""
    run = Run()
    for response in stream:
        for event in response.events:
            run.take(event)
        if condition(run):
            return run
    raise AssertionError(f"the stream ended before: {run}")


def execute(client, sandbox_id, code, **fields):
    """Runs to the end; the deadline only keeps a broken server from hanging the test."""
    return fold(client.executions.Execute(request(sandbox_id, code, **fields), timeout=120 * PATIENCE))


def attach(client, execution_id, after_sequence=0, run=None, timeout=120 * PATIENCE):
    message = execution_service.AttachExecutionRequest(execution_id=execution_id, after_sequence=after_sequence)
    return fold(client.executions.AttachExecution(message, timeout=timeout), run)


def spec(memory=512 * MIB, **fields):
    limits = {"memory_bytes": memory, **fields.pop("limits", {})}
    message = sandbox.SandboxSpec(**fields)
    for name, value in limits.items():
        setattr(message.limits, name, value)
    return message


def create(client, **fields):
    message = stubs.sandbox_service.CreateSandboxRequest(spec=spec(**fields))
    return client.sandboxes.CreateSandbox(message, timeout=60 * PATIENCE).sandbox


def delete(client, sandbox_id):
    return client.sandboxes.DeleteSandbox(stubs.sandbox_service.DeleteSandboxRequest(sandbox_id=sandbox_id), timeout=60 * PATIENCE)


def get(client, sandbox_id):
    message = stubs.sandbox_service.GetSandboxRequest(sandbox_id=sandbox_id)
    return client.sandboxes.GetSandbox(message, timeout=60 * PATIENCE).sandbox


def error_of(call, *arguments, **options):
    """The grpc.RpcError that the call ends with; streams are read to their end."""
    try:
        result = call(*arguments, timeout=60 * PATIENCE, **options)
        if hasattr(result, "__iter__") and not hasattr(result, "DESCRIPTOR"):
            list(result)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")
