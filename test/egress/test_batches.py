"""How the table is run: whatever one row does that it must not is found, also among others of its batch."""

import collections
import json
import types
import unittest
from unittest import mock

import batches
import rows
import scene as scenes
import world as worlds
from rows import BPF, RELAY, RESOLVER, Row
from stubs import egress

ALLOWED = ("tcp", "93.184.216.34", 7)
FORBIDDEN = ("tcp", "93.184.216.35", 7)


def event_of(kind="DENIED", **fields):
    return egress.EgressEvent(type=getattr(egress, f"EGRESS_EVENT_TYPE_{kind}"), **fields)


class Scripted:
    """A scene and its world, where each row does what the test says: `does[row]`."""

    def __init__(self, does, n_home=0):
        self.does, self.n_home = does, n_home
        self.world = self
        self.outside = self
        self.events_seen, self.packets, self.names = [], collections.Counter(), []

    # --- the scene ---

    def fence_ports(self, n):
        return list(range(20000, 20000 + n))

    def save_tokens(self, *_):
        pass

    def tell(self, event):
        event.sequence = len(self.events_seen) + 1
        self.events_seen.append(event)

    def run(self, *arguments):
        if len(arguments) == 1:  # the listeners of the host itself
            return self.n_home
        late = []
        for index, (_, done) in enumerate(self.does):
            self.tell(event_of(address=scenes.FENCE, port=20000 + index))
            for event in done.get("events", ()):
                self.tell(event)
            late += done.get("late", ())
            self.packets.update(done.get("packets", ()))
            self.names += done.get("asked", ())
        self.tell(event_of(address=scenes.FENCE, port=20000 + len(self.does)))
        for event in late:
            self.tell(event)
        return types.SimpleNamespace(stdout=json.dumps([[done.get("result", "EPERM"), None] for _, done in self.does]))

    def log(self, _sandbox):
        return self.events_seen

    # --- the world ---

    def mark(self):
        return worlds.Mark(collections.Counter(self.packets), len(self.names))

    def connects(self):
        return collections.Counter({key[1:]: n for key, n in self.packets.items() if key[0] == "tcp"})

    def arrived(self, mark):
        return self.packets - mark.packets

    def events(self, start):
        return [{"kind": "dns", "name": name} for name in self.names[start:]]


def refused(what="refused", aim=FORBIDDEN):
    return Row(what, "", "EPERM", (BPF,), aim=(aim,), event={"type": "DENIED", "address": aim[1]})


def allowed(what="allowed"):
    return Row(what, "", "echo", seen=(ALLOWED,), event={"type": "FLOW_ENDED", "address": ALLOWED[1]})


def denied():
    return {"events": [event_of(address=FORBIDDEN[1])]}


def passed():
    return {"result": "echo", "packets": [ALLOWED], "late": [event_of("FLOW_ENDED", address=ALLOWED[1])]}


class Batches(unittest.TestCase):
    def problems(self, *does, elsewhere=()):
        """By row."""
        with mock.patch.object(batches, "EVENT_SECONDS", 0.1):
            batches.Batch(Scripted(does), "sandbox", [row for row, _ in does], elsewhere).run()
        return [" ".join(row.problems) for row, _ in does]

    def only(self, number, text, *does, **options):
        for index, found in enumerate(self.problems(*does, **options)):
            if index == number:
                self.assertIn(text, found)
            else:
                self.assertEqual(found, "")

    def test_what_is_right_has_no_problem(self):
        self.assertEqual(self.problems((refused(), denied()), (allowed(), passed()), (Row("none", "", "EPERM"), {}), (allowed(), passed())), [""] * 4)

    def test_another_result_is_one(self):
        self.only(1, "'echo' is none of", (refused(), denied()), (refused(), {**denied(), "result": "echo"}))

    def test_no_event_is_one(self):
        self.only(0, "no event", (refused(), {}), (refused(), denied()))
        self.only(1, "no event", (refused(), denied()), (refused(), {}))

    def test_an_event_stands_for_one_row(self):
        self.only(1, "no event", (allowed(), passed()), (allowed(), {**passed(), "late": ()}))

    def test_an_event_where_none_may_be_is_one(self):
        self.only(1, "has events", (refused(), denied()), (Row("none", "", "EPERM"), denied()))

    def test_a_refused_packet_that_arrives_is_one(self):
        self.only(1, "arrived, and must not", (allowed(), passed()), (refused(), {**denied(), "packets": [FORBIDDEN]}))
        self.only(0, "arrived, and must not", (refused(), {**denied(), "packets": [("udp", FORBIDDEN[1], 9)]}))

    def test_a_name_that_is_asked_for_is_one(self):
        self.only(0, "arrived, and must not", (refused(), {**denied(), "asked": ["evil.test"]}))

    def test_a_connection_to_the_host_itself_is_one(self):
        row = refused()
        batches.Batch(Scripted([(row, denied())], n_home=1), "sandbox", [row], ()).run()
        self.assertEqual(row.problems, ["the host itself was reached"])

    def test_what_others_may_do_meanwhile_is_none(self):
        does = {**denied(), "packets": [ALLOWED]}
        self.only(0, "arrived, and must not", (refused(), does))
        self.assertEqual(self.problems((refused(), does), elsewhere=[allowed()]), [""])

    def test_an_allowed_packet_that_does_not_arrive_is_one(self):
        self.only(0, "did not arrive", (allowed(), {**passed(), "packets": ()}))

    def test_a_packet_stands_for_one_row(self):
        found = self.problems((allowed(), passed()), (allowed(), {**passed(), "packets": ()}))
        self.assertTrue(all("did not arrive" in problem for problem in found), found)

    def test_an_allowed_name_that_is_not_asked_for_is_one(self):
        self.only(0, "did not arrive", (Row("name", "", "EPERM", names=("allowed.test",)), {}))

    def test_a_broken_execution_is_one(self):
        self.assertIn("ZeroDivisionError", self.broken(lambda *_: 1 / 0)[0])

    def broken(self, run):
        row, scripted = refused(), Scripted([])
        scripted.run = run
        batches.Batch(scripted, "sandbox", [row], ()).run()
        return row.problems


class Outside(unittest.TestCase):
    def tried(self, row, packets):
        scripted = Scripted([])
        scripted.nobody = mock.Mock()
        scripted.outside = mock.Mock()
        scripted.outside.run.side_effect = lambda code: scripted.packets.update(packets) or code
        batches.try_outside(scripted, [row])
        return row.problems

    def test_what_arrives_there_shows_that_it_was_refused_within(self):
        self.assertEqual(self.tried(refused(), [FORBIDDEN]), [])

    def test_what_does_not_arrive_there_shows_nothing(self):
        self.assertIn("so the row shows nothing", self.tried(refused(), [ALLOWED])[0])


class Alone(unittest.TestCase):
    def test_what_is_reached_by_a_name_is_asked_for_in_the_same_row(self):
        named = {*rows.NAMED.values(), *rows.WILD.values(), *rows.HALF.values()}
        by_name = [row for row in rows.all_rows() if named & {where[1] for where in (*row.seen, *row.aim)}]
        self.assertGreater(len(by_name), 30)
        for row in by_name:
            if row.what != "address of an allowed name that was not asked for":
                self.assertTrue(row.names, f"{row.what} relies on another row")


class Cutting(unittest.TestCase):
    def test_no_row_is_lost_and_their_order_is_kept(self):
        every = rows.all_rows()
        self.assertEqual([id(row) for some in batches.cut(every) for row in some], [id(row) for row in every])

    def test_what_one_must_not_reach_no_other_of_its_batch_may(self):
        self.assertEqual([len(some) for some in batches.cut([refused(), allowed(), refused(aim=ALLOWED), refused()])], [2, 2])
        for some in batches.cut(rows.all_rows()):
            self.assertFalse(batches.aims_of(some) & batches.reached_by(some))

    def test_what_runs_beside_others_must_not_reach_what_any_of_them_may(self):
        every = rows.all_rows()
        rest, slow = batches.part(every)
        self.assertEqual(sorted(map(id, rest + slow)), sorted(map(id, every)))
        self.assertGreater(len(slow), 20)
        self.assertFalse(batches.aims_of(slow) & batches.reached_by(every))
        self.assertFalse(batches.reached_by(slow) & (batches.reached_by(rest) | batches.aims_of(rest)))

    def test_what_the_resolver_refuses_is_alone(self):
        name = Row("name", "", "REFUSED", (RESOLVER,))
        self.assertEqual([len(some) for some in batches.cut([refused(), name, name, Row("relay", "", "x", (RELAY,))])], [1, 1, 1, 1])

    def test_as_many_rows_as_possible_have_an_event(self):
        self.assertEqual(batches.match([[1, 2], [1]]), {1: 1, 2: 0})
        self.assertEqual(batches.match([[1], [1]]), {1: 0})


if __name__ == "__main__":
    unittest.main()
