"""A policy that is slow to check keeps nobody else waiting: names in their xn-- form cost a conversion each way, label by label."""

import threading
import time
import unittest

import grpc

import daemons
import scenario
import stubs
from daemons import PATIENCE
from stubs import egress, key_service, sandbox_service, server_service

RULES = 10000
SECONDS = 0.5 * PATIENCE


def setUpModule():
    global client, metadata
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))
    made = client.keys.CreateKey(key_service.CreateKeyRequest(name="mallory"), timeout=60)
    metadata = [("x-api-key", made.secret)]


def labels():
    """Of three letters, as they are written."""
    return ["xn--" + "".join(chr(0xe0 + (k >> 4 * j) % 16) for j in range(3)).encode("punycode").decode() for k in range(300)]


def policy():
    known, message = labels(), egress.EgressPolicy()
    for i in range(RULES):
        name = ".".join([f"a{i}", *(known[(8 * i + 13 * j) % 300] for j in range(20))])
        message.rules.add(action=egress.EGRESS_ACTION_ALLOW, domain=name)
    return message


class Waiting(unittest.TestCase):
    def test_a_policy_of_converted_names_holds_nobody_up(self):
        waits, done = [], threading.Event()

        def ask():
            while not done.is_set():
                begin = time.monotonic()
                client.server.GetServerInfo(server_service.GetServerInfoRequest(), timeout=60 * PATIENCE)
                waits.append(time.monotonic() - begin)
                time.sleep(0.01)
        neighbour = threading.Thread(target=ask)
        neighbour.start()
        try:
            for _ in range(5):
                with self.assertRaises(grpc.RpcError):
                    client.sandboxes.CreateSandbox(sandbox_service.CreateSandboxRequest(spec=scenario.spec(egress=policy())), metadata=metadata,
                                                   timeout=60 * PATIENCE)
        finally:
            done.set()
            neighbour.join()
        self.assertLess(max(waits), SECONDS)


if __name__ == "__main__":
    unittest.main()
