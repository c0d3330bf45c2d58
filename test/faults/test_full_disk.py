"""The disk of the state directory is full: nothing new is taken, what runs ends with its row; freed, all goes on by itself."""

import contextlib
import os
import pathlib
import pwd
import sqlite3
import subprocess
import threading
import unittest

import daemons
import grpc
import scenario
import stubs
from stubs import execution_service, key_service, sandbox_service

RESERVE = 1 << 20


class Daemons(daemons.Daemons):
    """With the state directory on a file system of its own."""

    def start(self):
        user = pwd.getpwnam(daemons.SERVER_USER)
        options = f"size=6M,mode=700,uid={user.pw_uid},gid={user.pw_gid}"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "hotcell-test", self.state], check=True)
        super().start()

    def __exit__(self, *exc):
        self.stop()
        subprocess.run(["umount", self.state], check=True)
        super().__exit__(*exc)

    def fill(self):
        with open(self.state / "filler", "ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                pass

    def free(self):
        (self.state / "filler").unlink()

    def row(self, execution_id):
        with contextlib.closing(sqlite3.connect(f"file:{self.state}/hotcell.db?mode=ro", uri=True)) as database:
            return database.execute("SELECT state, outcome FROM executions WHERE execution_id = ?", (execution_id,)).fetchone()


class FullDisk(unittest.TestCase):
    def setUp(self):
        self.running = self.enterContext(Daemons(server_arguments=[f"--state-reserve={RESERVE}"]))
        self.client = self.enterContext(stubs.Client(self.running.target))
        self.work = scenario.create(self.client).sandbox_id
        scenario.execute(self.client, self.work, "x = 41")

    def refused(self, call, message):
        error = scenario.error_of(call, message)
        details = stubs.error_details(error)
        self.assertEqual((error.code(), stubs.reason(error)), (grpc.StatusCode.RESOURCE_EXHAUSTED, "STATE_FULL"), error.details())
        self.assertIn("QuotaFailure", details)
        self.assertIn("RetryInfo", details)
        self.assertIn("has room", error.details())

    def fill_until_refused(self):
        """A log with room inside takes rows without any more room; so some go first."""
        self.running.fill()
        for n in range(10000):
            try:
                self.client.keys.CreateKey(key_service.CreateKeyRequest(name=f"key-{n}"), timeout=60)
            except grpc.RpcError as error:
                self.assertEqual(stubs.reason(error), "STATE_FULL", error.details())
                break
        else:
            self.fail("the disk does not fill")
        self.running.fill()  # also what the reserve has given

    def start_cell(self):
        """A cell that runs until a file appears: its thread, its folded events, and its id."""
        begun, run = threading.Event(), scenario.Run()

        def read():
            code = "import os, time\nprint('begun', flush=True)\nwhile not os.path.exists('/tmp/go'): time.sleep(0.01)\nprint('done')\nx"
            stream = self.client.executions.Execute(scenario.request(self.work, code), timeout=120 * daemons.PATIENCE)
            for response in stream:
                for event in response.events:
                    run.take(event)
                if run.stdout:
                    begun.set()
        thread = threading.Thread(target=read)
        thread.start()
        self.assertTrue(begun.wait(60 * daemons.PATIENCE))
        return thread, run

    def let_it_end(self):
        for pid in daemons.descendants(self.running.process.pid):
            root = pathlib.Path(f"/proc/{pid}/root/tmp")
            try:
                if root.is_dir() and not os.path.samefile(root, "/tmp"):
                    (root / "go").touch()
            except OSError:
                pass

    def serves(self):
        try:
            return scenario.get(self.client, self.work).state == stubs.sandbox.SANDBOX_STATE_RUNNING
        except grpc.RpcError:
            return False

    def ready(self):
        return self.client.server.GetServerInfo(stubs.server_service.GetServerInfoRequest(), timeout=60).ready

    def test_new_work_is_refused_and_what_runs_ends_with_its_row(self):
        thread, run = self.start_cell()
        self.fill_until_refused()
        self.refused(self.client.sandboxes.CreateSandbox, sandbox_service.CreateSandboxRequest(spec=scenario.spec()))
        self.refused(self.client.executions.Execute, scenario.request(self.work, "1"))
        self.refused(self.client.executions.CreateContext,
                     execution_service.CreateContextRequest(sandbox_id=self.work, language="python"))
        self.assertFalse(self.ready())
        # Reads go on.
        self.assertEqual(scenario.get(self.client, self.work).sandbox_id, self.work)
        listed = self.client.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(), timeout=60).sandboxes
        self.assertEqual([item.sandbox_id for item in listed], [self.work])

        self.let_it_end()
        thread.join(60 * daemons.PATIENCE)
        self.assertFalse(thread.is_alive())
        self.assertEqual((run.outcome, run.stdout, run.text), ("OK", b"begun\ndone\n", "41"))
        self.assertEqual(self.running.row(run.execution_id), (3, 1))
        self.assertNotIn("cannot be written", self.running.log())

        pid = self.running.server_pid()
        self.running.free()
        daemons.wait_until(self.ready, "there is room again")
        self.assertEqual(scenario.execute(self.client, self.work, "x").text, "41")
        made = scenario.create(self.client).sandbox_id
        scenario.delete(self.client, made)
        self.assertEqual(self.running.server_pid(), pid)
        self.assertEqual((self.running.state / "hotcell.spare").stat().st_blocks * 512, RESERVE)

    def test_a_sandbox_can_be_ended_on_a_full_disk(self):
        self.fill_until_refused()
        scenario.delete(self.client, self.work)
        self.assertEqual(scenario.get(self.client, self.work).state, stubs.sandbox.SANDBOX_STATE_ENDED)

    def test_a_restart_on_a_full_disk_keeps_what_runs(self):
        self.fill_until_refused()
        pid = self.running.server_pid()
        os.kill(pid, 9)
        daemons.wait_until(lambda: self.running.server_pid() not in (pid, None), "another hotcelld")
        daemons.wait_until(lambda: self.running.log().count("the session is ready") == 2, "it has taken over")
        daemons.wait_until(self.serves, "it serves")
        self.refused(self.client.executions.Execute, scenario.request(self.work, "x"))
        self.running.free()
        daemons.wait_until(self.ready, "there is room again")
        self.assertEqual(scenario.execute(self.client, self.work, "x").text, "41")


if __name__ == "__main__":
    unittest.main()
