"""Refusals for want of something, caused for real: each has its documented reason, and passes when the want does."""

import contextlib
import itertools
import os
import pathlib
import pwd
import resource
import shutil
import sqlite3
import subprocess
import tempfile
import unittest

import grpc

import daemons
import scenario
import stubs
from scenario import MIB, create, error_of, spec
from stubs import execution_service, key_service, sandbox_service

KEYS_MAX = 1000
CREATE = sandbox_service.CreateSandboxRequest(spec=spec())


def setUpModule():
    global running, client
    running = unittest.enterModuleContext(daemons.Daemons())
    client = unittest.enterModuleContext(stubs.Client(running.target))


class Case(unittest.TestCase):
    def refused(self, reason, code, call, message):
        error = error_of(call, message)
        self.assertEqual((stubs.reason(error), error.code()), (reason, code), error.details())
        return stubs.error_details(error)

    def living(self, asked):
        answer = asked.sandboxes.ListSandboxes(sandbox_service.ListSandboxesRequest(), timeout=60)
        return [made.sandbox_id for made in answer.sandboxes]


@contextlib.contextmanager
def open_files(pid, limit):
    """Below which numbers a process's new descriptors must be."""
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, usual[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)


def lowest_free(pid):
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in itertools.count() if number not in taken)


class Descriptors(Case):
    """The runtime gets one more at a time, so that each step that needs one fails once."""

    def setUp(self):
        self.mine = self.enterContext(daemons.Daemons(runtime_arguments=["--netns-pool=2"]))
        self.own = self.enterContext(stubs.Client(self.mine.target))
        # The first of each kind may leave something for the next.
        made = create(self.own).sandbox_id
        scenario.execute(self.own, made, "1")
        scenario.delete(self.own, made)

    def starve(self, call, message):
        """Asks until it is done, and returns what the last one made; each refusal before has its reason."""
        pid = self.mine.process.pid
        refusals = 0
        for limit in itertools.count(lowest_free(pid)):
            with open_files(pid, limit):
                try:
                    answer = call(message, timeout=60)
                    break
                except grpc.RpcError as error:
                    self.assertEqual((stubs.reason(error), error.code()), ("HOST_EXHAUSTED", grpc.StatusCode.RESOURCE_EXHAUSTED),
                                     error.details())
                    self.assertTrue(stubs.error_details(error)["QuotaFailure"].violations)
                    refusals += 1
        self.assertGreater(refusals, 5)
        print(f"# {refusals} refusals")
        return answer

    def settled(self):
        """As many processes and groups as without any sandbox."""
        daemons.wait_until(lambda: (len(self.mine.processes()), self.mine.cgroups()) == self.before, "nothing is left")

    def test_sandboxes_are_refused_and_nothing_is_left(self):
        self.before = daemons.wait_until(lambda: len(self.mine.processes()) == 3 and (3, self.mine.cgroups()), "only daemons")
        made = self.starve(self.own.sandboxes.CreateSandbox, CREATE).sandbox.sandbox_id
        self.assertEqual(self.living(self.own), [made])
        self.assertEqual(scenario.execute(self.own, made, "1+1").text, "2")
        scenario.delete(self.own, made)
        self.settled()

    def test_contexts_are_refused_and_nothing_is_left(self):
        made = create(self.own).sandbox_id
        self.before = daemons.wait_until(lambda: len(self.mine.processes()) == 4 and (4, self.mine.cgroups()), "the daemons and an init")
        context = self.starve(self.own.executions.CreateContext, execution_service.CreateContextRequest(sandbox_id=made)).context
        self.assertEqual(scenario.execute(self.own, made, "1+1", context_id=context.context_id).text, "2")
        message = execution_service.DeleteContextRequest(sandbox_id=made, context_id=context.context_id)
        self.own.executions.DeleteContext(message, timeout=60)
        self.settled()
        scenario.delete(self.own, made)


class Interpreter(Case):
    def test_an_interpreter_that_cannot_start_fails_and_leaves_no_context(self):
        made = create(client, environment={"PYTHONHOME": "/nowhere"}).sandbox_id
        self.addCleanup(scenario.delete, client, made)
        self.refused("KERNEL_FAILED", grpc.StatusCode.FAILED_PRECONDITION, client.executions.CreateContext,
                     execution_service.CreateContextRequest(sandbox_id=made))
        contexts = client.executions.ListContexts(execution_service.ListContextsRequest(sandbox_id=made), timeout=60)
        self.assertEqual(list(contexts.contexts), [])


class Keys(Case):
    def test_keys_are_bounded_until_one_is_revoked(self):
        def make(name):
            return client.keys.CreateKey.future(key_service.CreateKeyRequest(name=name), timeout=120)

        made = [make(f"key-{n}") for n in range(KEYS_MAX)]
        first = made[0].result().key
        for call in made:
            call.result()
        one_more = key_service.CreateKeyRequest(name="one-more")
        self.refused("KEY_LIMIT", grpc.StatusCode.RESOURCE_EXHAUSTED, client.keys.CreateKey, one_more)
        client.keys.RevokeKey(key_service.RevokeKeyRequest(key_id=first.key_id), timeout=60)
        self.assertEqual(client.keys.CreateKey(one_more, timeout=60).key.name, "one-more")


class Store(Case):
    def test_a_database_that_is_held_is_unavailable_until_it_is_let_go(self):
        with daemons.Daemons() as mine, stubs.Client(mine.target) as own:
            message = key_service.CreateKeyRequest(name="waits")
            with contextlib.closing(sqlite3.connect(mine.state / "hotcell.db", isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                details = self.refused("STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, own.keys.CreateKey, message)
                self.assertGreater(details["RetryInfo"].retry_delay.ToMilliseconds(), 0)
                self.refused("STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, own.sandboxes.CreateSandbox, CREATE)
                database.execute("ROLLBACK")
            self.assertEqual(own.keys.CreateKey(message, timeout=60).key.name, "waits")
            self.assertEqual(self.living(own), [])


class Health(Case):
    def test_a_service_that_is_not_there_is_not_found(self):
        check = client.channel.unary_unary("/grpc.health.v1.Health/Check")
        details = self.refused("SERVICE_NOT_FOUND", grpc.StatusCode.NOT_FOUND, check, b"\x0a\x07nothing")
        self.assertEqual((details["ResourceInfo"].resource_type, details["ResourceInfo"].resource_name), ("service", "nothing"))
        self.assertEqual(check(b"", timeout=60), b"\x08\x01")


class Alone(Case):
    """hotcelld without a runtime."""

    def test_without_a_runtime_nothing_is_made(self):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="hotcell-test.", dir="/run"))
        self.addCleanup(shutil.rmtree, folder, True)
        user = pwd.getpwnam(daemons.SERVER_USER)
        folder.chmod(0o755)
        os.chown(folder, user.pw_uid, user.pw_gid)
        # The build folder may be closed to that user.
        program = shutil.copy(daemons.build_folder() / "server/hotcelld", folder / "hotcelld")
        process = subprocess.Popen(
            [program, "--config", "/dev/null", "--unix", folder / "s", "--state-dir", folder / "state", "--runtime-socket", folder / "none"],
            user=user.pw_uid, group=user.pw_gid, extra_groups=[], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.wait)
        self.addCleanup(process.terminate)
        with stubs.Client(f"unix:{folder / 's'}") as own:
            grpc.channel_ready_future(own.channel).result(60)
            details = self.refused("RUNTIME_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, own.sandboxes.CreateSandbox, CREATE)
            self.assertGreater(details["RetryInfo"].retry_delay.ToMilliseconds(), 0)
            self.assertEqual(self.living(own), [])


if __name__ == "__main__":
    unittest.main()
