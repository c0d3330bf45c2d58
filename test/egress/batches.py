"""How the rows of the table are run: some in one execution, a refusal between each and the next, so that the egress log tells whose events are whose.
What one row may not reach, no other row of its batch may: so what arrives is known to be allowed, or is beyond.

Rows of which each takes long, or whose event is reported only once a second, run in sandboxes of their own, beside the others.
"""

import collections
import concurrent.futures
import json
import traceback

import daemons
import rows as tables
import scene as scenes

BATCH = 12
TOKENS = 3  # of events, which a row with its fence may need
EVENT_SECONDS = 20
# How long what is tried outside waits for answers. A name server gives one; of all others only what leaves at once matters.
ANSWER_SECONDS, LEAVE_SECONDS = 10 * daemons.PATIENCE, 0.05
# hotcell-egress asks it, and so does the test outside.
ALWAYS_SEEN = {("udp", "9.9.9.9", 53), ("tcp", "9.9.9.9", 53)}

PROGRAM = """
import json
found = []
for port, code, probe in {steps!r}:
    tcp({fence!r}, port)
    found.append([value_of(code), probe and value_of(probe)])
tcp({fence!r}, {last})
print(json.dumps(found))
"""


def is_told_each_second(row):
    """The resolver reports one refusal at once, of those that follow only the last one's name."""
    return tables.RESOLVER in row.walls or (row.event or {}).get("type") == "FAILED" and "name" in row.event


def is_slow(row):
    return row.policy in ("names", "types") and is_told_each_second(row) or (row.event or {}).get("error") == "ETIMEDOUT"


def aims_of(rows):
    return {aim[:2] for row in rows for aim in row.aim}


def reached_by(rows):
    return {seen[:2] for row in rows for seen in row.seen} | {("dns", name) for row in rows for name in row.names}


def can_be_confused(one, other):
    """@other reaches what @one must not."""
    return bool(aims_of([one]) & reached_by([other]))


def part(rows):
    """Those to run in their turn, and slow ones that can run beside them: neither reaches what the other may reach, or must not."""
    rest, slow = [row for row in rows if not is_slow(row)], [row for row in rows if is_slow(row)]
    while confused := [row for row in slow if reached_by([row]) & (reached_by(rest) | aims_of(rest)) or aims_of([row]) & reached_by(rows)]:
        rest += confused
        slow = [row for row in slow if not any(row is other for other in confused)]
    return [row for row in rows if not any(row is other for other in slow)], slow


def can_share(one, other):
    return not (is_told_each_second(one) or is_told_each_second(other) or can_be_confused(one, other) or can_be_confused(other, one))


def cut(rows):
    """Batches of rows that follow one another: some rely on what those before them did."""
    batches = []
    for row in rows:
        if not batches or len(batches[-1]) == BATCH or not all(can_share(row, other) for other in batches[-1]):
            batches.append([])
        batches[-1].append(row)
    return batches


def match(wanted):
    """Gives each of the lists @wanted one of its members, no member twice: {member: index}, as many as can be."""
    given = {}

    def place(index, tried):
        for member in wanted[index]:
            if member in tried:
                continue
            tried.add(member)
            if member not in given or place(given[member], tried):
                given[member] = index
                return True
        return False
    for index in range(len(wanted)):
        place(index, set())
    return given


class Batch:
    """Some rows in a sandbox. What is wrong with a row is in its `problems`. @elsewhere: the rows that other sandboxes run meanwhile. None: they may
    be any of the table, so that what arrived is not looked at here."""

    def __init__(self, scene, sandbox, rows, elsewhere):
        self.scene, self.sandbox, self.rows, self.elsewhere = scene, sandbox, rows, elsewhere

    def run(self):
        try:
            self.attempt()
        except Exception:  # pylint: disable=broad-except
            for row in self.rows:
                row.problems.append(traceback.format_exc())

    def attempt(self):
        ports = self.scene.fence_ports(len(self.rows) + 1)
        self.scene.save_tokens(self.sandbox, TOKENS * len(ports))
        if self.elsewhere is not None:
            arrivals = Arrivals(self.scene.world)
        steps = [(port, row.code, row.probe) for port, row in zip(ports, self.rows)]
        done = self.scene.run(self.sandbox, PROGRAM.format(steps=steps, fence=scenes.FENCE, last=ports[-1]))
        for row, (row.result, row.probed) in zip(self.rows, json.loads(done.stdout)):
            expected = (row.expect,) if isinstance(row.expect, str) else row.expect
            if row.result not in expected:
                row.problems.append(f"{row.result!r} is none of {expected}")
        self.check_events(ports)
        if self.elsewhere is not None:
            arrivals.check(self.rows, self.elsewhere)

    def check_events(self, ports):
        """Each row has an event of its own, or none at all."""
        def look():
            self.read_log(ports)
            return self.given is not None and len(self.given) == sum(row.event is not None for row in self.rows)
        self.given = None  # until all fences are told
        try:
            daemons.wait_until(look, "an event of each row", EVENT_SECONDS)
        except AssertionError:
            if self.given is None:
                raise
        for index, row in enumerate(self.rows):
            between = [scenes.short(event) for event in self.between(index) if self.given.get(event.sequence) in (None, index)]
            if row.event and index not in self.given.values():
                row.problems.append(f"no event {row.event}, but {between}")
            elif not row.event and any(event["type"] != "FLOW_ENDED" for event in between):
                row.problems.append(f"has events: {between}")

    def read_log(self, ports):
        """Whose events are whose, in `given`."""
        events = self.scene.log(self.sandbox)
        fences = {event.port: event.sequence for event in events if event.address == scenes.FENCE}
        if not set(ports) <= set(fences):
            return
        self.bounds = [fences[port] for port in ports]
        self.events = [event for event in events if event.sequence > self.bounds[0] and event.address != scenes.FENCE]
        self.given = match([[event.sequence for event in self.candidates(index)] for index in range(len(self.rows))])

    def between(self, index):
        return [event for event in self.events if self.bounds[index] < event.sequence < self.bounds[index + 1]]

    def candidates(self, index):
        """What BPF tells is in the order in which it happened; what hotcell-egress does may be told later."""
        row = self.rows[index]
        if row.event is None:
            return []
        events = self.between(index) if row.walls == (tables.BPF,) else [e for e in self.events if e.sequence > self.bounds[index]]
        return [event for event in events if scenes.is_like(event, row.event)]


class Arrivals:
    """What came to the hosts since this was made."""

    def __init__(self, world):
        self.world, self.mark, self.connects = world, world.mark(), world.connects()

    def check(self, rows, elsewhere):
        """All that the rows must reach came, and nothing else but what those @elsewhere may reach."""
        arrived = set(self.world.arrived(self.mark)) - ALWAYS_SEEN
        asked = {event["name"] for event in self.world.events(self.mark.n_events) if event["kind"] == "dns"}
        connects = self.world.connects() - self.connects
        wanted = collections.Counter(seen[1:] for row in rows for seen in row.seen if seen[0] == "tcp")
        for row in rows:
            missing = (set(row.seen) - arrived) | (set(row.names) - asked)
            missing |= {seen for seen in row.seen if seen[0] == "tcp" and connects[seen[1:]] < wanted[seen[1:]]}
            if missing:
                row.problems.append(f"did not arrive: {missing}")
        allowed = reached_by((*rows, *elsewhere))
        beyond = ({came[:2] for came in arrived} | {("dns", name) for name in asked}) - allowed
        if beyond:
            # Of the row that aims at it, if there is one.
            blamed = [row for row in rows if aims_of([row]) & beyond] or rows
            for row in blamed:
                row.problems.append(f"arrived, and must not: {beyond}")
        if self.world.outside.run(tables.COUNT_HOME):
            for row in rows:
                row.problems.append("the host itself was reached")


def run_beside(scene, create, policy, rows):
    sandbox = create(policy)
    for row in rows:
        Batch(scene, sandbox, [row], None).run()


def run_all(scene, create, rows):
    """All rows, in sandboxes that @create makes, each with a policy of that name."""
    rest, slow = part(rows)
    beside = collections.defaultdict(list)
    for row in slow:
        beside[row.policy, row.version].append(row)
    arrivals = Arrivals(scene.world)
    with concurrent.futures.ThreadPoolExecutor(len(beside) + len(tables.POLICIES)) as pool:
        running = [pool.submit(run_beside, scene, create, policy, some) for (policy, _), some in beside.items()]
        # All of them before the first row: one's programs try to reach another.
        for policy, sandbox in list(zip(tables.POLICIES, pool.map(create, tables.POLICIES))):
            for some in cut([row for row in rest if row.policy == policy]):
                Batch(scene, sandbox, some, slow).run()
        for one in running:
            one.result()
    arrivals.check(slow, rows)


def try_outside(scene, rows):
    """Tried outside it arrives: else a row would show nothing. And there it is seen which wall it was."""
    world = scene.world
    mark = world.mark()
    for row in rows:
        if not row.aim and not row.needs_comparison():
            continue
        seconds = ANSWER_SECONDS if any(aim[0] == "dns" for aim in row.aim) else LEAVE_SECONDS
        row.nobody, row.root = (outside.run(f"SECONDS = {seconds}\nresult = value_of({row.outside or row.code!r})")
                                for outside in (world.nobody, world.outside))
        before, mark = mark, world.mark()
        arrived = set(mark.packets - before.packets) | {("dns", event["name"]) for event in world.events(before.n_events) if event["kind"] == "dns"}
        if not set(row.aim) <= arrived:
            row.problems.append(f"the same outside does not arrive, so the row shows nothing: {set(row.aim) - arrived}")
        if row.probe:
            row.probed_outside = world.outside.run(f"result = value_of({row.probe!r})")
