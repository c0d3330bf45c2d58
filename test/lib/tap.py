"""Runs unittest modules and reports each test as a line of TAP, which Meson reads: `tap.py FILE…`.

A failure prints its traceback as TAP comments. A skip is a failure unless HOTCELL_ALLOW_SKIP names why skipping is right here.
"""

import importlib.util
import os
import pathlib
import sys
import unittest


class TapResult(unittest.TestResult):
    def __init__(self, total):
        super().__init__()
        self.n = 0
        self.failed_in_part = set()
        print(f"TAP version 13\n1..{total}", flush=True)

    def _line(self, good, test, comment="", directive=""):
        self.n += 1
        name = test.id().split(".", 1)[-1].replace("#", " ")
        self._comment(comment)
        print(f"{'ok' if good else 'not ok'} {self.n} {name}{directive}", flush=True)

    @staticmethod
    def _comment(text):
        for line in text.splitlines():
            print(f"# {line}", flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._line(True, test)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._line(False, test, self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self._line(False, test, self.errors[-1][1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            # The test itself says nothing more then: one line for the first of its failures, comments for the others.
            text = (self.failures if issubclass(err[0], test.failureException) else self.errors)[-1][1]
            if test.id() in self.failed_in_part:
                self._comment(f"{subtest}\n{text}")
            else:
                self.failed_in_part.add(test.id())
                self._line(False, test, f"{subtest}\n{text}")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self._line(True, test)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self._line(False, test, "succeeded, although it is marked as failing")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        if os.environ.get("HOTCELL_ALLOW_SKIP"):
            self._line(True, test, directive=f" # SKIP {reason}")
        else:
            self.failures.append((test, f"skipped: {reason}"))
            self._line(False, test, f"skipped, which is not allowed here: {reason}")


def load(path):
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def main(paths):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    suite = unittest.TestSuite(load(pathlib.Path(p).resolve()) for p in paths)
    if not suite.countTestCases():
        print(f"Bail out! no tests in {' '.join(paths)}", flush=True)
        return 1
    result = TapResult(suite.countTestCases())
    suite.run(result)
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
