"""What the egress tests share: policies, events, and a world with daemons in it."""

import itertools
import json
import pathlib
import time
import unittest

import daemons
import scenario
import stubs
import world as worlds
from daemons import PATIENCE
from stubs import egress, egress_service, sandbox_service

FENCE = "240.0.0.250"  # which no policy can allow
PRELUDE = (pathlib.Path(__file__).parent / "inside.py").read_text()


class Scene:
    """The world, daemons in it, and a client. Made once for a module: its `setUpModule` calls enter()."""

    def enter(self, **options):
        self.world = unittest.enterModuleContext(worlds.World())
        self.running = unittest.enterModuleContext(daemons.Daemons(
            inside=self.world.home.command(pdeathsig="TERM"), nameservers=worlds.NAMESERVERS[:1], **options))
        self.client = unittest.enterModuleContext(stubs.Client(self.running.target))

    def create(self, *rules, default="DENY", types=(), **fields):
        """A sandbox that knows inside.py. Without rules it has no policy."""
        if rules or default != "DENY":
            fields["egress"] = policy(*rules, default=default, types=types)
        made = scenario.create(self.client, **fields)
        self.run(made.sandbox_id, f"AUTHORITY = {self.world.authority!r}\n{PRELUDE}")
        return made.sandbox_id

    def update(self, sandbox_id, *rules, default="DENY", types=()):
        message = sandbox_service.UpdateSandboxRequest(sandbox_id=sandbox_id, egress=policy(*rules, default=default, types=types))
        message.update_mask.paths.append("egress")
        return self.client.sandboxes.UpdateSandbox(message, timeout=60 * PATIENCE)

    def run(self, sandbox_id, code, **fields):
        done = scenario.execute(self.client, sandbox_id, code, **fields)
        assert done.outcome == "OK", f"{done.outcome} {done.error}"
        return done

    def inside(self, sandbox_id, expression):
        """The value of an expression there."""
        return json.loads(self.run(sandbox_id, f"import json; print(json.dumps({expression}))").stdout)

    def log(self, sandbox_id):
        """All egress events, oldest first."""
        events, token = [], ""
        while True:
            answer = self.client.egress.ListEgressEvents(egress_service.ListEgressEventsRequest(
                sandbox_id=sandbox_id, page_size=1000, page_token=token), timeout=60 * PATIENCE)
            events += answer.events
            token = answer.next_page_token
            if not token:
                return events

    def wait_log(self, sandbox_id, start=0, **fields):
        """The first event after the sequence @start with these fields; see is_like()."""
        return daemons.wait_until(lambda: next((e for e in self.log(sandbox_id) if e.sequence > start and is_like(e, fields)), None),
                                  f"an event {fields}")

    _fences = itertools.count(20000)
    _buckets = {}

    def fence_ports(self, n):
        """For so many refusals that can be told apart from all others."""
        return [next(self._fences) for _ in range(n)]

    def save_tokens(self, sandbox_id, n=8):
        """Events come from a bucket for each sandbox, of 64 and 50 more a second (bpf/egress_abi.h): waits until it cannot be empty, if until the
        next call there are less than @n refusals."""
        now = time.monotonic()
        level, since = self._buckets.get(sandbox_id, (64, now))
        level = min(64, level + 50 * (now - since)) - n
        if level < 0:
            time.sleep(-level / 50)
        self._buckets[sandbox_id] = level, now

    def fence(self, sandbox_id):
        """Waits for the event of a refused connect: what was refused before is in the log, too. Returns its sequence."""
        self.save_tokens(sandbox_id)
        ports = []

        def find():
            # The bucket may be empty by what others do in the sandbox: so once more each second.
            if not ports or time.monotonic() > ports[-1][1] + 1:
                ports.append((next(self._fences), time.monotonic()))
                self.run(sandbox_id, f"tcp({FENCE!r}, {ports[-1][0]})")
            return next((e for e in self.log(sandbox_id) if e.address == FENCE and e.port == ports[-1][0]), None)
        return daemons.wait_until(find, "the event of a refusal").sequence


def rule(action, where, *ports):
    """@where: a prefix, or a name. @ports: numbers or (first, last)."""
    message = egress.EgressRule(action=getattr(egress, f"EGRESS_ACTION_{action.upper()}"))
    is_name = not (":" in where or where.replace("/", "").replace(".", "").isdigit())
    setattr(message, "domain" if is_name else "cidr", where)
    for port in ports:
        first, last = port if isinstance(port, tuple) else (port, port)
        message.ports.add(first=first, last=last)
    return message


def allow(where, *ports):
    return rule("allow", where, *ports)


def deny(where, *ports):
    return rule("deny", where, *ports)


def policy(*rules, default="DENY", types=()):
    """@types: of DNS records, by name."""
    return egress.EgressPolicy(default_action=getattr(egress, f"EGRESS_DEFAULT_ACTION_{default}"), rules=rules,
                               record_types=[egress.EgressRecordType.Value(f"EGRESS_RECORD_TYPE_{name}") for name in types])


def short(event):
    """The event's fields by name, with short names of the enumerators."""
    return {
        "type": egress.EgressEventType.Name(event.type).removeprefix("EGRESS_EVENT_TYPE_"),
        "reason": egress.EgressReason.Name(event.reason).removeprefix("EGRESS_REASON_"),
        "protocol": egress.EgressProtocol.Name(event.protocol).removeprefix("EGRESS_PROTOCOL_"),
        **{name: getattr(event, name) for name in ("address", "port", "name", "rule_index", "policy_version", "pid", "command", "count", "error",
                                                   "sent_bytes", "received_bytes", "execution_id", "sequence")},
    }


def is_like(event, fields):
    fields_of = short(event)
    return all(fields_of[name] == value for name, value in fields.items())
