"""Two networks joined by a pair of devices: daemons and all else that asks in one, the servers in the other. Nothing of it is outside.

    sandboxes ── daemons, nftables, Python (HOME) ── home0 │ far0 ── servers (SERVED, UNLISTED)
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import time

import grpc

from egress_server import FIRST_BYTE_PORT, SERVED, STREAM_PORT, UNLISTED
from programs import Failed, Program

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import daemons  # noqa: E402  pylint: disable=wrong-import-position
import network  # noqa: E402  pylint: disable=wrong-import-position
import scenario  # noqa: E402  pylint: disable=wrong-import-position
import stubs  # noqa: E402  pylint: disable=wrong-import-position

HOME, GATEWAY = "93.184.215.14", "93.184.215.1"
MANY = 10_000
NOBODY = 65534

PROBE = (HERE / "egress_probe.py").read_text(encoding="utf-8")
ANSWER_LINES = """
import json, sys
print("ok", flush=True)
for line in sys.stdin:
    try:
        print("ok", json.dumps(eval(line), separators=(",", ":")), flush=True)
    except OSError as error:
        print("error", error, flush=True)
"""
# Dropped, a connection would not fail but hang; what tells it comes over lo.
WALL = """
add chain ip bench out {{ type filter hook output priority 0; policy drop; }}
add rule ip bench out ip daddr @{name} accept
add rule ip bench out oifname lo accept
add rule ip bench out reject
"""


def run(where, *words, text=None):
    """Runs a command in a network."""
    try:
        where.run(*words, text=text)
    except subprocess.CalledProcessError as error:
        raise Failed(f"`{' '.join(words)}`: {error.stderr.strip() or error}") from error


def prefixes(n):
    """What nftables lets through, as the rules that bench_client gives to sandboxes."""
    return [SERVED, *(f"{11 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.0/24" for i in range(1, n))]


class EgressLab:
    """Use as a context manager."""

    def __init__(self, lab):
        self.lab = lab

    def __enter__(self):
        try:
            with contextlib.ExitStack() as stack:
                self._enter(stack)
                self.stack = stack.pop_all()
        except AssertionError as error:
            raise Failed(f"daemons in a network of their own: {error}") from error
        return self

    def __exit__(self, *_):
        self.stack.close()

    def _enter(self, stack):
        self.home, self.far = network.Network(), network.Network()
        stack.callback(self.home.close)
        stack.callback(self.far.close)
        self._join()
        stack.enter_context(Program(self.far.command(sys.executable, HERE / "egress_server.py", SERVED)))
        self.plain = stack.enter_context(Program(self._plain_command()))
        # Ctrl-C is for the benchmark, which ends them when it has removed its sandboxes.
        inside = ["setsid", *self.home.command(pdeathsig="TERM")]
        running = stack.enter_context(daemons.Daemons(inside=inside, nameservers=[SERVED]))
        self.client = stack.enter_context(Program([self.lab.client_path(), running.target]))
        self.api = stack.enter_context(stubs.Client(running.target))
        self.has_nftables = self._load_nftables()

    def _join(self):
        run(self.home, "ip", "link", "add", "home0", "type", "veth", "peer", "name", "far0", "netns", self.far.path)
        for one, device, address in ((self.home, "home0", HOME), (self.far, "far0", GATEWAY)):
            run(one, "ip", "address", "add", f"{address}/24", "dev", device)
            run(one, "ip", "link", "set", "lo", "up")
            run(one, "ip", "link", "set", device, "up")
        for address in (SERVED, UNLISTED):
            run(self.far, "ip", "address", "add", f"{address}/32", "dev", "lo")
        run(self.home, "ip", "route", "add", "default", "via", GATEWAY)

    def _plain_command(self):
        """The template's Python, as in sandboxes, without any wall. As nobody: what is below is not to be changed."""
        root = (self.lab.store / "by-name/python").resolve() / "root"
        return self.home.command("chroot", f"--userspec={NOBODY}:{NOBODY}", root, "/usr/bin/python3", "-c", PROBE + ANSWER_LINES)

    def _load_nftables(self):
        sets = [f"add set ip bench {name} {{ type ipv4_addr; flags interval; elements = {{ {', '.join(prefixes(n))} }}; }}"
                for name, n in (("few", 1), ("many", MANY))]
        try:
            run(self.home, "nft", "-f", "-", text="\n".join(["add table ip bench", *sets]))
        except Failed as error:
            self.lab.missing.append(f"nftables: {error}")
            return False
        return True

    @contextlib.contextmanager
    def nftables(self, name):
        """While the block runs only the set @name of addresses is let out, of the daemons' network too."""
        run(self.home, "nft", "-f", "-", text=WALL.format(name=name))
        try:
            yield
        finally:
            run(self.home, "nft", "delete chain ip bench out")

    def ask_plain(self, question):
        """The value of an expression of egress_probe.py, beside sandboxes."""
        return json.loads(self.plain.ask(question)[0])

    @contextlib.contextmanager
    def sandbox(self, n_rules, first):
        """Id of a sandbox with a policy, that ends with the block."""
        _, sandbox_id = self.client.ask("create", n_rules, first)
        try:
            yield sandbox_id
        finally:
            self.client.ask("delete", sandbox_id)

    @contextlib.contextmanager
    def inside(self, n_rules, first):
        """A function that gives the value of an expression of egress_probe.py in such a sandbox."""
        with self.sandbox(n_rules, first) as sandbox_id:
            self._execute(sandbox_id, f"import json\n{PROBE}")
            yield lambda question: json.loads(self._execute(sandbox_id, f"print(json.dumps({question}))"))

    def _execute(self, sandbox_id, code):
        try:
            done = scenario.execute(self.api, sandbox_id, code)
        except grpc.RpcError as error:
            raise Failed(f"Execute: {error.code()}: {error.details()}") from error
        if done.outcome != "OK":
            raise Failed(f"`{code[-100:]}` in a sandbox: {done.outcome} {done.error.value if done.error else ''}")
        return done.stdout

    @contextlib.contextmanager
    def cutter(self):
        """A function that takes the policy away from under a stream: nanoseconds from the answer to the reset at the program."""
        with self.sandbox(1, f"{SERVED}/32") as sandbox_id:
            self._execute(sandbox_id, PROBE)
            yield lambda: self._cut(sandbox_id)

    def _cut(self, sandbox_id):
        run, answered = scenario.Run(), None
        request = scenario.request(sandbox_id, f"print(until_reset('{SERVED}', {STREAM_PORT}))")
        for response in self.api.executions.Execute(request, timeout=60 * daemons.PATIENCE):
            for event in response.events:
                run.take(event)
            if run.stdout and not answered:
                self.client.ask("update", sandbox_id, 1, f"{UNLISTED}/32")
                answered = time.monotonic_ns()
        if run.outcome != "OK":
            raise Failed(f"a stream whose policy was taken away: {run.outcome} {run.error.value if run.error else ''}")
        self.client.ask("update", sandbox_id, 1, f"{SERVED}/32")
        return max(0, int(run.stdout.split()[-1]) - answered)

    @contextlib.contextmanager
    def sides(self, first):
        """All sides: {name: (a function that gives the value of an expression, whether it is a sandbox)}."""
        with contextlib.ExitStack() as stack:
            walls = {
                "hotcell, 10,000 rules": (stack.enter_context(self.inside(MANY, first)), True),
                "hotcell, 1 rule": (stack.enter_context(self.inside(1, first)), True),
            }
            if self.has_nftables:
                walls["nftables, 1 prefix"] = (lambda question: self._ask_behind("few", question), False)
                walls["nftables, 10,000 prefixes"] = (lambda question: self._ask_behind("many", question), False)
            for name, (ask, _) in walls.items():
                if not ask(f"is_refused('{UNLISTED}', {FIRST_BYTE_PORT})"):
                    raise Failed(f"{name}: what no rule allows is not refused")
            yield {**walls, "veth, no policy": (self.ask_plain, False)}

    def _ask_behind(self, name, question):
        with self.nftables(name):
            self.lab.pause()
            return self.ask_plain(question)
