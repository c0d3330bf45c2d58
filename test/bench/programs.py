"""The C programs that measure: told by lines, answering by lines."""

import subprocess


class Failed(Exception):
    """Something that was to be measured did not do what it should."""


class Program:
    """One such program. Use as a context manager."""

    def __init__(self, command, separator=" "):
        self.command = [str(word) for word in command]
        self.separator = separator

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            # Ctrl-C is for the benchmark, which then lets each finish what it does: a killed crun leaves cgroups behind.
            start_new_session=True,
        )
        try:
            self.greeting = self._answer("start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()

    def ask(self, *words):
        """Words of the answer after `ok`."""
        line = self.separator.join(map(str, words))
        try:
            self.process.stdin.write(line + "\n")
        except BrokenPipeError:
            pass  # the missing answer says it better
        return self._answer(line)

    def _answer(self, question):
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{self.command[0]} ended with {self.process.wait()} at `{question}`")
        first, _, rest = line.strip().partition(" ")
        if first != "ok":
            raise Failed(f"`{question[:100]}`: {rest or line}")
        return rest.split(" ")
