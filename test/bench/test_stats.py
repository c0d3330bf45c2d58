"""The benchmark's arithmetic: quantiles, medians, bars, the order of measurements, the exit code."""

import json
import unittest

import bench
import figures
import report
import rounds
import soak_figures
import stats


class Quantiles(unittest.TestCase):
    def test_are_samples_that_were_measured(self):
        samples = list(range(1, 101))
        self.assertEqual(stats.quantile(samples, 0.99), 99)
        self.assertEqual(stats.quantile(samples, 0.1), 10)
        self.assertEqual(stats.quantile(samples, 0.07), 7)

    def test_p99_of_few_samples_is_the_largest(self):
        self.assertEqual(stats.quantile([3, 9, 1], 0.99), 9)

    def test_ends_are_smallest_and_largest(self):
        self.assertEqual(stats.quantile([5, 2, 8], 0), 2)
        self.assertEqual(stats.quantile([5, 2, 8], 1), 8)

    def test_order_of_samples_does_not_matter(self):
        self.assertEqual(stats.quantile([4, 1, 3, 2], 0.5), stats.quantile([1, 2, 3, 4], 0.5))

    def test_of_nothing_are_refused(self):
        for function in (lambda: stats.quantile([], 0.5), lambda: stats.median([]), lambda: stats.Summary.of([])):
            with self.assertRaises(ValueError):
                function()

    def test_beyond_the_whole_are_refused(self):
        with self.assertRaises(ValueError):
            stats.quantile([1], 1.1)


class Medians(unittest.TestCase):
    def test_odd_and_even(self):
        self.assertEqual(stats.median([9, 1, 5]), 5)
        self.assertEqual(stats.median([1, 2, 3, 10]), 2.5)

    def test_interval_holds_the_median_and_little_else(self):
        samples = [1 + (n % 100) / 100 for n in range(400)]
        low, high = stats.median_interval(samples)
        self.assertLess(low, stats.median(samples))
        self.assertGreater(high, stats.median(samples))
        self.assertLess(high - low, 0.12)
        self.assertEqual((low, high), stats.median_interval(samples))

    def test_interval_of_what_does_not_vary_is_that(self):
        self.assertEqual(stats.median_interval([7] * 400), (7, 7))

    def test_interval_of_a_difference_that_is_there_does_not_hold_none(self):
        noise = [((n * 7919) % 401 - 200) / 2000 for n in range(400)]
        self.assertGreater(stats.median_interval([1.02 + one for one in noise])[0], 1)

    def test_summary_has_all(self):
        summary = stats.Summary.of([10, 20, 30, 40])
        self.assertEqual((summary.n, summary.min, summary.max, summary.median, summary.mean), (4, 10, 40, 25, 25))


class Bars(unittest.TestCase):
    def test_less_is_better(self):
        bar = stats.Bar("at most 10", 10)
        self.assertEqual(bar.judge(10), stats.MET)
        self.assertEqual(bar.judge(10.1), stats.MISSED)

    def test_more_is_better(self):
        bar = stats.Bar("at least 10", 10, more_is_better=True)
        self.assertEqual(bar.judge(10), stats.MET)
        self.assertEqual(bar.judge(9.9), stats.MISSED)

    def test_unknown_is_not_met(self):
        self.assertEqual(stats.Bar("x", None).judge(1), stats.NOT_JUDGED)
        self.assertEqual(stats.Bar("x", 1).judge(None), stats.NOT_JUDGED)

    def test_one_missed_makes_the_run_missed(self):
        self.assertEqual(stats.worst([stats.MET, stats.NOT_JUDGED, stats.MISSED]), stats.MISSED)
        self.assertEqual(stats.worst([stats.MET, stats.NOT_JUDGED]), stats.NOT_JUDGED)
        self.assertEqual(stats.worst([]), stats.MET)

    def test_ratio_needs_both(self):
        self.assertEqual(stats.ratio(10, 5), 2)
        self.assertIsNone(stats.ratio(10, 0))
        self.assertIsNone(stats.ratio(None, 5))


class Rounds(unittest.TestCase):
    def test_everything_is_measured_in_each_round_with_a_gap_before(self):
        log = []
        sides = {name: lambda name=name: log.append(name) or len(log) for name in "abc"}
        samples = rounds.interleave(sides, 3, lambda: log.append("gap"))
        self.assertEqual(log[::2], ["gap"] * 9)
        self.assertEqual(log[1::2], list("abc" "bca" "cab"))
        self.assertEqual({name: len(values) for name, values in samples.items()}, {"a": 3, "b": 3, "c": 3})


def figure(limit, value=2e6):
    series = report.Series("hotcell", "ns", "all of it", [value])
    return report.Figure("warm", series, [report.Series("bare", "ns", "gRPC", [1e6])], [stats.Bar("at most", limit)])


def slow_figure(samples, bare):
    ours, reference = report.Series("hotcell", "ns", "", samples), report.Series("bare", "ns", "", bare)
    return report.Figure("warm", ours, [reference], [figures.slow_bar(ours, reference, 5)])


class Reports(unittest.TestCase):
    def test_exit_code_tells_missed_from_failed_from_not_judged(self):
        self.assertEqual(report.exit_code([figure(3e6)], []), 0)
        self.assertEqual(report.exit_code([figure(1e6)], []), 3)
        self.assertEqual(report.exit_code([figure(None)], []), 4)
        self.assertEqual(report.exit_code([figure(1e6)], ["no daemon"]), 1)

    def test_ten_times_slower_misses_the_bar(self):
        bar = 4 * 0.4e6 + 1e6
        self.assertEqual(figure(bar, 1.2e6).verdicts(), [stats.MET])
        self.assertEqual(figure(bar, 12e6).verdicts(), [stats.MISSED])

    def test_a_slow_end_ten_times_slower_misses_its_bar_though_the_median_stays(self):
        usual = [1.2e6] * 98 + [2.5e6] * 2
        self.assertEqual(slow_figure(usual, [0.4e6] * 100).verdicts(), [stats.MET])
        slow = slow_figure([1.2e6] * 98 + [25e6] * 2, [0.4e6] * 100)
        self.assertEqual(slow.verdicts(), [stats.MISSED])
        self.assertEqual(report.exit_code([figure(3e6), slow], []), 3)
        self.assertIn("p99 at most 3 x its median + 5 ms", report.table([slow]))

    def test_what_a_busy_machine_does_to_both_sides_is_no_miss(self):
        self.assertEqual(slow_figure([1.2e6] * 98 + [25e6] * 2, [0.4e6] * 98 + [20e6] * 2).verdicts(), [stats.MET])

    def test_a_slow_end_without_a_reference_is_judged_by_its_median(self):
        ours = report.Series("hotcell", "ns", "", [1e6] * 98 + [9e6] * 2)
        self.assertEqual(figures.slow_bar(ours, None, 5).limit, 8e6)

    def test_every_figure_has_a_number_of_samples(self):
        for counts in (bench.FULL, bench.QUICK):
            self.assertLessEqual(set(bench.ALL), set(counts))

    def test_table_names_every_side_and_the_verdict(self):
        text = report.table([figure(1e6)])
        for words in ("warm", "hotcell", "bare", "2.00", "1.00", "MISSED", "2.00x"):
            self.assertIn(words, text)

    def test_slow_end_of_a_rate_is_its_least(self):
        series = report.Series("hotcell", "B/s", "", [300, 100, 200])
        self.assertEqual(series.slow_end(), 100)

    def test_further_figures_of_hotcell_have_no_ratio(self):
        more = report.Series("hotcell, idle", "ns", "", [1e6], is_ours=True)
        lone = report.Figure("warm", report.Series("hotcell", "ns", "", [2e6]), [more], [])
        self.assertNotIn("2.00x", report.table([lone]))
        self.assertIsNone(lone.as_json()["beside"][0]["ratio"])

    def test_json_has_the_quantiles(self):
        row = json.loads(json.dumps(figure(3e6).as_json()))
        self.assertEqual(row["hotcell"]["p99"], 2e6)
        self.assertEqual(row["beside"][0]["ratio"], 2)
        self.assertEqual([bar["verdict"] for bar in row["bars"]], ["met"])


def minute(msec=10, **sizes):
    look = {"hotcelld_rss": 40 << 20, "runtime_rss": 4 << 20, "spawner_rss": 2 << 20, "hotcelld_fds": 90, "runtime_fds": 100,
            "database": 12 << 20, "wal": 4 << 20, "log": 1000, "processes": 20, "groups": 70}
    return soak_figures.Minute([msec] * 100, [look | {"hotcelld_rss": 1 << 20}, look | sizes])


class Soaks(unittest.TestCase):
    def missed(self, minutes):
        return [row["name"] for row in soak_figures.judge(minutes) if row["verdict"] != stats.MET]

    def test_what_stays_as_it_was_after_two_minutes_is_met(self):
        self.assertEqual(self.missed([minute(1), minute(1)] + [minute()] * 3), [])

    def test_each_figure_that_grows_is_missed(self):
        grown = {"hotcelld_rss": "hotcelld RSS", "runtime_rss": "runtime RSS", "spawner_rss": "spawner RSS", "hotcelld_fds": "hotcelld fds",
                 "runtime_fds": "runtime fds", "database": "database", "wal": "WAL", "processes": "processes", "groups": "groups"}
        usual = minute()
        for name, shown in grown.items():
            with self.subTest(name):
                self.assertEqual(self.missed([usual] * 3 + [minute(**{name: 3 * usual.looks[-1][name]})]), [shown])

    def test_slow_cells_and_a_flooded_log_are_missed(self):
        self.assertEqual(self.missed([minute()] * 3 + [minute(1000)]), ["median", "p99"])
        self.assertEqual(self.missed([minute()] * 3 + [minute(log=5 << 20)]), ["log a minute"])

    def test_growth_before_the_third_minute_is_no_matter(self):
        self.assertEqual(self.missed([minute(database=1), minute(database=1)] + [minute()] * 2), [])

    def test_the_table_names_every_figure(self):
        minutes = [minute()] * 4
        text = soak_figures.table({
            "by_minute": [{name: figure.of(one) for name, figure in soak_figures.FIGURES.items()} for one in minutes],
            "restarts_msec": [300, 500], "counts": {"cells": 7}, "bars": soak_figures.judge(minutes), "failures": ["it fell"],
        })
        for words in (*soak_figures.FIGURES, "log a minute", "2 times", "7 cells", "FAILED: it fell"):
            self.assertIn(words, text)
