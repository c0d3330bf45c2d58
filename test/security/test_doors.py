"""How much of the server one owner can hold, at settings that are quickly reached: the refusal says so, and others feel nothing."""

import itertools
import re
import struct
import time
import unittest

import daemons
import grpc
import raw_http2 as http2
import scenario
import stubs
from scenario import MIB
from stubs import sandbox_service as sandboxes

LIST = "/hotcell.v1.SandboxService/ListSandboxes"
HEALTH = "/grpc.health.v1.Health/Check"
GRPC_HEAD = struct.Struct(">BI")
LABELS = {f"{i:02d}" + "k" * 60: "v" * 1024 for i in range(64)}
numbers = itertools.count()
SETTINGS = ["--tcp", "127.0.0.1:0", "--calls-per-owner-max", "4", "--connections-per-owner-max", "3", "--unread-per-owner-max", "1MiB",
            "--request-timeout", "2s", "--identify-timeout", "3s"]


def setUpModule():
    global running, address, local
    running = unittest.enterModuleContext(daemons.Daemons(SETTINGS))
    port = int(daemons.wait_until(lambda: re.search(r"listening address=127\.0\.0\.1.*port=(\d+)", running.log()), "its port").group(1))
    address = ("127.0.0.1", port)
    local = unittest.enterModuleContext(stubs.Client(running.target))


class Doors(unittest.TestCase):
    def setUp(self):
        self.secret = self.key("one")
        self.metadata = [("x-api-key", self.secret)]

    def key(self, name):
        made = local.keys.CreateKey(stubs.key_service.CreateKeyRequest(name=f"{name}-{next(numbers)}"), timeout=60)
        self.addCleanup(local.keys.RevokeKey, stubs.key_service.RevokeKeyRequest(key_id=made.key.key_id))
        return made.secret

    def client(self):
        return self.enterContext(stubs.Client(f"127.0.0.1:{address[1]}"))

    def peer(self, *arguments):
        peer = http2.Peer(address, *arguments)
        self.addCleanup(peer.close)
        return peer

    def list(self, client, metadata=None):
        return client.sandboxes.ListSandboxes(sandboxes.ListSandboxesRequest(), metadata=metadata or self.metadata, timeout=30)

    def is_served(self, client):
        try:
            return self.list(client)
        except grpc.RpcError:
            return None

    def watch(self, client):
        return client.sandboxes.WatchSandboxes(sandboxes.WatchSandboxesRequest(), metadata=self.metadata, timeout=60)

    def assert_refused(self, client, reason):
        with self.assertRaises(grpc.RpcError) as caught:
            self.list(client)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        details = stubs.error_details(caught.exception)
        self.assertEqual(details["ErrorInfo"].reason, reason)
        self.assertGreater(details["RetryInfo"].retry_delay.seconds, 0)
        self.assertRegex(details["QuotaFailure"].violations[0].subject, "^key-")

    def assert_others_are_served(self):
        local.sandboxes.ListSandboxes(sandboxes.ListSandboxesRequest(), timeout=10)
        self.list(self.client(), [("x-api-key", self.key("another"))])

    def test_calls_at_once(self):
        client = self.client()
        watches = []
        daemons.wait_until(lambda: not self.is_served(client) or watches.append(self.watch(client)), "as many calls as there may be")
        self.assertGreaterEqual(len(watches), 4)
        self.assert_refused(client, "CALL_LIMIT")
        self.assert_others_are_served()
        for watch in watches:
            watch.cancel()
        daemons.wait_until(lambda: self.is_served(client), "room for a call")

    def test_connections(self):
        clients = [self.client() for _ in range(3)]
        for client in clients:
            self.list(client)
        fresh = self.client()
        self.assert_refused(fresh, "CONNECTION_LIMIT")
        self.assert_others_are_served()
        clients[1].channel.close()
        daemons.wait_until(lambda: self.is_served(fresh), "room for a connection")

    def test_answers_that_are_not_read(self):
        client = self.client()
        for _ in range(6):
            spec = scenario.spec(memory=128 * MIB, labels=LABELS, limits={"disk_bytes": 64 * MIB})
            one = client.sandboxes.CreateSandbox(sandboxes.CreateSandboxRequest(spec=spec), metadata=self.metadata, timeout=60).sandbox
            self.addCleanup(client.sandboxes.DeleteSandbox, sandboxes.DeleteSandboxRequest(sandbox_id=one.sandbox_id), metadata=self.metadata)
        peer = self.peer([(4, 0)])  # an initial window of nothing
        for stream in (1, 3):
            peer.open(stream, LIST, ("x-api-key", self.secret))
            peer.send(peer.frame(http2.DATA, http2.END_STREAM, stream, GRPC_HEAD.pack(0, 0)))

        def have_begun():
            peer.pump(0)
            return peer.counts.get(http2.HEADERS, 0) == 2
        daemons.wait_until(have_begun, "two answers that wait")
        self.assert_refused(client, "ANSWERS_UNREAD")
        self.assert_others_are_served()
        peer.close()
        daemons.wait_until(lambda: self.is_served(client), "room for an answer")

    def test_requests_without_end_are_given_up(self):
        peer = self.peer()
        for stream, pair in ((1, ("x-api-key", self.secret)), (3, ("x", "y"))):
            peer.open(stream, LIST if stream == 1 else HEALTH, pair)
            peer.send(peer.frame(http2.DATA, 0, stream, GRPC_HEAD.pack(0, 100000) + b"x" * 100))
        begin = time.monotonic()
        while len(peer.windows) > 0 and time.monotonic() - begin < 20:
            peer.pump(0.1)
        self.assertEqual(peer.windows, {}, "streams that are not over")
        self.assertFalse(peer.is_closed)
        self.list(self.client())

    def test_a_connection_without_a_key_ends_also_when_it_talks(self):
        peer = self.peer()
        begin = time.monotonic()
        stream = 1
        while not peer.is_closed and time.monotonic() - begin < 20:
            peer.open(stream, HEALTH)
            peer.send(peer.frame(http2.DATA, http2.END_STREAM, stream, GRPC_HEAD.pack(0, 0)))
            peer.pump(0.2)
            stream += 2
        self.assertTrue(peer.is_closed)
        self.assertGreater(time.monotonic() - begin, 2)
        self.assertGreater(peer.counts.get(http2.DATA, 0), 3, "it was answered meanwhile")

    def test_a_message_without_end_ends_its_connection(self):
        peer = self.peer()
        peer.open(1, LIST, ("x-api-key", self.secret))
        peer.send(peer.frame(http2.DATA, 0, 1, GRPC_HEAD.pack(0, 2**31)))
        begin = time.monotonic()
        while not peer.is_closed and time.monotonic() - begin < 20:
            peer.pump(0.1)
        self.assertTrue(peer.is_closed)
        daemons.wait_until(lambda: "message far above receive_max" in running.log(), "a line that says why")
        self.list(self.client())


if __name__ == "__main__":
    unittest.main()
