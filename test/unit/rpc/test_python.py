"""The gRPC layer seen from Debian's python3-grpcio: details, reflection, health, keepalive.

Usage: test_python.py API_SERVER DESCRIPTORS
"""

import subprocess
import sys
import tempfile
import threading
import unittest

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVER, DESCRIPTORS = sys.argv[1:3]


def load_files(packed):
    """A pool of the files, which may come in any order."""
    files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in packed]
    pool = descriptor_pool.DescriptorPool()
    known = set()
    while files:
        ready = [file for file in files if known.issuperset(file.dependency)]
        if not ready:
            raise ValueError("an import is missing")
        for file in ready:
            pool.Add(file)
            known.add(file.name)
            files.remove(file)
    return pool


def load_messages(descriptors):
    """Message classes of a FileDescriptorSet, by full name."""
    files = descriptor_pb2.FileDescriptorSet.FromString(descriptors).file
    pool = load_files(file.SerializeToString() for file in files)
    factory = message_factory.MessageFactory(pool)
    return lambda name: factory.GetPrototype(pool.FindMessageTypeByName(name))


with open(DESCRIPTORS, "rb") as descriptors_file:
    MESSAGE = load_messages(descriptors_file.read())


class ServerTest(unittest.TestCase):
    """Each test has a server of its own, on a unix socket and on loopback."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        path = self.folder.name + "/socket"
        self.server = subprocess.Popen([SERVER, path], stdout=subprocess.PIPE, text=True)
        self.address = self.server.stdout.readline().strip()
        self.channel = grpc.insecure_channel("unix:" + path)

    def tearDown(self):
        self.channel.close()
        self.server.terminate()
        self.server.stdout.close()
        self.assertEqual(self.server.wait(10), 0)
        self.folder.cleanup()

    def test_details_are_decoded(self):
        with self.assertRaises(grpc.RpcError) as raised:
            self.channel.unary_unary("/test.Test/Fail")(b"", timeout=5)
        error = raised.exception
        self.assertEqual(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        self.assertEqual(error.details(), "There are 8 of 8 sandboxes – “full”.\n100 %")
        packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
        status = MESSAGE("google.rpc.Status").FromString(packed)
        details = {}
        for part in status.details:
            name = part.type_url.rpartition("/")[2]
            details[name] = MESSAGE(name).FromString(part.value)
        self.assertEqual(details["google.rpc.ErrorInfo"].reason, "SANDBOX_LIMIT")
        self.assertEqual(details["google.rpc.ErrorInfo"].domain, "hotcell.dev")
        self.assertEqual(dict(details["google.rpc.ErrorInfo"].metadata), {"max": "8"})
        fields = [violation.field for violation in details["google.rpc.BadRequest"].field_violations]
        self.assertEqual(fields, ["spec.limits.memory_bytes", 'spec.labels["ä"]'])
        self.assertEqual(details["google.rpc.ResourceInfo"].resource_name, "sbx-abc")
        self.assertEqual(details["google.rpc.QuotaFailure"].violations[0].subject, "uid:0")
        self.assertEqual(details["google.rpc.RetryInfo"].retry_delay.nanos, 500000000)

    def test_reflection_alone_is_enough(self):
        question = MESSAGE("grpc.reflection.v1.ServerReflectionRequest")
        answer = MESSAGE("grpc.reflection.v1.ServerReflectionResponse")
        for version in ("v1", "v1alpha"):
            ask = self.channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=question.SerializeToString,
                response_deserializer=answer.FromString,
            )
            listed, service, missing = ask(
                iter(
                    [
                        question(list_services=""),
                        question(file_containing_symbol="hotcell.v1.ExecutionService"),
                        question(file_containing_symbol="hotcell.v1.Missing"),
                    ]
                ),
                timeout=5,
            )
            names = {entry.name for entry in listed.list_services_response.service}
            self.assertLessEqual({"hotcell.v1.SandboxService", "grpc.health.v1.Health"}, names)
            self.assertEqual(missing.error_response.error_code, 5)
            pool = load_files(service.file_descriptor_response.file_descriptor_proto)
            methods = pool.FindServiceByName("hotcell.v1.ExecutionService").methods_by_name
            self.assertIn("Execute", methods)

    def test_health_is_watched(self):
        request = MESSAGE("grpc.health.v1.HealthCheckRequest")
        response = MESSAGE("grpc.health.v1.HealthCheckResponse")
        watch = self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )(request(service=""), timeout=10)
        self.assertEqual(next(watch).status, 1)
        self.server.terminate()
        self.assertEqual(next(watch).status, 2)
        with self.assertRaises(grpc.RpcError) as raised:
            next(watch)
        self.assertEqual(raised.exception.code(), grpc.StatusCode.UNAVAILABLE)

    def test_frequent_pings_are_borne(self):
        options = [
            ("grpc.keepalive_time_ms", 500),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_time_between_pings_ms", 500),
        ]
        with grpc.insecure_channel(self.address, options=options) as channel:
            held = channel.unary_unary("/test.Test/Hold").future(b"", timeout=6)
            with self.assertRaises(grpc.RpcError):
                held.result()
            self.assertEqual(held.code(), grpc.StatusCode.DEADLINE_EXCEEDED)

    def test_calls_from_many_threads(self):
        echo = self.channel.unary_unary("/test.Test/Echo")
        wrong = []

        def call(number):
            for i in range(100):
                text = f"{number} {i}".encode()
                if echo(text, timeout=10) != text:
                    wrong.append(text)

        threads = [threading.Thread(target=call, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
