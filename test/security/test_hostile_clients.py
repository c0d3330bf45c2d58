"""Clients that break the rules of HTTP/2 or of courtesy, with no key, with one, or with many calls: the others feel nothing."""

import re
import socket
import struct
import time
import unittest

import daemons
import grpc
import raw_http2 as http2
import scenario
import stubs
from hostile import rss_bytes
from scenario import MIB
from stubs import execution_service as executions, sandbox_service as sandboxes

INFO = "/hotcell.v1.ServerService/GetServerInfo"
GRPC_HEAD = struct.Struct(">BI")


def setUpModule():
    global running, address, local, a, b
    running = unittest.enterModuleContext(daemons.Daemons(["--tcp", "127.0.0.1:0"]))
    port = int(daemons.wait_until(lambda: re.search(r"listening address=127\.0\.0\.1.*port=(\d+)", running.log()), "its port").group(1))
    address = ("127.0.0.1", port)
    local = unittest.enterModuleContext(stubs.Client(running.target))
    a, b = (Tenant(name, f"127.0.0.1:{port}") for name in ("tenant-a", "tenant-b"))


class Tenant:
    def __init__(self, name, target):
        self.secret = local.keys.CreateKey(stubs.key_service.CreateKeyRequest(name=name), timeout=60).secret
        self.metadata = [("x-api-key", self.secret)]
        self.client = unittest.enterModuleContext(stubs.Client(target))

    def call(self, method, message, timeout=60):
        return method(message, metadata=self.metadata, timeout=timeout)

    def create(self, **fields):
        return self.call(self.client.sandboxes.CreateSandbox, sandboxes.CreateSandboxRequest(spec=scenario.spec(**fields))).sandbox

    def delete(self, sandbox_id):
        return self.call(self.client.sandboxes.DeleteSandbox, sandboxes.DeleteSandboxRequest(sandbox_id=sandbox_id))


class Case(unittest.TestCase):
    def setUp(self):
        self.pid = running.server_pid()
        self.before = rss_bytes(self.pid)
        self.log_before = running.log_path.stat().st_size
        self.peers = []
        self.addCleanup(lambda: [peer.close() for peer in self.peers])

    def peer(self, *arguments):
        self.peers.append(http2.Peer(address, *arguments))
        self.peers[-1].pump(0.2)
        return self.peers[-1]

    def grown_mib(self):
        grown = (rss_bytes(self.pid) - self.before) >> 20
        print(f"# {self.id().rsplit('.', 1)[-1]}: hotcelld grew by {grown} MiB, its log by {running.log_path.stat().st_size - self.log_before} bytes")
        return grown

    def check_others(self, seconds=3):
        """The operator and the other tenant are served soon, by the process that was there before."""
        begin = time.monotonic()
        local.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=30)
        b.call(b.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest(), timeout=30)
        self.assertLess(time.monotonic() - begin, seconds)
        self.assertEqual(running.server_pid(), self.pid, "hotcelld was replaced")
        self.assertLess(running.log_path.stat().st_size - self.log_before, 100000)


class WithoutKey(Case):
    def test_requests_that_do_not_end_are_not_kept_without_bound(self):
        """Each begins a message of nearly the highest size and stops before its end."""
        size = 4 * MIB - 100
        left = {}
        for _ in range(2):
            peer = self.peer()
            for stream in range(1, 401, 2):
                peer.open(stream, INFO)
                peer.window, peer.windows[stream] = peer.window - 5, peer.windows[stream] - 5
                peer.send(peer.frame(http2.DATA, 0, stream, GRPC_HEAD.pack(0, size)))
                left[peer, stream] = size - 1000
        end = time.monotonic() + 30
        idle = 0
        while time.monotonic() < end and idle < 20:
            moved = 0
            for (peer, stream), most in left.items():
                n = peer.data(stream, most)
                left[peer, stream] -= n
                moved += n
            for peer in self.peers:
                peer.pump(0 if moved else 0.1)
            idle = 0 if moved else idle + 1
        self.check_others()
        self.assertLess(self.grown_mib(), 200, "a peer without a key made it grow")

    def test_connections_of_strangers_leave_room_for_operators_and_tenants(self):
        """They need not even say that they speak HTTP/2."""
        for _ in range(300):
            silent = socket.create_connection(address)
            self.addCleanup(silent.close)
        daemons.wait_until(lambda: "as many as there may be" in running.log()[self.log_before:], "full", 10)
        with stubs.Client(running.target) as operator:
            operator.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=10)

    def test_floods_of_resets(self):
        """Streams that are opened and reset at once, as fast as it goes."""
        peer = self.peer()
        begin = time.monotonic()
        stream = 1
        while time.monotonic() - begin < 5 and not peer.is_closed:
            block = []
            for _ in range(100):
                block.append(peer.frame(http2.HEADERS, http2.END_HEADERS, stream, http2.request_headers(INFO)))
                block.append(peer.frame(http2.RST_STREAM, 0, stream, struct.pack(">I", 8)))
                stream += 2
            peer.send(b"".join(block))
            peer.pump(0)
        print(f"# {stream // 2} streams were reset")
        self.check_others(10)
        self.assertLess(self.grown_mib(), 100)

    def test_headers_that_do_not_end(self):
        peer = self.peer()
        peer.open(1, INFO, flags=0)
        sent = 0
        begin = time.monotonic()
        while time.monotonic() - begin < 5 and not peer.is_closed and sent < 64 * MIB:
            block = http2.header("x-" + "n" * 20, "v" * 100) * 100
            peer.send(peer.frame(http2.CONTINUATION, 0, 1, block))
            sent += len(block)
            peer.pump(0)
        print(f"# {sent >> 20} MiB of headers were sent, closed={peer.is_closed}")
        self.check_others(10)
        self.assertLess(self.grown_mib(), 100)

    def test_floods_of_pings_settings_and_windows(self):
        for kind, payload in ((http2.PING, bytes(8)), (http2.SETTINGS, struct.pack(">HI", 1, 4096)), (http2.WINDOW_UPDATE, struct.pack(">I", 1))):
            peer = self.peer()
            block = peer.frame(kind, 0, 0, payload) * 1000
            begin = time.monotonic()
            while time.monotonic() - begin < 2 and not peer.is_closed:
                peer.socket.settimeout(2)
                peer.send(block)  # what it answers is not read
        self.check_others(10)
        self.assertLess(self.grown_mib(), 100)

    def test_garbage(self):
        for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01" + b"\xff" * 5000, b"\0" * 100000, http2.PREFACE + b"\xff" * 100000,
                     http2.PREFACE + http2.Peer.frame(http2.DATA, 0, 1, b"x" * 10), http2.PREFACE + http2.Peer.frame(http2.SETTINGS, 0, 0, b"x" * 7)):
            with socket.create_connection(address) as s:
                s.settimeout(10)
                try:
                    s.sendall(data)
                    while s.recv(4096):
                        pass
                except OSError:
                    pass
        self.check_others()

    def test_a_client_that_says_nothing_is_hung_up_on(self):
        with socket.create_connection(address) as s:
            s.settimeout(30)
            while s.recv(4096):
                pass

    def test_no_method_but_health_and_reflection_answers(self):
        peer = self.peer()
        for i, path in enumerate((INFO, "/hotcell.v1.KeyService/CreateKey", "/hotcell.v1.SandboxService/ListSandboxes", "/none/None", "//", "/" + "x" * 5000)):
            stream = 2 * i + 1
            peer.open(stream, path)
            peer.send(peer.frame(http2.DATA, http2.END_STREAM, stream, GRPC_HEAD.pack(0, 0)))
        peer.pump(1)
        self.assertEqual(peer.counts.get(http2.DATA, 0), 0, "an answer without a key")
        self.check_others()


class OneTenant(Case):
    LABELS = {f"{i:02d}" + "k" * 60: "v" * 1024 for i in range(64)}

    def other_labels(self, i):
        """As large; what changes nothing is no event."""
        return {**self.LABELS, next(iter(self.LABELS)): f"{i:04d}" + "v" * 1020}

    def test_answers_that_nobody_reads_are_bounded(self):
        """20 sandboxes with the largest labels, listed 250 times by a client that opens no window."""
        made = [a.create(memory=128 * MIB, labels=self.LABELS, limits={"disk_bytes": 64 * MIB}).sandbox_id for _ in range(20)]
        self.addCleanup(lambda: [a.delete(one) for one in made])
        self.before = rss_bytes(self.pid)
        peer = self.peer([(4, 0)])  # an initial window of nothing
        request = sandboxes.ListSandboxesRequest(page_size=1000).SerializeToString()
        for stream in range(1, 501, 2):
            peer.open(stream, "/hotcell.v1.SandboxService/ListSandboxes", ("x-api-key", a.secret))
            peer.send(peer.frame(http2.DATA, http2.END_STREAM, stream, GRPC_HEAD.pack(0, len(request)) + request))
        peer.pump(8)
        self.check_others()
        self.assertLess(self.grown_mib(), 150, "one connection's unread answers are kept")

    def test_a_page_fits_a_message(self):
        """Messages stay below 1 MiB, and clients take 4 MiB at most."""
        made = [a.create(memory=128 * MIB, labels=self.LABELS, limits={"disk_bytes": 64 * MIB}).sandbox_id for _ in range(20)]
        self.addCleanup(lambda: [a.delete(one) for one in made])
        token = a.call(a.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest()).watch_token
        answer = a.call(a.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest(page_size=1000))
        self.assertLess(answer.ByteSize(), MIB)
        for i in range(70):
            message = sandboxes.UpdateSandboxRequest(sandbox_id=made[0], labels=self.other_labels(i))
            message.update_mask.paths.append("labels")
            a.call(a.client.sandboxes.UpdateSandbox, message)
        stream = a.call(a.client.sandboxes.WatchSandboxes, sandboxes.WatchSandboxesRequest(watch_token=token))
        seen = 0
        for response in stream:
            self.assertLess(response.ByteSize(), MIB)
            seen += len(response.events)
            if seen >= 70:
                break
        stream.cancel()

    def test_changes_without_end_do_not_fill_the_disk(self):
        """Each change of a sandbox writes an event with all its labels: their volume must have a bound."""
        sandbox = a.create(memory=128 * MIB, labels=self.LABELS, limits={"disk_bytes": 64 * MIB}).sandbox_id
        self.addCleanup(a.delete, sandbox)

        def size():
            return sum(path.stat().st_size for path in running.state.iterdir())

        def change(i):
            message = sandboxes.UpdateSandboxRequest(sandbox_id=sandbox, labels=self.other_labels(i))
            message.update_mask.paths.append("labels")
            return a.client.sandboxes.UpdateSandbox.future(message, metadata=a.metadata, timeout=60)
        before, begin, n = size(), time.monotonic(), 0
        refused = 0
        while time.monotonic() - begin < 10:
            futures = [change(i) for i in range(50)]
            for future in futures:
                try:
                    future.result()
                    n += 1
                except grpc.RpcError:
                    refused += 1
        seconds = time.monotonic() - begin
        grown = size() - before
        print(f"# {n} changes ({refused} refused) in {seconds:.1f} s: the state grew by {grown >> 20} MiB")
        self.check_others()
        self.assertGreater(n, 100)
        self.assertLess(grown, 64 * MIB)

    def test_code_that_waits_leaves_room_for_other_tenants(self):
        """Nine sandboxes of one tenant, with as much code waiting as each may have."""
        code = "#" + "x" * ((1 << 20) - 2)
        streams = []
        self.addCleanup(lambda: [stream.cancel() for stream in streams])
        for _ in range(9):
            sandbox = a.create(memory=256 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id
            self.addCleanup(a.delete, sandbox)
            streams.append(a.call(a.client.executions.Execute, scenario.request(sandbox, "import time; time.sleep(100)")))
            scenario.fold_until(streams[-1], lambda run: run.started)
            for _ in range(8):
                streams.append(a.call(a.client.executions.Execute, scenario.request(sandbox, code)))
                try:
                    next(streams[-1])
                except grpc.RpcError:
                    break
            for size in (1 << n for n in range(19, 6, -1)):  # to the brim, as far as the number that may wait lets it
                streams.append(a.call(a.client.executions.Execute, scenario.request(sandbox, "#" + "x" * size)))
                try:
                    next(streams[-1])
                except grpc.RpcError:
                    pass
        theirs = b.create(memory=256 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id
        self.addCleanup(b.delete, theirs)
        run = scenario.fold(b.call(b.client.executions.Execute, scenario.request(theirs, "1+1 #" + "x" * 65536)))
        self.assertEqual(run.text, "2")

    def test_output_of_one_tenant_does_not_push_out_anothers(self):
        """What ended can be replayed for ten minutes; another's many outputs are no reason that it cannot."""
        ours, theirs = (t.create(memory=256 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id for t in (a, b))
        self.addCleanup(a.delete, ours)
        self.addCleanup(b.delete, theirs)
        run = scenario.fold(b.call(b.client.executions.Execute, scenario.request(theirs, "print('kept')")))
        for _ in range(60):
            scenario.fold(a.call(a.client.executions.Execute, scenario.request(ours, "import sys; n = sys.stdout.write('x' * 900000)")))
        message = executions.AttachExecutionRequest(execution_id=run.execution_id)
        again = scenario.fold(b.call(b.client.executions.AttachExecution, message))
        self.assertEqual(again.stdout, b"kept\n")

    def test_a_slow_reader_keeps_only_itself_waiting(self):
        ours = a.create(memory=256 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id
        self.addCleanup(a.delete, ours)
        peer = self.peer([(4, 0)])
        request = scenario.request(ours, "import sys\nwhile True: sys.stdout.write('x' * 65536)", timeout=20).SerializeToString()
        for stream in range(1, 41, 2):
            peer.open(stream, "/hotcell.v1.ExecutionService/Execute", ("x-api-key", a.secret))
            peer.send(peer.frame(http2.DATA, http2.END_STREAM, stream, GRPC_HEAD.pack(0, len(request)) + request))
        peer.pump(3)
        self.check_others()
        self.assertLess(self.grown_mib(), 64)

    def test_all_connections_of_one_tenant_leave_room_for_others(self):
        """Watches hold a connection each."""
        clients = []
        self.addCleanup(lambda: [client.__exit__() for client in clients])
        streams = []
        for _ in range(260):
            clients.append(stubs.Client(f"127.0.0.1:{address[1]}"))
            streams.append(clients[-1].sandboxes.WatchSandboxes(sandboxes.WatchSandboxesRequest(), metadata=a.metadata, timeout=60))
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and "as many as there may be" not in running.log():
            time.sleep(0.1)
        with stubs.Client(f"127.0.0.1:{address[1]}") as fresh:
            fresh.sandboxes.ListSandboxes(sandboxes.ListSandboxesRequest(), metadata=b.metadata, timeout=10)
        for stream in streams:
            stream.cancel()


class Revoked(Case):
    def test_what_is_open_ends_with_its_key(self):
        made = local.keys.CreateKey(stubs.key_service.CreateKeyRequest(name="short-lived"), timeout=60)
        metadata = [("x-api-key", made.secret)]
        client = a.client
        sandbox = client.sandboxes.CreateSandbox(sandboxes.CreateSandboxRequest(spec=scenario.spec(memory=256 * MIB)), metadata=metadata,
                                                 timeout=60).sandbox.sandbox_id
        watch = client.sandboxes.WatchSandboxes(sandboxes.WatchSandboxesRequest(), metadata=metadata, timeout=20)
        code = "import time\nfor i in range(400): print(i, flush=True); time.sleep(0.05)"
        stream = client.executions.Execute(scenario.request(sandbox, code), metadata=metadata, timeout=20)
        scenario.fold_until(stream, lambda run: run.started)
        local.keys.RevokeKey(stubs.key_service.RevokeKeyRequest(key_id=made.key.key_id), timeout=60)
        begin = time.monotonic()
        codes = []
        for one in (stream, watch):
            try:
                for _ in one:
                    if time.monotonic() - begin > 5:
                        break
                codes.append("it goes on")
                one.cancel()
            except grpc.RpcError as error:
                codes.append(error.code().name)
        self.assertEqual(codes, ["UNAUTHENTICATED", "UNAUTHENTICATED"])


class Tokens(Case):
    def code(self, tenant, message):
        try:
            return "OK", tenant.call(tenant.client.sandboxes.ListSandboxes, message)
        except grpc.RpcError as error:
            return error.code().name, error

    def test_forged_page_tokens_show_nothing_of_others(self):
        mine = a.create(memory=128 * MIB, limits={"disk_bytes": 64 * MIB})
        self.addCleanup(a.delete, mine.sandbox_id)
        for _ in range(2):
            self.addCleanup(b.delete, b.create(memory=128 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id)
        token = b.call(b.client.sandboxes.ListSandboxes, sandboxes.ListSandboxesRequest(page_size=1)).next_page_token
        self.assertTrue(token)
        head, filter_digest, when, label = token.split(".")
        for forged in (token, f"{head}.{filter_digest}.{2**63 - 1}.zzzz", f"{head}.{filter_digest}.1.a", f"{head}.{filter_digest}.{when}.{mine.sandbox_id}"):
            code, answer = self.code(b, sandboxes.ListSandboxesRequest(page_size=1, page_token=forged))
            self.assertEqual(code, "OK", forged)
            self.assertNotIn(mine.sandbox_id, [s.sandbox_id for s in answer.sandboxes])
            code, answer = self.code(a, sandboxes.ListSandboxesRequest(page_size=1, page_token=forged))
            if code == "OK":
                self.assertTrue({s.sandbox_id for s in answer.sandboxes} <= {mine.sandbox_id})
        for bad in ("p1", "p1." + "0" * 16 + f".{when}.{label}", token + "x" * 200, token[:-1] + "'", f"{head}.{filter_digest}.-1.a",
                    f"{head}.{filter_digest}.{2**64}.a", f"{head}.{filter_digest}.1e3.a", f"p2.{filter_digest}.{when}.{label}"):
            self.assertEqual(self.code(b, sandboxes.ListSandboxesRequest(page_size=1, page_token=bad))[0], "INVALID_ARGUMENT", bad)

    def test_forged_watch_tokens_show_nothing_of_others(self):
        mine = a.create(memory=128 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id
        a.delete(mine)
        for forged, codes in (("w1.0", ("OK",)), (f"w1.{2**63 - 1}", ("OK", "OUT_OF_RANGE", "INVALID_ARGUMENT")), ("w1.-5", ("INVALID_ARGUMENT",)),
                              ("w1.", ("INVALID_ARGUMENT",)), ("w2.1", ("INVALID_ARGUMENT",))):
            stream = b.call(b.client.sandboxes.WatchSandboxes, sandboxes.WatchSandboxesRequest(watch_token=forged), timeout=2)
            code = "OK"
            try:
                for response in stream:
                    for event in response.events:
                        self.assertNotEqual(event.sandbox.sandbox_id, mine)
            except grpc.RpcError as error:
                code = error.code().name.replace("DEADLINE_EXCEEDED", "OK")
            self.assertIn(code, codes, forged)


if __name__ == "__main__":
    unittest.main()
