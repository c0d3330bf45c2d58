"""Without a proto file: buf, which knows nothing of hotcell, lists and calls by reflection on the unix socket."""

import base64
import json
import pathlib
import subprocess
import unittest

import daemons
import scenario
import stubs

BUF = pathlib.Path(__file__).resolve().parents[2] / "proto/node_modules/.bin/buf"


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


def buf(*arguments):
    return subprocess.run([BUF, "curl", "--unix-socket", running.socket, "--http2-prior-knowledge", "--protocol", "grpc",
                           *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False)


class Reflection(unittest.TestCase):
    def test_services_and_methods_are_listed(self):
        services = buf("--list-services", "http://localhost").stdout.split()
        for name in ("hotcell.v1.SandboxService", "hotcell.v1.ExecutionService", "hotcell.v1.ServerService",
                     "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"):
            self.assertIn(name, services)
        methods = buf("--list-methods", "http://localhost").stdout.split()
        self.assertIn("hotcell.v1.ExecutionService/Execute", methods)

    def test_an_execute_by_reflection_works(self):
        sandbox = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, sandbox)
        done = buf("-d", json.dumps({"sandboxId": sandbox, "code": "6 * 7"}),
                   "http://localhost/hotcell.v1.ExecutionService/Execute")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"OUTCOME_OK"', done.stdout)
        self.assertIn("NDI=", done.stdout)  # 42, as JSON writes bytes

    def test_errors_name_their_reason(self):
        done = buf("-d", '{"sandboxId": "sbx-none"}', "http://localhost/hotcell.v1.SandboxService/GetSandbox")
        self.assertNotEqual(done.returncode, 0)
        details = [base64.b64decode(d["value"] + "==") for d in json.loads(done.stderr)["details"]]
        self.assertTrue(any(b"SANDBOX_NOT_FOUND" in detail for detail in details), done.stderr)

    def test_both_versions_of_reflection_answer(self):
        for version in ("grpc-v1", "grpc-v1alpha"):
            done = buf("--reflect-protocol", version, "--list-services", "http://localhost")
            self.assertIn("hotcell.v1.SandboxService", done.stdout, done.stderr)

    def test_health_is_serving(self):
        done = buf("-d", "{}", "http://localhost/grpc.health.v1.Health/Check")
        self.assertIn('"SERVING"', done.stdout, done.stderr)


if __name__ == "__main__":
    unittest.main()
