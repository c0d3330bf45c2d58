"""A hotcell server that says what a test tells it to: for what the client does, not for what servers do.

Its messages are generated from the project's own proto files into a temporary folder at import; the services
need no generated code, since their descriptors say it all.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from concurrent import futures

import grpc

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _generate():
    folder = tempfile.mkdtemp(prefix="hotcell-messages-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    proto = os.path.join(ROOT, "proto")
    names = sorted(os.listdir(os.path.join(proto, "hotcell/v1")))
    files = [f"hotcell/v1/{name}" for name in names if name.endswith(".proto")]
    files += ["google/rpc/error_details.proto", "google/rpc/status.proto"]
    subprocess.run(["protoc", f"-I{proto}", "-I/usr/include", f"--python_out={folder}", *files], check=True)
    sys.path.insert(0, folder)
    import google
    google.__path__ = list(google.__path__) + [os.path.join(folder, "google")]


_generate()

# pylint: disable=wrong-import-position
from google.protobuf import any_pb2, message_factory  # noqa: E402
from google.rpc import error_details_pb2 as details_pb2  # noqa: E402
from google.rpc import status_pb2  # noqa: E402
from hotcell.v1 import egress_pb2 as egress  # noqa: E402
from hotcell.v1 import egress_service_pb2 as egress_service  # noqa: E402
from hotcell.v1 import execution_pb2 as execution  # noqa: E402
from hotcell.v1 import execution_service_pb2 as executions  # noqa: E402
from hotcell.v1 import key_service_pb2 as keys  # noqa: E402
from hotcell.v1 import sandbox_pb2 as sandbox  # noqa: E402
from hotcell.v1 import sandbox_service_pb2 as sandboxes  # noqa: E402
from hotcell.v1 import server_service_pb2 as server_info  # noqa: E402
from hotcell.v1 import usage_service_pb2 as usage  # noqa: E402

EXECUTION_ID = "exe-" + "a" * 26
SANDBOX_ID = "sbx-" + "b" * 26
CONTEXT_ID = "ctx-" + "c" * 26


class Disconnect(Exception):
    """Raised by a script: the stream ends without `ended`, as when the connection was lost."""


class Refuse(Exception):
    """Raised by a handler: an error with details, as API.md has them."""

    def __init__(self, code, message, *details):
        super().__init__(message)
        self.code, self.message, self.details = code, message, details


def _pack(code, message, details):
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status.SerializeToString()


def _refuse(context, refused):
    if refused.details:
        context.set_trailing_metadata(
            (("grpc-status-details-bin", _pack(refused.code, refused.message, refused.details)),))
    context.abort(refused.code, refused.message)


def chunk(data, offset=0):
    return execution.OutputChunk(data=data, offset=offset)


def bundle(*parts):
    """Parts as (type, data) or (type, data, size of the whole)."""
    result = execution.MimeBundle()
    for part in parts:
        size = part[2] if len(part) > 2 else len(part[1])
        result.parts.add(type=part[0], data=part[1], size_bytes=size)
    return result


def queued():
    return {"queued": execution.Queued(execution_id=EXECUTION_ID, sandbox_id=SANDBOX_ID,
                                       context_id=CONTEXT_ID)}


def ended(outcome, **fields):
    fields.setdefault("cause", execution.CAUSE_PROGRAM)
    return {"ended": execution.Ended(outcome=outcome, **fields)}


class FakeServer:
    """`script` is called as script(server, after_sequence) and yields events; an event is a dict with one
    field of ExecutionEvent. Their sequences are counted here, so that a replay gives each the same one."""

    def __init__(self, script=None, address=None):
        self.script = script
        self.requests = []  # (method, request, metadata)
        self.interrupts = []  # levels
        self.interrupted = threading.Condition()
        self.attaches = []  # after_sequence of each
        self.handlers = {}  # unary methods: name -> function(request)
        self.gone = threading.Event()  # an Execute was cancelled by the client
        self.folder = tempfile.mkdtemp(prefix="hotcell-fake-")
        self.address = address or f"unix:{self.folder}/socket"
        self.is_closed = False
        self.server = None
        self.start()

    def start(self):
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=8),
                                  options=[("grpc.so_reuseport", 0)])
        for module in (egress_service, executions, keys, sandboxes, server_info, usage):
            for service in module.DESCRIPTOR.services_by_name.values():
                handlers = {method.name: self.handler(method) for method in service.methods}
                self.server.add_generic_rpc_handlers(
                    (grpc.method_handlers_generic_handler(service.full_name, handlers),))
        port = self.server.add_insecure_port(self.address)
        if self.address.endswith(":0"):
            self.address = self.address[:-1] + str(port)
        self.server.start()

    def stop(self):
        self.server.stop(0).wait()

    def close(self):
        with self.interrupted:
            self.is_closed = True
            self.interrupted.notify_all()
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def handler(self, method):
        request, response = (message_factory.MessageFactory().GetPrototype(message)
                             for message in (method.input_type, method.output_type))
        streams = {"Execute": self.execute, "AttachExecution": self.attach, "WatchSandboxes": self.watch,
                   "WatchUsage": self.watch}
        make = grpc.unary_unary_rpc_method_handler
        handle = self.interrupt if method.name == "InterruptExecution" else self.answer
        if method.name in streams:
            make, handle = grpc.unary_stream_rpc_method_handler, streams[method.name]

        def recorded(message, context):
            self.requests.append((method.name, message, dict(context.invocation_metadata())))
            return handle(method.name, message, context)
        return make(recorded, request.FromString, response.SerializeToString)

    def wait_for_interrupts(self, n, timeout=20):
        """For scripts: goes on when the client has asked for the n-th interrupt."""
        with self.interrupted:
            if not self.interrupted.wait_for(lambda: self.is_closed or len(self.interrupts) >= n, timeout):
                raise AssertionError("no interrupt came")
            if self.is_closed:
                raise Disconnect

    def stream(self, response, after_sequence, context):
        sequence = 0
        try:
            for fields in self.script(self, after_sequence):
                sequence += 1
                if sequence > after_sequence:
                    event = execution.ExecutionEvent(sequence=sequence, **fields)
                    event.event_time.FromSeconds(1700000000)
                    yield response(events=[event])
        except Disconnect:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
        except Refuse as refused:
            _refuse(context, refused)

    def execute(self, _name, _request, context):
        context.add_callback(self.gone.set)
        return self.stream(executions.ExecuteResponse, 0, context)

    def attach(self, _name, request, context):
        self.attaches.append(request.after_sequence)
        return self.stream(executions.AttachExecutionResponse, request.after_sequence, context)

    def watch(self, name, request, context):
        try:
            for item in self.handlers[name](request):
                yield item if name == "WatchUsage" else sandboxes.WatchSandboxesResponse(events=[item])
        except Disconnect:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost")
        except Refuse as refused:
            _refuse(context, refused)

    def interrupt(self, _name, request, _context):
        with self.interrupted:
            self.interrupts.append(request.level)
            self.interrupted.notify_all()
        return executions.InterruptExecutionResponse()

    def answer(self, name, request, context):
        if name not in self.handlers:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"this test has no {name}")
        try:
            return self.handlers[name](request)
        except Refuse as refused:
            return _refuse(context, refused)
