"""Bad input, each with its documented reason and nothing left behind."""

import contextlib
import datetime
import json
import os
import pathlib
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
import unittest

import grpc

import daemons
import scenario
import stubs
from scenario import MIB, error_of, request, spec
from stubs import execution_service, sandbox_service

ROOT = pathlib.Path(__file__).resolve().parents[2]
REASONS = (ROOT / "docs/REASONS.md").read_text()


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons(["--tcp", "127.0.0.1:0"]))
    client = unittest.enterModuleContext(stubs.Client(running.target))


class Case(unittest.TestCase):
    def refused(self, wanted_reason, code, call, *arguments, fields=None, on=None):
        error = error_of(call, *arguments)
        self.assertEqual((stubs.reason(error), error.code()), (wanted_reason, code), error.details())
        info = stubs.error_details(error)["ErrorInfo"]
        self.assertEqual(info.domain, "hotcell.dev")
        self.assertIn(wanted_reason, REASONS)
        if fields is not None:
            self.assertEqual({v.field for v in stubs.error_details(error)["BadRequest"].field_violations}, set(fields))
        self.assertGreater(len(error.details()), 5)
        return error

    def create_refused(self, reason, fields, **spec_fields):
        before = self.living()
        message = sandbox_service.CreateSandboxRequest(spec=spec(**spec_fields))
        self.refused(reason, grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.CreateSandbox, message, fields=fields)
        self.assertEqual(self.living(), before)

    def living(self):
        return len(client.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(), timeout=60).sandboxes)


class Create(Case):
    def test_unknown_template(self):
        self.create_refused("UNKNOWN_TEMPLATE", ["template"], template="nonesuch")

    def test_negative_and_huge_limits(self):
        for name in ("memory_bytes", "disk_bytes", "cpu_millis", "processes", "open_files"):
            for value in (-1, 0, (1 << 31) - 1 if name in ("cpu_millis", "processes", "open_files") else 1 << 62):
                with self.subTest(limit=name, value=value):
                    self.create_refused("LIMIT_OUT_OF_RANGE", [f"spec.limits.{name}"], limits={name: value})

    def test_negative_ttl(self):
        message = spec()
        message.ttl.seconds = -1
        self.refused("LIMIT_OUT_OF_RANGE", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.CreateSandbox,
                     sandbox_service.CreateSandboxRequest(spec=message), fields=["spec.ttl"])

    def test_expire_time_in_the_past(self):
        message = spec()
        message.expire_time.FromDatetime(datetime.datetime(2020, 1, 1))
        self.refused("EXPIRE_TIME_IN_PAST", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.CreateSandbox,
                     sandbox_service.CreateSandboxRequest(spec=message), fields=["spec.expire_time"])

    def test_expire_time_beyond_the_longest_lifetime(self):
        message = spec()
        message.expire_time.FromDatetime(datetime.datetime(9000, 1, 1))
        self.refused("LIMIT_OUT_OF_RANGE", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.CreateSandbox,
                     sandbox_service.CreateSandboxRequest(spec=message), fields=["spec.expire_time"])

    def test_a_duration_with_a_whole_second_of_nanoseconds(self):
        message = spec()
        message.ttl.seconds, message.ttl.nanos = 60, 10**9
        self.refused("LIMIT_OUT_OF_RANGE", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.CreateSandbox,
                     sandbox_service.CreateSandboxRequest(spec=message), fields=["spec.ttl"])

    def test_names_labels_and_environment(self):
        self.create_refused("INVALID_FIELD", ["spec.name"], name="Not A Label")
        self.create_refused("INVALID_FIELD", ["spec.labels"], labels={"": "x"})
        self.create_refused("INVALID_FIELD", ["spec.labels"], labels={"k": "v" * 1025})
        self.create_refused("LIMIT_OUT_OF_RANGE", ["spec.labels"], labels={f"k{i}": "v" for i in range(65)})
        self.create_refused("INVALID_FIELD", ["spec.environment"], environment={"A=B": "x"})
        self.create_refused("LIMIT_OUT_OF_RANGE", ["spec.environment"], environment={"A": "x" * 65536})

    def test_every_wrong_field_is_named_at_once(self):
        self.create_refused("INVALID_FIELD", ["spec.name", "spec.limits.processes"], name="-", limits={"processes": -5})

    def test_a_name_in_use(self):
        message = sandbox_service.CreateSandboxRequest(spec=spec(name="taken"))
        made = client.sandboxes.CreateSandbox(message, timeout=60).sandbox
        self.addCleanup(scenario.delete, client, made.sandbox_id)
        self.refused("NAME_IN_USE", grpc.StatusCode.ALREADY_EXISTS, client.sandboxes.CreateSandbox, message)
        message.get_or_create = True
        again = client.sandboxes.CreateSandbox(message, timeout=60)
        self.assertEqual((again.created, again.sandbox.sandbox_id), (False, made.sandbox_id))


class Execute(Case):
    def setUp(self):
        self.sandbox = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, self.sandbox)

    def execute_refused(self, reason, code, message, fields=None):
        self.refused(reason, code, client.executions.Execute, message, fields=fields)
        listed = client.executions.ListExecutions(
            execution_service.ListExecutionsRequest(sandbox_id=self.sandbox), timeout=60).executions
        self.assertEqual(list(listed), [])

    def test_two_mebibytes_of_code(self):
        self.execute_refused("CODE_TOO_LARGE", grpc.StatusCode.INVALID_ARGUMENT,
                             request(self.sandbox, "#" * (2 * MIB)), ["code"])

    def test_invalid_utf8_and_nul(self):
        good = request(self.sandbox, "AAAA").SerializeToString()
        for bad in (b"A\xff\xfeA", b"A\x00AA"):
            call = client.channel.unary_stream("/hotcell.v1.ExecutionService/Execute")
            error = error_of(call, good.replace(b"AAAA", bad))
            self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_UTF8"))

    def test_garbage_instead_of_a_message(self):
        call = client.channel.unary_stream("/hotcell.v1.ExecutionService/Execute")
        error = error_of(call, b"\xff" * 100)
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_MALFORMED"))

    def test_a_request_with_a_million_empty_parts(self):
        call = client.channel.unary_stream("/hotcell.v1.ExecutionService/Execute")
        error = error_of(call, b"\x32\x00" * 1_000_000)
        self.assertEqual((error.code(), stubs.reason(error)),
                         (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_TOO_COMPLEX"))

    def test_context_plus_language(self):
        self.execute_refused("CONTEXT_AND_LANGUAGE", grpc.StatusCode.INVALID_ARGUMENT,
                             request(self.sandbox, "1", context_id="ctx-a", language="python"), ["language"])

    def test_unknown_sandbox_context_and_language(self):
        self.refused("SANDBOX_NOT_FOUND", grpc.StatusCode.NOT_FOUND, client.executions.Execute, request("sbx-none", "1"))
        self.execute_refused("CONTEXT_NOT_FOUND", grpc.StatusCode.NOT_FOUND,
                             request(self.sandbox, "1", context_id="ctx-none"))
        self.execute_refused("UNKNOWN_LANGUAGE", grpc.StatusCode.INVALID_ARGUMENT,
                             request(self.sandbox, "1", language="cobol"), ["language"])

    def test_no_target(self):
        self.refused("INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, client.executions.Execute,
                     execution_service.ExecuteRequest(code="1"), fields=["sandbox_id"])

    def test_a_negative_timeout_and_a_huge_output(self):
        message = request(self.sandbox, "1", output_bytes=1 << 62)
        message.limits.timeout.seconds = -1
        self.execute_refused("LIMIT_OUT_OF_RANGE", grpc.StatusCode.INVALID_ARGUMENT, message,
                             ["limits.timeout", "limits.output_bytes"])

    def test_a_finished_execution_cannot_be_interrupted(self):
        run = scenario.execute(client, self.sandbox, "1")
        self.refused("EXECUTION_ENDED", grpc.StatusCode.FAILED_PRECONDITION, client.executions.InterruptExecution,
                     execution_service.InterruptExecutionRequest(execution_id=run.execution_id))
        self.refused("EXECUTION_NOT_FOUND", grpc.StatusCode.NOT_FOUND, client.executions.GetExecution,
                     execution_service.GetExecutionRequest(execution_id="exe-none"))

    def test_an_ended_sandbox(self):
        ended = scenario.create(client).sandbox_id
        scenario.delete(client, ended)
        scenario.delete(client, ended)
        self.refused("SANDBOX_ENDED", grpc.StatusCode.FAILED_PRECONDITION, client.executions.Execute, request(ended, "1"))

    def test_a_working_directory_that_is_none(self):
        message = execution_service.CreateContextRequest(sandbox_id=self.sandbox, working_directory="/no/such")
        self.refused("INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, client.executions.CreateContext, message,
                     fields=["working_directory"])


class Limits(Case):
    def exhausted(self, reason, call, message):
        error = self.refused(reason, grpc.StatusCode.RESOURCE_EXHAUSTED, call, message)
        details = stubs.error_details(error)
        self.assertTrue(details["QuotaFailure"].violations)
        self.assertGreater(details["RetryInfo"].retry_delay.ToMilliseconds(), 0)

    def test_a_queue_is_bounded(self):
        made = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        streams = [client.executions.Execute(request(made, "import time; time.sleep(60)"), timeout=120)]
        scenario.fold_until(streams[0], lambda run: run.started)
        for _ in range(32):
            streams.append(client.executions.Execute(request(made, "1"), timeout=120))
            scenario.fold_until(streams[-1], lambda run: run.execution_id)
        self.exhausted("QUEUE_FULL", client.executions.Execute, request(made, "1"))

    def test_contexts_are_bounded(self):
        made = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        message = execution_service.CreateContextRequest(sandbox_id=made)
        for _ in range(16):
            client.executions.CreateContext(message, timeout=60)
        self.exhausted("CONTEXT_LIMIT", client.executions.CreateContext, message)


class Lists(Case):
    def test_page_and_watch_tokens_that_are_not_ours(self):
        for token in ("x", "p1.0000000000000000.1.a", "p1." * 100):
            self.refused("INVALID_PAGE_TOKEN", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.ListSandboxes,
                         sandbox_service.ListSandboxesRequest(page_token=token), fields=["page_token"])
        self.refused("INVALID_WATCH_TOKEN", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.WatchSandboxes,
                     sandbox_service.WatchSandboxesRequest(watch_token="x"), fields=["watch_token"])
        self.refused("INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.ListSandboxes,
                     sandbox_service.ListSandboxesRequest(page_size=-1), fields=["page_size"])

    def test_a_watch_token_whose_events_are_not_there(self):
        error = self.watch_refused("WATCH_TOKEN_EXPIRED", grpc.StatusCode.OUT_OF_RANGE, watch_token="w1.9000000000000000000")
        self.assertIn("list again", error.details())

    def test_a_watch_of_no_sandbox(self):
        error = self.watch_refused("SANDBOX_NOT_FOUND", grpc.StatusCode.NOT_FOUND, sandbox_id="sbx-nonesuch")
        self.assertEqual(stubs.error_details(error)["ResourceInfo"].resource_name, "sbx-nonesuch")

    def watch_refused(self, reason, code, **fields):
        return self.refused(reason, code, client.sandboxes.WatchSandboxes, sandbox_service.WatchSandboxesRequest(**fields))

    def test_a_page_has_at_most_a_thousand(self):
        made = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        scenario.execute(client, made, "1")
        with contextlib.closing(sqlite3.connect(running.state / "hotcell.db", timeout=30)) as database:
            columns = [row[1] for row in database.execute("PRAGMA table_info(executions)")][1:]
            copied = ", ".join(columns)
            with database:
                database.executemany(f"INSERT INTO executions SELECT ?, {copied} FROM executions WHERE sandbox_id = ? LIMIT 1",
                                     [(f"exe-copy{n}", made) for n in range(1005)])
        message = execution_service.ListExecutionsRequest(sandbox_id=made, page_size=5000)
        first = client.executions.ListExecutions(message, timeout=60)
        message.page_token = first.next_page_token
        second = client.executions.ListExecutions(message, timeout=60)
        self.assertEqual((len(first.executions), len(second.executions)), (1000, 6))

    def test_an_update_says_what_it_changes(self):
        made = scenario.create(client).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        self.refused("UPDATE_MASK_REQUIRED", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.UpdateSandbox,
                     sandbox_service.UpdateSandboxRequest(sandbox_id=made), fields=["update_mask"])
        self.refused("INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, client.sandboxes.UpdateSandbox,
                     sandbox_service.UpdateSandboxRequest(sandbox_id=made, update_mask={"paths": ["state"]}),
                     fields=["update_mask"])

    def test_an_unknown_method_is_unimplemented_at_once(self):
        error = error_of(client.channel.unary_unary("/hotcell.v1.SandboxService/Nothing"), b"")
        self.assertEqual(error.code(), grpc.StatusCode.UNIMPLEMENTED)


class Keys(Case):
    def tcp_client(self, *metadata):
        line = next(line for line in running.log().splitlines() if "listening address=127.0.0.1" in line)
        port = line.split("port=")[1].split()[0]
        made = stubs.Client(f"127.0.0.1:{port}")
        self.addCleanup(made.channel.close)
        return made

    def test_tcp_needs_a_good_key(self):
        tcp = self.tcp_client()
        message = sandbox_service.ListSandboxesRequest()
        self.refused("API_KEY_MISSING", grpc.StatusCode.UNAUTHENTICATED, tcp.sandboxes.ListSandboxes, message)
        for value in ("Bearer wrong", "Bearer hck_" + "a" * 52, "Basic x"):
            error = error_of(tcp.sandboxes.ListSandboxes, message, metadata=[("authorization", value)])
            self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID"))

    def test_a_key_that_is_not_there(self):
        self.refused("KEY_NOT_FOUND", grpc.StatusCode.NOT_FOUND, client.keys.RevokeKey, stubs.key_service.RevokeKeyRequest(key_id="key-nonesuch"))

    def test_a_key_owns_what_it_makes_and_ends_with_its_revocation(self):
        made = daemons.hotcell(running, "key", "create", "tester", "-o", "json")
        self.assertEqual(made.returncode, 0, made.stderr)
        secret = json.loads(made.stdout)["secret"]
        self.assertNotIn(secret.encode(), b"".join(p.read_bytes() for p in running.state.glob("hotcell.db*")))
        tcp = self.tcp_client()
        metadata = [("authorization", f"Bearer {secret}")]
        created = tcp.sandboxes.CreateSandbox(sandbox_service.CreateSandboxRequest(spec=spec()), metadata=metadata,
                                              timeout=60).sandbox.sandbox_id
        self.refused("SANDBOX_NOT_FOUND", grpc.StatusCode.NOT_FOUND, client.sandboxes.GetSandbox,
                     sandbox_service.GetSandboxRequest(sandbox_id=created))
        error = error_of(tcp.keys.ListKeys, stubs.key_service.ListKeysRequest(), metadata=[("x-api-key", secret)])
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.PERMISSION_DENIED, "OPERATOR_ONLY"))
        tcp.sandboxes.DeleteSandbox(sandbox_service.DeleteSandboxRequest(sandbox_id=created), metadata=metadata, timeout=60)
        self.assertEqual(daemons.hotcell(running, "key", "revoke", "tester").returncode, 0)
        error = error_of(tcp.sandboxes.ListSandboxes, sandbox_service.ListSandboxesRequest(), metadata=metadata)
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.UNAUTHENTICATED, "KEY_REVOKED"))


class FullDisk(Case):
    """A state directory on a disk of its own, which is full."""

    class Daemons(daemons.Daemons):
        def start(self):
            user = pwd.getpwnam(daemons.SERVER_USER)
            options = f"size=2M,mode=700,uid={user.pw_uid},gid={user.pw_gid}"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hotcell-test", self.state], check=True)
            super().start()

        def __exit__(self, *exc):
            super().__exit__(*exc)
            subprocess.run(["umount", self.state], check=False)
            shutil.rmtree(self.folder, ignore_errors=True)

    def test_operators_learn_which_file_cannot_be_written_and_others_do_not(self):
        running = self.enterContext(self.Daemons(server_arguments=["--tcp", "127.0.0.1:0", "--state-reserve=256KiB"]))
        client = self.enterContext(stubs.Client(running.target))
        port = next(line for line in running.log().splitlines() if "address=127.0.0.1" in line).split("port=")[1].split()[0]
        tcp = self.enterContext(stubs.Client(f"127.0.0.1:{port}"))
        secret = client.keys.CreateKey(stubs.key_service.CreateKeyRequest(name="tenant"), timeout=60).secret
        with open(running.state / "filler", "wb", buffering=0) as filler, self.assertRaises(OSError):
            while True:
                filler.write(bytes(4096))

        def fill():
            for n in range(10000):
                client.keys.CreateKey(stubs.key_service.CreateKeyRequest(name=f"key-{n}"), timeout=60)
        error = error_of(lambda timeout: fill())
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.RESOURCE_EXHAUSTED, "STATE_FULL"))
        self.assertIn(f"see that the disk of {running.state}/hotcell.db has room", error.details())
        self.assertIn(f"the disk is full, new work is refused path={running.state}/hotcell.db", running.log())
        metadata = [("authorization", f"Bearer {secret}")]
        request = sandbox_service.CreateSandboxRequest(spec=spec())
        error = error_of(tcp.sandboxes.CreateSandbox, request, metadata=metadata)
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.RESOURCE_EXHAUSTED, "STATE_FULL"))
        self.assertIn("hotcelld's log on the server says why", error.details())
        self.assertNotIn(str(running.state), error.details())


class Start(unittest.TestCase):
    """hotcelld alone, as its own user, with something wrong."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="hotcell-test.", dir="/run"))
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.folder.chmod(0o755)
        self.user = pwd.getpwnam(daemons.SERVER_USER)
        self.state = self.folder / "state"
        self.state.mkdir()
        os.chown(self.state, self.user.pw_uid, self.user.pw_gid)
        os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        # The build folder may be closed to that user.
        self.program = self.folder / "hotcelld"
        shutil.copy(daemons.build_folder() / "server/hotcelld", self.program)

    def start(self, *arguments, prefix=()):
        done = subprocess.run([*prefix, "setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups",
                               self.program, "--unix", self.folder / "s", "--state-dir", self.state,
                               "--runtime-socket", self.folder / "none", *arguments],
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=30, check=False)
        return done.returncode, done.stderr.decode()

    def test_plaintext_on_any_other_address_is_refused(self):
        for address in ("0.0.0.0:7070", "[::]:7070", "192.0.2.1:7070"):
            code, text = self.start("--tcp", address)
            self.assertEqual(code, 78, text)
            self.assertIn("loopback", text)

    def test_a_read_only_state_directory(self):
        script = f"mount -t tmpfs -o ro none {self.state} && exec \"$@\""
        code, text = self.start(prefix=("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"))
        self.assertNotEqual(code, 0)
        self.assertRegex(text.lower(), r"read-only|cannot be written|not writable")

    def test_a_second_server_on_the_same_socket(self):
        code, text = self.start("--unix", running.socket)
        self.assertNotIn(code, (0, -11))
        self.assertRegex(text, r"hotcell\.sock")
        self.assertEqual(daemons.hotcell(running, "doctor").returncode, 0)

    def test_a_corrupt_database_is_kept_and_refused(self):
        path = self.state / "hotcell.db"
        path.write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
        os.chown(path, self.user.pw_uid, self.user.pw_gid)
        before = path.read_bytes()
        code, text = self.start()
        self.assertNotEqual(code, 0)
        self.assertIn("hotcell.db", text)
        self.assertEqual(path.read_bytes(), before)
        self.assertEqual(sorted(p.name for p in self.state.iterdir() if "lock" not in p.name), ["hotcell.db"])

    def test_a_newer_schema_is_refused(self):
        path = self.state / "hotcell.db"
        fixture = (ROOT / "test/data").glob("schema_*.sql")
        with sqlite3.connect(path) as database:
            database.executescript(next(iter(sorted(fixture))).read_text())
            database.execute("PRAGMA user_version = 9999")
        os.chown(path, self.user.pw_uid, self.user.pw_gid)
        code, text = self.start()
        self.assertNotEqual(code, 0)
        self.assertIn("schema version 9999 and this program knows up to", text)

    def test_an_old_schema_is_migrated(self):
        fixture = sorted((ROOT / "test/data").glob("schema_*.sql"))[0]
        with daemons.Daemons(wait=False) as mine:
            mine.stop()
            for left in mine.state.iterdir():
                left.unlink()
            path = mine.state / "hotcell.db"
            with sqlite3.connect(path) as database:
                database.executescript(fixture.read_text())
                old = database.execute("PRAGMA user_version").fetchone()[0]
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
            mine.wait = True
            mine.start()
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                self.assertGreater(database.execute("PRAGMA user_version").fetchone()[0], old)
                self.assertGreater(database.execute("SELECT count(*) FROM sandboxes").fetchone()[0], 0)


if __name__ == "__main__":
    unittest.main()
