"""The public API for Python tests: generated once a process by protoc and Debian's plugin, in a temporary folder."""

import atexit
import importlib
import pathlib
import shutil
import subprocess
import sys
import tempfile

import grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ("egress", "egress_service", "execution", "execution_service", "key_service", "sandbox", "sandbox_service", "server_service", "usage_service")


def _generate():
    folder = tempfile.mkdtemp(prefix="hotcell-stubs.")
    atexit.register(shutil.rmtree, folder, True)
    subprocess.run(["protoc", f"-I{ROOT / 'proto'}", "-I/usr/include", f"--python_out={folder}",
                    "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin", f"--grpc_python_out={folder}",
                    *(f"hotcell/v1/{name}.proto" for name in NAMES),
                    "google/rpc/status.proto", "google/rpc/error_details.proto"], check=True)
    sys.path.insert(0, folder)


_generate()
for _name in NAMES:
    globals()[_name] = importlib.import_module(f"hotcell.v1.{_name}_pb2")
egress_rpc = importlib.import_module("hotcell.v1.egress_service_pb2_grpc")
execution_rpc = importlib.import_module("hotcell.v1.execution_service_pb2_grpc")
key_rpc = importlib.import_module("hotcell.v1.key_service_pb2_grpc")
sandbox_rpc = importlib.import_module("hotcell.v1.sandbox_service_pb2_grpc")
server_rpc = importlib.import_module("hotcell.v1.server_service_pb2_grpc")
usage_rpc = importlib.import_module("hotcell.v1.usage_service_pb2_grpc")
status_pb2 = importlib.import_module("google.rpc.status_pb2")
details_pb2 = importlib.import_module("google.rpc.error_details_pb2")


class Client:
    """A channel with all services."""

    def __init__(self, target, metadata=()):
        # A server that was restarted is found again soon. What was sent and not received when it was killed fits in a ring: the
        # window does not grow.
        self.channel = grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0), *(
            (f"grpc.{which}_reconnect_backoff_ms", msec) for which, msec in (("initial", 50), ("max", 200)))])
        self.metadata = metadata
        self.sandboxes = sandbox_rpc.SandboxServiceStub(self.channel)
        self.executions = execution_rpc.ExecutionServiceStub(self.channel)
        self.server = server_rpc.ServerServiceStub(self.channel)
        self.keys = key_rpc.KeyServiceStub(self.channel)
        self.egress = egress_rpc.EgressServiceStub(self.channel)
        self.usage = usage_rpc.UsageServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.channel.close()


def error_details(error):
    """The details of a grpc.RpcError: {"ErrorInfo": …, "BadRequest": …}."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status = status_pb2.Status.FromString(value)
            found = {}
            for detail in status.details:
                name = detail.type_url.rsplit(".", 1)[-1]
                message = getattr(details_pb2, name)()
                detail.Unpack(message)
                found[name] = message
            return found
    return {}


def reason(error):
    info = error_details(error).get("ErrorInfo")
    return info.reason if info else None
