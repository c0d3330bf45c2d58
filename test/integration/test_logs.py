"""What the daemons log: nothing that users say or programs write, and nothing that grows with executions."""

import base64
import secrets
import unittest

import grpc

import daemons
import scenario
import stubs
from scenario import MIB, create, delete, execute, request, spec
from stubs import execution_service, sandbox_service

KINDS = ("environment", "code", "stdout", "stderr", "result", "display", "error", "label", "file", "refused", "name")


class Canaries:
    """Words that are nowhere else, by where they go."""

    def __init__(self):
        self.words = {kind: f"canary-{kind}-{secrets.token_hex(12)}" for kind in KINDS}

    def __getattr__(self, kind):
        return self.words[kind]

    def found_in(self, text):
        forms = {kind: (word, word[::-1], base64.b64encode(word.encode()).decode().rstrip("="), word.encode().hex())
                 for kind, word in self.words.items()}
        return {kind for kind, some in forms.items() if any(form in text for form in some)}


def half(word):
    """As an expression that holds the word nowhere whole: so that code is told from what it prints."""
    return f"{word[:20]!r} + {word[20:]!r}"


class Logs(unittest.TestCase):
    def use(self, client, canaries):
        """Everything that a user can say, and a program can answer, also what goes wrong."""
        one = create(client, name=canaries.name, labels={"label": canaries.label}, environment={"SECRET": canaries.environment}).sandbox_id
        run = execute(client, one, f"# {canaries.code}\nimport os; os.environ['SECRET']")
        self.assertEqual(run.text, repr(canaries.environment))
        codes = {
            "OK": f"import sys; print({half(canaries.stdout)}); sys.stderr.write({half(canaries.stderr)}); {half(canaries.result)}",
            "RAISED": f"display({half(canaries.display)}); open('/tmp/' + {half(canaries.file)}, 'w').close()\n"
                      f"raise ValueError({half(canaries.error)})",
            "EXITED": f"print({half(canaries.stdout)}); os._exit(3)",
            "SIGNALLED": "os.kill(os.getpid(), 11)",
            "OOM": f"{canaries.code!r}; x = b'x' * (1 << 30)",
            "KILLED": f"os.write(1, ({half(canaries.stdout)}).encode() * 100000)",
            "TIMEOUT": f"'{canaries.code}'\nwhile True: pass",
        }
        for outcome, code in codes.items():
            fields = {"TIMEOUT": {"timeout": 1}, "KILLED": {"output_bytes": 1000}}.get(outcome, {})
            run = execute(client, one, "import os\n" + code, environment={"OTHER": canaries.environment}, **fields)
            self.assertEqual(run.outcome, {"KILLED": "OUTPUT_LIMIT"}.get(outcome, outcome), code)
        self.assertEqual(execute(client, one, self.break_protocol(canaries)).cause, "KERNEL_PROTOCOL")
        for bad in (sandbox_service.CreateSandboxRequest(spec=spec(name=canaries.refused + "/")),
                    sandbox_service.CreateSandboxRequest(spec=spec(environment={"A=" + canaries.refused: canaries.environment})),
                    sandbox_service.CreateSandboxRequest(spec=spec(template=canaries.refused))):
            scenario.error_of(client.sandboxes.CreateSandbox, bad)
        for bad in (request(one, canaries.code, language=canaries.refused),
                    request("sbx-none", canaries.code), request(one, "1", context_id=canaries.refused)):
            scenario.error_of(client.executions.Execute, bad)
        self.assertRaises(grpc.RpcError, client.executions.CreateContext, execution_service.CreateContextRequest(
            sandbox_id=one, working_directory="/" + canaries.refused), timeout=60)
        client.sandboxes.UpdateSandbox(sandbox_service.UpdateSandboxRequest(
            sandbox_id=one, update_mask={"paths": ["labels"]}, labels={"again": canaries.label}), timeout=60)
        delete(client, one)
        scenario.fold(client.executions.Execute(request(None, f"print({half(canaries.stdout)})", sandbox=spec(
            environment={"SECRET": canaries.environment}, labels={"label": canaries.label})), timeout=60 * daemons.PATIENCE))

    @staticmethod
    def break_protocol(canaries):
        """What is no frame, on every descriptor of the interpreter's own that takes it."""
        return f"""import os, time
for n in os.listdir('/proc/self/fd'):
    try:
        if int(n) >= 200: os.write(int(n), ({half(canaries.stdout)}).encode() * 100)
    except OSError: pass
time.sleep(30)"""

    def check_use(self, level):
        canaries = Canaries()
        with daemons.Daemons(["--log-level", level], ["--log-level", level]) as mine, stubs.Client(mine.target) as client:
            self.use(client, canaries)
            mine.stop()
            self.assertIn("an interpreter broke its protocol", mine.log())
            self.assertEqual(canaries.found_in(mine.log()), set())
            return mine.log()

    def test_what_users_say_and_programs_write_is_not_logged(self):
        self.check_use("info")

    def test_also_debug_lines_hold_nothing_of_it(self):
        self.assertIn("an execution ended", self.check_use("debug"))

    def test_executions_add_no_lines(self):
        with daemons.Daemons() as mine, stubs.Client(mine.target) as client:
            one = create(client, memory=256 * MIB, limits={"disk_bytes": 64 * MIB}).sandbox_id
            execute(client, one, "1")
            before = mine.log()
            for code in ("print(1)", "1/0", "import os; os._exit(1)", "x = b'x' * (1 << 30)"):
                for _ in range(5):
                    execute(client, one, code)
            self.assertEqual(mine.log()[len(before):], "")


if __name__ == "__main__":
    unittest.main()
