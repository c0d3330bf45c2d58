"""The figures of egress: hotcell's wall, relay and resolver beside no policy at all and beside nftables, over the same pair of devices."""

import contextlib
import itertools

import rounds
from egress_server import ECHO_PORT, FIRST_BYTE_PORT, NAME, SERVED, STREAM_PORT, UNLISTED
from figures import slow_bar
from programs import Failed
from report import Figure, Series
from stats import Bar, median

FIRST, OTHER = f"{SERVED}/32", f"{UNLISTED}/32"
RESOLVER = "127.0.0.53"
GAP_SECONDS = 0.005
RULES = (1, 100, 10_000)
UPDATE_MILLISECONDS = {1: 50, 10_000: 500}
CUT_MILLISECONDS = 100
MANY, FEW, NONE = "hotcell, 10,000 rules", "hotcell, 1 rule", "hotcell, no policy"
PLAIN = "veth, no policy"
NFTABLES = ("nftables, 1 prefix", "nftables, 10,000 prefixes")
INCLUDES = {
    MANY: "in a sandbox: system calls filtered, wall, relay, the servers beyond the pair of devices",
    FEW: "the same with one rule, the one that the other has, too",
    PLAIN: "the same code and Python beside sandboxes, in the daemons' network: no wall, no filter of system calls, no relay",
    NFTABLES[0]: "the same, with an output chain that rejects what is not in a set of one address; no connection tracking",
    NFTABLES[1]: "the same with a set of 10,000 prefixes",
}
MANY_TIMES = "{n} a turn, " + f"{GAP_SECONDS * 1000:g} ms idle before each"


def _series(samples, name, unit, what=""):
    text = f"{what}; {INCLUDES[name]}" if what else INCLUDES[name]
    return Series(name, unit, text, samples[name])


def _figure(name, samples, unit, what, bars):
    """@bars makes them of the series of ours and of the plain one."""
    ours = _series(samples, MANY, unit, what)
    beside = [_series(samples, other, unit) for other in (FEW, PLAIN, *NFTABLES) if other in samples]
    return Figure(name, ours, beside, bars(ours, next(one for one in beside if one.name == PLAIN)))


def _measure(lab, n_rounds, first, question):
    """Samples of all sides, by turns. @question: what to ask, given whether it is asked in a sandbox."""
    with lab.egress.sides(first) as asked:
        sides = {name: lambda ask=ask, text=question(is_sandbox): ask(text) for name, (ask, is_sandbox) in asked.items()}
        for side in sides.values():
            side()
        turns = rounds.interleave(sides, n_rounds, lab.pause)
    return {name: list(itertools.chain.from_iterable(each)) for name, each in turns.items()}


def _veth_bar(plain):
    """Generous, for a busy machine; what is ten times slower than it should be misses it all the same."""
    return Bar(f"at most 10 x {plain.name} + 2 ms", 10 * plain.summary.median + 2e6)


def connect(lab, counts):
    """What a policy costs a new connection."""
    n = 20
    question = f"connects('{SERVED}', {FIRST_BYTE_PORT}, {n}, {GAP_SECONDS})"
    samples = _measure(lab, counts["egress-connect"], FIRST, lambda _: question)
    what = f"socket() and connect() to the first byte, which the server sends when it has accepted; {MANY_TIMES.format(n=n)}"
    return _figure("egress-connect", samples, "ns", what, lambda ours, plain: [
        Bar("at most 1.1 x one rule", 1.1 * median(samples[FEW])), _veth_bar(plain), slow_bar(ours, plain, 5)])


def round_trip(lab, counts):
    """What the relay costs each message."""
    n = 20
    question = f"round_trips('{SERVED}', {ECHO_PORT}, {n}, {GAP_SECONDS})"
    samples = _measure(lab, counts["egress-round-trip"], FIRST, lambda _: question)
    what = f"64 bytes to an echo server and back, on a connection that is there; {MANY_TIMES.format(n=n)}"
    return _figure("egress-round-trip", samples, "ns", what, lambda ours, plain: [_veth_bar(plain), slow_bar(ours, plain, 5)])


def throughput(lab, counts):
    """What the relay leaves of a stream."""
    question = f"rate('{SERVED}', {STREAM_PORT}, {counts['egress_mib'] << 20})"
    samples = _measure(lab, counts["egress-throughput"], FIRST, lambda _: question)
    what = f"one stream of {counts['egress_mib']} MiB from the server, from the request to the last byte"
    return _figure("egress-throughput", samples, "B/s", what, lambda ours, _: [
        Bar("at least half of the veth without policy", 0.5 * median(samples[PLAIN]), more_is_better=True),
        Bar("the slowest at least a third of its median", ours.summary.median / 3, more_is_better=True, of_slow_end=True)])


def dns(lab, counts):
    """What the resolver costs a name."""
    n = 5  # with all turns fewer than the resolver answers a sandbox at once
    samples = _measure(lab, counts["egress-dns"], NAME, lambda is_sandbox: (
        f"queries('{RESOLVER if is_sandbox else SERVED}', '{NAME}', '{SERVED}', {n}, {GAP_SECONDS})"))
    what = ("a query for an A record to its answer, through hotcell's resolver, whose rules are about names here; there is no "
            f"cache; others ask the server itself; {MANY_TIMES.format(n=n)}")
    return _figure("egress-dns", samples, "ns", what, lambda ours, plain: [_veth_bar(plain), slow_bar(ours, plain, 5)])


def update(lab, counts):
    """How soon a new policy is in force."""
    egress = lab.egress
    with contextlib.ExitStack() as stack:
        sides = {}
        for n_rules in RULES:
            sandbox_id = stack.enter_context(egress.sandbox(n_rules, FIRST))
            sides[n_rules] = _updater(egress, sandbox_id, n_rules)
        for side in sides.values():
            side()
        samples = rounds.interleave(sides, counts["egress-update"], lab.pause)
    what = "UpdateSandbox to its answer over gRPC, when it is in force; it replaces a policy of as many rules"
    most, *fewer = reversed(RULES)
    return Figure("egress-update", Series(_rules(most), "ns", what, samples[most]),
                  [Series(_rules(n_rules), "ns", "the same", samples[n_rules], is_ours=True) for n_rules in fewer],
                  [Bar(f"{_rules(n_rules)}: at most {milliseconds} ms", milliseconds * 1e6, of=_rules(n_rules))
                   for n_rules, milliseconds in UPDATE_MILLISECONDS.items()])


def _updater(egress, sandbox_id, n_rules):
    firsts = itertools.cycle((OTHER, FIRST))  # never the policy that is there, which would be no work
    versions = itertools.count(2)

    def one():
        nanoseconds, version = egress.client.ask("update", sandbox_id, n_rules, next(firsts))
        if int(version) != next(versions):
            raise Failed(f"an update gave version {version} of the policy")
        return int(nanoseconds)

    return one


def cut(lab, counts):
    """How soon what a new policy does not allow is over."""
    with lab.egress.cutter() as one:
        one()
        samples = rounds.interleave({MANY: one}, counts["egress-cut"], lab.pause)[MANY]
    what = ("the answer of UpdateSandbox, whose policy does not allow a stream that goes on, to the reset at the program; 0 if that "
            "came first; the reading of what was on its way included")
    return Figure("egress-cut", Series(FEW, "ns", what, samples), [],
                  [Bar(f"at most {CUT_MILLISECONDS} ms", CUT_MILLISECONDS * 1e6)])


def create(lab, counts):
    """What a rule costs a new sandbox."""
    egress = lab.egress

    def one(*policy):
        nanoseconds, sandbox_id = egress.client.ask("create", *policy)
        egress.client.ask("delete", sandbox_id)
        return int(nanoseconds)

    sides = {FEW: lambda: one(1, FIRST), NONE: one}
    for side in sides.values():
        side()
    samples = rounds.interleave(sides, counts["egress-create"], lab.pause)
    what = ("CreateSandbox with one rule to its answer over gRPC: all of a sandbox but an interpreter, its init refused by the wall over "
            "both families, the policy in force and recorded; no other tool does that, so it is held against itself only")
    ours = Series(FEW, "ns", what, samples[FEW])
    none = Series(NONE, "ns", "the same call without a policy: nothing may leave, which is proven as well", samples[NONE])
    return Figure("egress-create", ours, [none],
                  [Bar("less than 1 ms more than without", none.summary.median + 1e6), slow_bar(ours, none, 5)])


def _rules(n_rules):
    return f"hotcell, {n_rules:,} rule{'s' if n_rules > 1 else ''}"


ALL = {
    "egress-connect": connect, "egress-round-trip": round_trip, "egress-throughput": throughput, "egress-dns": dns,
    "egress-update": update, "egress-cut": cut, "egress-create": create,
}
