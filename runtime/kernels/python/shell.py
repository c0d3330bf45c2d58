"""The IPython shell that keeps the state and runs the cells.

What is different from a terminal's: results, displays and errors go to the report instead of to standard output; nothing is
kept on disk and nothing beyond bounds in memory; `!cmd` runs in a plain shell, so that its two outputs stay two; leaving
(`exit()`, `sys.exit(3)`) ends the cell and is reported, and the state stays.
"""

import bdb
import builtins
import codeop
import contextlib
import fnmatch
import functools
import os
import re
import signal
import sys

from IPython.core import page
from IPython.core.autocall import ExitAutocall, IPyAutocall
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import StdinNotImplementedError, UsageError
from IPython.core.formatters import DisplayFormatter
from IPython.core.history import HistoryManager
from IPython.core.inputtransformer2 import leading_empty_lines
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.macro import Macro
from IPython.lib import pretty
from traitlets.config import Config

from . import errors, imports

# `Out` keeps every result alive. With IPython's 1000, a session that shows data frames would end at its memory limit.
OUT_MAX = 100

# How long a shell command has to end after the SIGINT that it gets when the cell is interrupted.
COMMAND_GRACE_SEC = 1.0


def create(report, loops, interrupts):
    config = Config()
    config.History.enabled = False
    config.History.hist_file = ":memory:"  # else the name of a file is made up
    shell = Shell.instance(config=config, cache_size=OUT_MAX, colors="nocolor", loop_runner=loops.run_cell)
    shell.report = report
    shell.interrupts = interrupts
    keep_leading_lines(shell.input_transformer_manager)
    shell.plain_cells = PlainCells(shell)
    # The original's digest is a whole library that a small cell would touch for this only.
    shell.compile.get_code_name = lambda raw, code, number: f"<ipython-input-{number}-{hash(code) & 0xFFFF_FFFF_FFFF:012x}>"
    # A cell is all there is, nobody types the rest: "'(' was never closed" says more than "incomplete input".
    shell.compile.flags &= ~codeop.PyCF_ALLOW_INCOMPLETE_INPUT
    return shell


def keep_leading_lines(manager):
    """Empty lines before the code stay, so that line numbers are those of what was sent; IPython would drop them."""
    def after_empty_lines(transform):
        def transform_rest(lines):
            n = next((i for i, line in enumerate(lines) if line.strip()), len(lines))
            return lines[:n] + transform(lines[n:]) if n < len(lines) else lines
        return transform_rest
    manager.cleanup_transforms = [after_empty_lines(t) for t in manager.cleanup_transforms if t is not leading_empty_lines]


# What IPython's own transforms look for: `%`, `!` and `?` anywhere, the others at the start of a line; and what it takes off:
# prompts of interpreters, and the indent of the first line.
_MARKS = re.compile(r"[%!?]|^\s*[,;/]", re.MULTILINE)
_PROMPTS = re.compile(r">>>|\.\.\.|In \[")
_FIRST_WORD = re.compile(r"[\w.*@]*")


class PlainCells:
    """Knows a cell that is Python as it stands: to take it through all transforms costs more than to run it."""

    def __init__(self, shell):
        self._shell = shell
        self._known = self._transforms()
        manager = shell.input_transformer_manager
        transform = manager.do_token_transforms

        def transform_marked(lines):
            # To take a cell into tokens costs the most.
            if manager.token_transformers == self._known[2] and not any(map(_MARKS.search, lines)):
                return lines
            return transform(lines)
        manager.do_token_transforms = transform_marked

    def has(self, cell):
        if not cell or cell[0].isspace() or _MARKS.search(cell) or _PROMPTS.search(cell) or self._transforms() != self._known:
            return False
        return len(cell.splitlines()) > 1 or self._is_plain_line(cell)

    def _is_plain_line(self, line):
        """A single line may be a magic without its `%`, or call something without parentheses, such as `exit`."""
        shell = self._shell
        word = _FIRST_WORD.match(line)[0]
        if shell.autocall or "." in word or line.startswith("#"):
            return False
        if word in shell.magics_manager.magics["line"] or word in shell.magics_manager.magics["cell"]:
            return False
        return not isinstance(shell.user_ns.get(word, getattr(builtins, word, None)), (IPyAutocall, Macro))

    def _transforms(self):
        manager, prefilter = self._shell.input_transformer_manager, self._shell.prefilter_manager
        return (list(manager.cleanup_transforms), list(manager.line_transforms), list(manager.token_transformers),
                list(self._shell.input_transformers_post), list(prefilter.transformers), list(prefilter.checkers))


# These have no rich form, and asking for each of the ten takes longer than the rest of a small cell.
_PLAIN_TYPES = frozenset((int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset, range))


class Formatter(DisplayFormatter):
    """An object of which nothing can be shown raises; where one form of several fails, that is only mentioned."""

    def format(self, obj, include=None, exclude=None):
        is_plain = type(obj) in _PLAIN_TYPES and include is None and exclude is None and not self._is_registered(type(obj))
        outer = self.parent.format_errors
        try:
            self.parent.format_errors = []
            data, metadata = self._format_plain(obj) if is_plain else super().format(obj, include=include, exclude=exclude)
            failures = self.parent.format_errors
        finally:
            self.parent.format_errors = outer
        if failures and not data:
            raise failures[0]
        for e in failures:
            print("\n".join(errors.render(e, e.__traceback__)[2]), file=sys.stderr)
        return data, metadata

    def _format_plain(self, obj):
        plain = self.formatters["text/plain"]
        if plain.type_printers.get(type(obj)) is pretty._repr_pprint and id(obj) not in plain.singleton_printers:
            with contextlib.suppress(Exception):  # what the formatter makes of it, it shall say
                return {"text/plain": repr(obj)}, {}
        text = plain(obj)
        return ({} if text is None else {"text/plain": text}), {}

    def _is_registered(self, type):
        """Whether the program gave a form of its own to a built-in type."""
        name = (type.__module__, type.__name__)
        rich = [formatter for key, formatter in self.formatters.items() if key != "text/plain"]
        rich += self.ipython_display_formatter, self.mimebundle_formatter
        # Past the descriptors. What is not there yet has not been changed.
        return any(type in formatter._trait_values.get("type_printers", ()) or name in formatter._trait_values.get("deferred_printers", ())
                   for formatter in rich)


class ResultHook(DisplayHook):
    def quiet(self):
        # Looking for the `;` means to take the whole cell into tokens.
        history = self.shell.history_manager.input_hist_parsed
        return bool(history) and ";" in history[-1] and super().quiet()

    def write_output_prompt(self):
        pass

    def write_format_data(self, format_dict, md_dict=None):
        self.shell.report.result(format_dict)

    def log_output(self, format_dict):
        pass

    def finish_displayhook(self):
        self._is_active = False

    def cull_cache(self):
        # The original warns, and leaves a reference to each in the hidden names.
        out = self.shell.user_ns["_oh"]
        for n in sorted(out)[: OUT_MAX // 5]:
            del out[n]
            self.shell.user_ns.pop(f"_{n}", None)
            self.shell.user_ns_hidden.pop(f"_{n}", None)


class Publisher(DisplayPublisher):
    def publish(self, data, metadata=None, source=None, *, transient=None, update=False, **kwargs):
        self._validate_data(data, metadata)
        self.shell.report.display(data, (transient or {}).get("display_id", ""), update)

    def clear_output(self, wait=False):
        self.shell.report.clear_output(wait)


class History(HistoryManager):
    # `exit` does not end this shell: it has a place in `In` like any other cell.
    _exit_re = re.compile(r"(?!)")

    def store_inputs(self, line_num, source, source_raw=None):
        super().store_inputs(line_num, source, source_raw)
        self.db_input_cache.clear()  # meant for a database that is not there


class Exit(ExitAutocall):
    """Ends the cell, like sys.exit()."""

    def __call__(self, code=None):
        raise SystemExit(code)


class Settings(dict):
    """What IPython keeps in files of the user's profile, kept in memory."""

    def keys(self, pattern="*"):
        return fnmatch.filter(super().keys(), pattern)


class Shell(InteractiveShell):
    report = None
    interrupts = None
    plain_cells = None
    exit_code = None
    format_errors = None

    def execute(self, code):
        self.exit_code = None
        self.format_errors = None
        self.run_cell(code, store_history=True)

    # Start: nothing is written to the home directory.

    def init_ipython_dir(self, ipython_dir):
        # Past the observer, which would make the directory.
        self._trait_values["ipython_dir"] = os.path.expanduser("~/.ipython")

    def init_profile_dir(self, profile_dir):
        self._db = Settings()

    def init_virtualenv(self):
        pass

    def init_history(self):
        self.history_manager = History(shell=self, parent=self)
        self.configurables.append(self.history_manager)

    def init_completer(self):
        pass  # nobody presses Tab

    def init_display_formatter(self):
        self.display_formatter = Formatter(parent=self)
        self.configurables.append(self.display_formatter)

    def init_display_pub(self):
        self.display_pub = Publisher(parent=self, shell=self)
        self.configurables.append(self.display_pub)

    def init_displayhook(self):
        self.displayhook_class = ResultHook
        super().init_displayhook()

    def init_hooks(self):
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(_print_page), 99)

    def init_magics(self):
        super().init_magics()
        for name in ("bash", "sh"):
            self.register_magic_function(functools.partial(self._run_script, name), "cell", name)

    def init_user_ns(self):
        self.exiter = Exit(self)
        super().init_user_ns()
        # IPython's own open() refuses the descriptors 0, 1 and 2. Here they are the program's.
        self.user_ns.pop("open", None)

    def init_builtins(self):
        super().init_builtins()
        builtins.input = _input

    # Errors.

    def _tee(self, channel):
        # The original keeps all output of all cells in memory.
        return contextlib.nullcontext()

    def _format_exception_for_storage(self, exception, filename=None, running_compiled_code=False):
        return {}

    def showtraceback(self, exc_tuple=None, filename=None, tb_offset=None, exception_only=False, running_compiled_code=False):
        try:
            _, value, tb = self._get_exc_info(exc_tuple)
        except ValueError:
            print("No traceback available to show.", file=sys.stderr)
            return
        if self.format_errors is not None and isinstance(value, Exception):
            self.format_errors.append(value)
            return
        if isinstance(value, SystemExit):
            self._exit(value)
            return
        if isinstance(value, UsageError):
            tb = None
        self.report.error(*self._as_interrupt(value, tb))

    def showsyntaxerror(self, filename=None, running_compiled_code=False):
        self.showtraceback()

    def _as_interrupt(self, value, tb):
        if self.interrupts.has_cancelled and type(value).__name__ == "CancelledError":
            return KeyboardInterrupt(), tb
        return value, tb

    def _exit(self, value):
        code = value.code
        if code is None:
            self.exit_code = 0
        elif isinstance(code, int):
            self.exit_code = code & 0xFF
        else:
            print(code, file=sys.stderr)
            self.exit_code = 1

    # Running.

    def transform_cell(self, raw_cell):
        if self.plain_cells.has(raw_cell):
            return raw_cell if raw_cell.endswith("\n") else raw_cell + "\n"
        return super().transform_cell(raw_cell)

    def should_run_async(self, raw_cell, *, transformed_cell=None, **kwargs):
        # The original compiles the cell to find out.
        if transformed_cell is not None and "await" not in transformed_cell and "async" not in transformed_cell:
            return False
        return super().should_run_async(raw_cell, transformed_cell=transformed_cell, **kwargs)

    async def run_code(self, code_obj, result=None, *, async_=False):
        """As the original, without its advice after SystemExit."""
        try:
            if async_:
                await eval(code_obj, self.user_global_ns, self.user_ns)
            else:
                exec(code_obj, self.user_global_ns, self.user_ns)
            return False
        except bdb.BdbQuit as e:
            failure = e
        except self.custom_exceptions as e:
            failure = e
            self.CustomTB(type(e), e, e.__traceback__)
        except BaseException as e:
            failure = e
            self.showtraceback((type(e), e, e.__traceback__))
        if result is not None:
            result.error_in_exec = failure
        return True

    def system(self, cmd):
        """`!cmd`: in a process group of its own, which an interrupt of the cell reaches as a whole."""
        import subprocess

        cmd = self.var_expand(cmd, depth=1)
        shell = os.environ.get("SHELL") or "/bin/bash"
        status = self._run_command([shell if os.access(shell, os.X_OK) else "/bin/sh", "-c", cmd])
        self.user_ns["_exit_code"] = status
        if self.system_raise_on_error and status:
            raise subprocess.CalledProcessError(status, cmd)

    system_piped = system_raw = system

    def _run_script(self, name, line, cell):
        """`%%bash`. IPython's own has a thread copy the outputs; it is for those who want its options."""
        import subprocess

        if line.strip():
            from IPython.core.magics.script import ScriptMagics

            return ScriptMagics(self).shebang(f"{name} {line}", cell)
        status = self._run_command([name], cell.encode("utf-8", "surrogateescape"))
        if status:
            raise subprocess.CalledProcessError(status, name)

    def _run_command(self, command, script=None):
        """Returns the exit status. An interrupt reaches the command and all that it started."""
        import subprocess

        stdin = subprocess.DEVNULL if script is None else subprocess.PIPE
        process = None
        try:
            with self.interrupts.deferred():
                process = subprocess.Popen(command, stdin=stdin, process_group=0)
            process.communicate(script)
            imports.look_again()  # it may have been an installation
            return process.returncode
        except BaseException:
            if process is not None:
                _stop(process)
            raise

    def safe_execfile(self, fname, *where, exit_ignore=False, raise_exceptions=True, shell_futures=False):
        # A script that raises under %run is a cell that raises.
        super().safe_execfile(
            fname, *where, exit_ignore=exit_ignore, raise_exceptions=raise_exceptions, shell_futures=shell_futures
        )

    def enable_gui(self, gui=None):
        if gui not in (None, "inline", "agg"):
            raise UsageError(f"there is no display for {gui!r} in a sandbox; figures are shown inline")


def _print_page(text, start=0, screen_lines=0, pager_cmd=None):
    if isinstance(text, dict):
        text = text.get("text/plain", "")
    print(text)


def _input(prompt="", /):
    raise StdinNotImplementedError("input() is not available in a sandbox execution: nobody is there to answer")


def _stop(process):
    import subprocess

    # The shell may go at once and leave a child that was just being started and missed the signal.
    for sig, wait_sec in ((signal.SIGINT, COMMAND_GRACE_SEC), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, sig)
            process.wait(wait_sec)
