"""The egress figures: their bars, which figures `--only` means, and the code that measures on all sides."""

import contextlib
import socket
import struct
import threading
import time
import unittest
from unittest import mock

import bench
import egress_figures
import egress_probe
import egress_server
import report
import stats
from programs import Failed

COUNTS = dict.fromkeys([*egress_figures.ALL, "egress_mib"], 2)
MANY, FEW, PLAIN = egress_figures.MANY, egress_figures.FEW, egress_figures.PLAIN


class Egress:
    """Sides that answer always the same, and what they were asked."""

    def __init__(self, values, create_nsec=None, update_version=None, update_nsec=1000, cut_nsec=0):
        self.values, self.create_nsec, self.update_version = values, create_nsec or {}, update_version
        self.update_nsec, self.cut_nsec = update_nsec, cut_nsec
        self.asked, self.first, self.client = {}, None, self
        self.versions = {}

    @contextlib.contextmanager
    def sides(self, first):
        self.first = first

        def side(name, value):
            return lambda question: self.asked.setdefault(name, question) and [value, value]

        yield {name: (side(name, value), name.startswith("hotcell")) for name, value in self.values.items()}

    @contextlib.contextmanager
    def sandbox(self, n_rules, _first):
        yield f"sandbox-{n_rules}"

    @contextlib.contextmanager
    def cutter(self):
        yield lambda: self.cut_nsec

    def ask(self, call, *words):
        if call == "create":
            return [str(self.create_nsec[bool(words)]), "a-sandbox"]
        if call == "update":
            self.asked.setdefault(words[0], []).append(words[2])
            self.versions[words[0]] = self.versions.get(words[0], 1) + 1
            return [str(self.update_nsec), str(self.update_version or self.versions[words[0]])]
        return ["1"]


class Lab:
    def __init__(self, *arguments, **fields):
        self.egress = Egress(*arguments, **fields)

    def pause(self):
        pass


def verdicts(figure, **values):
    return figure(Lab({MANY: values["many"], FEW: values["few"], PLAIN: values["plain"]}), COUNTS).verdicts()


class Figures(unittest.TestCase):
    def test_ten_thousand_rules_may_cost_a_tenth_more_than_one(self):
        self.assertEqual(verdicts(egress_figures.connect, many=1.1e5, few=1e5, plain=1e4), [stats.MET] * 3)
        self.assertEqual(verdicts(egress_figures.connect, many=1.11e5, few=1e5, plain=1e4), [stats.MISSED, stats.MET, stats.MET])

    def test_ten_times_the_veth_and_some_is_too_much(self):
        for figure, place in ((egress_figures.connect, 1), (egress_figures.round_trip, 0), (egress_figures.dns, 0)):
            for many, verdict in ((2.9e6, stats.MET), (3.1e6, stats.MISSED)):
                self.assertEqual(verdicts(figure, many=many, few=many, plain=1e5)[place], verdict)

    def test_an_update_and_a_cut_have_their_time(self):
        for nsec, expected in ((49e6, [stats.MET, stats.MET]), (51e6, [stats.MISSED, stats.MET]), (501e6, [stats.MISSED, stats.MISSED])):
            figure = egress_figures.update(Lab({}, update_nsec=int(nsec)), COUNTS)
            self.assertEqual(figure.verdicts(), expected)
        for nsec, verdict in ((99e6, stats.MET), (101e6, stats.MISSED)):
            self.assertEqual(egress_figures.cut(Lab({}, cut_nsec=nsec), COUNTS).verdicts(), [verdict])

    def test_a_bar_of_another_series_is_judged_by_that(self):
        ours, other = (report.Series(name, "ns", "", [value] * 3) for name, value in (("ours", 10), ("other", 20)))
        bars = [stats.Bar("", 15), stats.Bar("", 15, of="other"), stats.Bar("", 15, of="ours")]
        self.assertEqual(report.Figure("", ours, [other], bars).verdicts(), [stats.MET, stats.MISSED, stats.MET])

    def test_half_of_the_plain_stream_is_enough(self):
        self.assertEqual(verdicts(egress_figures.throughput, many=5e8, few=6e8, plain=1e9), [stats.MET, stats.MET])
        self.assertEqual(verdicts(egress_figures.throughput, many=4.9e8, few=6e8, plain=1e9), [stats.MISSED, stats.MET])

    def test_a_rule_may_add_a_millisecond_to_a_creation(self):
        for with_rule, verdict in ((5.9e6, stats.MET), (6.1e6, stats.MISSED)):
            figure = egress_figures.create(Lab({}, {True: int(with_rule), False: 5_000_000}), COUNTS)
            self.assertEqual(figure.verdicts()[0], verdict)

    def test_all_samples_of_all_turns_and_sides_are_kept(self):
        values = {MANY: 4, FEW: 3, PLAIN: 1, **dict.fromkeys(egress_figures.NFTABLES, 2)}
        figure = egress_figures.round_trip(Lab(values), COUNTS)
        self.assertEqual(figure.ours.samples, [4] * 4)
        self.assertEqual({one.name: one.samples for one in figure.beside}, {name: [value] * 4 for name, value in values.items() if name != MANY})

    def test_without_nftables_the_rest_is_measured(self):
        figure = egress_figures.dns(Lab({MANY: 3, FEW: 2, PLAIN: 1}), COUNTS)
        self.assertEqual([one.name for one in figure.beside], [FEW, PLAIN])

    def test_names_are_asked_of_the_resolver_only_in_sandboxes(self):
        lab = Lab({MANY: 3, FEW: 2, PLAIN: 1})
        egress_figures.dns(lab, COUNTS)
        self.assertEqual(lab.egress.first, egress_server.NAME)
        self.assertIn(egress_figures.RESOLVER, lab.egress.asked[MANY])
        self.assertNotIn(egress_figures.RESOLVER, lab.egress.asked[PLAIN])

    def test_an_update_is_never_to_what_is_there(self):
        lab = Lab({})
        egress_figures.update(lab, COUNTS)
        self.assertEqual(lab.egress.asked, {f"sandbox-{n}": [egress_figures.OTHER, egress_figures.FIRST, egress_figures.OTHER]
                                            for n in egress_figures.RULES})

    def test_an_update_that_changed_nothing_is_no_figure(self):
        with self.assertRaises(Failed):
            egress_figures.update(Lab({}, update_version=1), COUNTS)


class Choices(unittest.TestCase):
    def test_egress_means_all_of_its_figures(self):
        self.assertEqual(bench.chosen(["egress"]), list(egress_figures.ALL))

    def test_none_means_all_figures_and_none_is_chosen_twice(self):
        self.assertEqual(bench.chosen(None), list(bench.ALL))
        self.assertEqual(bench.chosen(["warm", "egress-dns", "egress-dns"]), ["warm", "egress-dns"])


class Probes(unittest.TestCase):
    def test_give_as_many_samples_as_were_asked_for(self):
        for probe, function in ((egress_probe.connects, egress_server.first_byte), (egress_probe.round_trips, egress_server.echo)):
            samples = probe("127.0.0.1", egress_server.serve(0, function), 3, 0)
            self.assertEqual(len(samples), 3)
            self.assertGreater(min(samples), 0)

    def test_measure_a_stream_of_any_length(self):
        port = egress_server.serve(0, egress_server.stream)
        for n_bytes in (1, 1_000_000):
            self.assertGreater(egress_probe.rate("127.0.0.1", port, n_bytes)[0], 0)

    def test_tell_when_a_stream_was_reset(self):
        def stream_and_reset(connection):
            connection.recv(8, socket.MSG_WAITALL)
            connection.sendall(b"x")
            reading.wait(60)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        reading = threading.Event()
        before = time.monotonic_ns()
        with mock.patch("builtins.print", lambda *_, **__: reading.set()):
            self.assertGreater(egress_probe.until_reset("127.0.0.1", egress_server.serve(0, stream_and_reset)), before)
            with self.assertRaises(OSError):
                egress_probe.until_reset("127.0.0.1", egress_server.serve(0, lambda connection: connection.recv(8, socket.MSG_WAITALL)))

    def test_fail_when_the_server_does_something_else(self):
        with self.assertRaises(OSError):
            egress_probe.connects("127.0.0.1", egress_server.serve(0, lambda connection: connection.sendall(b"y")), 1, 0)
        with self.assertRaises(OSError):
            egress_probe.rate("127.0.0.1", egress_server.serve(0, lambda connection: connection.sendall(b"y")), 2)

    def test_see_a_refusal(self):
        self.assertFalse(egress_probe.is_refused("127.0.0.1", egress_server.serve(0, egress_server.echo)))
        with socket.socket() as bound:  # nobody listens
            bound.bind(("127.0.0.1", 0))
            self.assertTrue(egress_probe.is_refused("127.0.0.1", bound.getsockname()[1]))
