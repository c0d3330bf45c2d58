"""The Python kernel in its template: what a cell shows: outputs, results, figures and errors, one fact a test."""

import os
import unittest

from cases import KernelTest, setUpModule, tearDownModule  # noqa: F401


class Outputs(KernelTest):
    def test_two_streams(self):
        run = self.run_ok("import sys\nprint('out')\nprint('err', file=sys.stderr)")
        self.assertEqual((run.stdout, run.stderr), ("out\n", "err\n"))

    def test_order_of_the_streams_is_exact(self):
        run = self.run_ok("import sys\nfor i in range(200):\n    sys.stdout.write(f'o{i} ')\n    sys.stderr.write(f'e{i} ')")
        self.assertEqual(run.kinds, ["stdout", "stderr"] * 200)
        values = [event.value for event in run.events if event.kind in ("stdout", "stderr")]
        self.assertEqual(values, [f"{stream}{i} ".encode() for i in range(200) for stream in "oe"])

    def test_order_through_the_buffers(self):
        run = self.run_ok("import sys\nprint('a', end='')\nsys.stderr.buffer.write(b'b')\nsys.stdout.buffer.write(b'c')\nprint('d')\nNone")
        self.assertEqual([(e.kind, e.value) for e in run.events[1:-1]], [("stdout", b"a"), ("stderr", b"b"), ("stdout", b"cd\n")])

    def test_order_with_displays(self):
        run = self.run_ok("import sys\nfor i in range(40):\n    print(i, end='')\n    display(i)\n    print(i, file=sys.stderr, end='')\n'end'")
        self.assertEqual(run.kinds, ["stdout", "display", "stderr"] * 40 + ["result"])

    def test_one_stream_takes_no_barrier(self):
        before = self.peer.n_frames
        self.run_ok("for i in range(1000): print(i)")
        self.assertLessEqual(self.peer.n_frames - before, 2)

    def test_combined(self):
        code = "import os\nfor i in range(200): os.write(1 + i % 2, b'%d ' % i)\nimport sys\nprint('a', end=' ')\nprint('b', file=sys.stderr, end=' ')\nprint('c')"
        run = self.run_ok(code, combine=True)
        self.assertEqual(run.kinds, ["stdout"])
        self.assertEqual(run.stdout, " ".join(str(i) for i in range(200)) + " a b c\n")
        again = self.run_ok("import sys\nprint('apart', file=sys.stderr)")
        self.assertEqual(again.kinds, ["stderr"])

    def test_combined_leaves_no_descriptor(self):
        before = self.value_of("import os\nsorted(os.listdir('/proc/self/fd'))")
        self.run_ok("1", combine=True)
        self.assertEqual(self.value_of("sorted(os.listdir('/proc/self/fd'))"), before)

    def test_partial_line_comes_before_the_end(self):
        run = self.run_ok("print('no newline', end='')")
        self.assertEqual([e.kind for e in run.events], ["started", "stdout", "done"])

    def test_print_is_one_write_per_line(self):
        code = "import os, subprocess\np = os.getpid()\nbefore = open(f'/proc/{p}/io').read()\nfor i in range(100): print('x', i)\nafter = open(f'/proc/{p}/io').read()\n"
        code += "get = lambda t: int([l for l in t.splitlines() if l.startswith('syscw')][0].split()[1])\nget(after) - get(before)"
        self.assertEqual(self.value_of(code), "100")

    def test_subprocess_and_c_output_in_order(self):
        code = "import subprocess, os, ctypes\nprint('1')\nsubprocess.run(['echo', '2'])\nos.system('echo 3')\nos.write(1, b'4\\n')\n"
        code += "libc = ctypes.CDLL(None)\nlibc.puts(b'5')\nlibc.fflush(None)\nprint('6')"
        self.assertEqual(self.run_ok(code).stdout, "1\n2\n3\n4\n5\n6\n")

    def test_order_with_children(self):
        code = "import subprocess, os, sys\nfor i in range(20):\n    print('a', end='', file=sys.stderr)\n    os.system('printf b')\n"
        code += "    print('c', end='', file=sys.stderr)\n    subprocess.run(['printf', 'd'])\n    print('e', end='', file=sys.stderr)\n"
        code += "    pid = os.fork()\n    if pid == 0:\n        os.write(1, b'f')\n        os._exit(0)\n    os.waitpid(pid, 0)"
        run = self.run_ok("import warnings\nwith warnings.catch_warnings(action='ignore'):\n  " + code.replace("\n", "\n  "))
        values = [bytes(event.value) for event in run.events if event.kind in ("stdout", "stderr")]
        self.assertEqual(values, [b"a", b"b", b"c", b"d", b"e", b"f"] * 20)

    def test_partial_line_precedes_a_child(self):
        self.assertEqual(self.run_ok("print('first ', end='')\nsubprocess.run(['echo', 'second']);").stdout, "first second\n")

    def test_shell_command_keeps_its_streams(self):
        run = self.run_ok("!echo out; echo err >&2; exit 3")
        self.assertEqual((run.stdout, run.stderr), ("out\n", "err\n"))
        self.assertEqual(self.value_of("_exit_code"), "3")

    def test_shell_command_with_a_variable(self):
        self.assertEqual(self.run_ok("word = 'hi there'\n!echo {word}").stdout, "hi there\n")
        self.assertEqual(self.value_of("v = !printf 'a\\nb'\nlist(v)"), "['a', 'b']")

    def test_bash_cell(self):
        run = self.run_ok("%%bash\nfor i in 1 2; do echo $i; done\necho e >&2")
        self.assertEqual((run.stdout, run.stderr), ("1\n2\n", "e\n"))
        self.assertIn("exit status 3", self.run_bad("%%bash\nexit 3", "CalledProcessError").error.value)
        self.run_ok("%%bash --out captured\necho yes")
        self.assertEqual(self.value_of("captured"), "'yes\\n'")

    def test_invalid_utf8_passes(self):
        run = self.run_ok("import os, sys\nos.write(1, b'\\xff\\xfe')\nsys.stdout.buffer.write(b'\\xc3')\nprint('after')")
        self.assertEqual(b"".join(run.all("stdout")), b"\xff\xfe\xc3after\n")

    def test_lone_surrogate_can_be_printed(self):
        self.assertEqual(self.run_ok("print('\\ud800')").stdout, "\\ud800\n")

    def test_a_lot(self):
        run = self.run_ok("line = 'x' * 99\nfor i in range(100): print('\\n'.join([line] * 10000))")
        self.assertEqual(len(b"".join(run.all("stdout"))), 100 * 10000 * 100)

    def test_raw_writes_of_64_kib(self):
        run = self.run_ok("import os\nblock = bytes(65536)\nfor i in range(64): os.write(1, block)")
        self.assertEqual(len(run.all("stdout")[0]), 64 * 65536)

    def test_closed_stream_is_back_in_the_next_cell(self):
        self.run_ok("import sys\nsys.stdout.close()")
        self.assertEqual(self.run_ok("print('back')").stdout, "back\n")

    def test_replaced_stream_stays(self):
        self.run_ok("import sys, io\nsys.stdout = mine = io.StringIO()\nprint('kept')")
        run = self.run_ok("print('too')\nsys.stdout = sys.__stdout__\nprint(mine.getvalue(), end='')")
        self.assertEqual(run.stdout, "kept\ntoo\n")

    def test_redirected_stream(self):
        self.assertEqual(self.value_of("import io, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as s: print('in')\ns.getvalue()"), "'in\\n'")

    def test_stream_looks_like_one(self):
        code = "import sys\n(sys.stdout.fileno(), sys.stderr.fileno(), sys.stdout.isatty(), sys.stdout.encoding, sys.stdout.name, sys.stdin.read())"
        self.assertEqual(self.value_of(code), "(1, 2, False, 'utf-8', '<stdout>', '')")

    def test_thread_prints_after_the_cell(self):
        self.run_ok("import threading\ngo = threading.Event()\nt = threading.Thread(target=lambda: (go.wait(), print('late')))\nt.start()")
        self.run_ok("go.set()\nt.join()")
        # Within the next cell it was its output; after a cell it comes on its own.
        self.run_ok("import time\nt = threading.Timer(0.05, lambda: print('later'))\nt.start()")
        self.peer.wait_for("stdout", b"later")

    def test_display_after_the_cell_becomes_text(self):
        self.run_ok("import threading\nt = threading.Timer(0.05, lambda: display('late display'))\nt.start()")
        self.peer.wait_for("stdout", b"late display")

    def test_threads_on_both_streams(self):
        code = "import threading, sys\ndef talk(stream, word):\n    for i in range(200): stream.write(word)\n"
        code += "ts = [threading.Thread(target=talk, args=a) for a in ((sys.stdout, 'o'), (sys.stderr, 'e'))]\n[t.start() for t in ts]\n[t.join() for t in ts]\nNone"
        run = self.run_ok(code)
        self.assertEqual((run.stdout, run.stderr), ("o" * 200, "e" * 200))

    def test_no_descriptor_for_a_mark_left_over(self):
        self.assertEqual(self.run_ok("import logging\nlogging.warning('w')").stderr, "WARNING:root:w\n")


class RichResults(KernelTest):
    def test_data_frame(self):
        run = self.run_ok("import pandas as pd\npd.DataFrame({'a': [1, None], 't': pd.to_datetime(['2024-01-02', None])})")
        self.assertEqual(sorted(run.result.types), ["text/html", "text/plain"])
        self.assertIn("2024-01-02", run.result.text)
        self.assertIn(b"<table", run.result["text/html"])

    def test_plain_containers_have_no_json(self):
        self.assertEqual(self.run_ok("{'a': [1]}").result.types, ["text/plain"])

    def test_json(self):
        run = self.run_ok("from IPython.display import JSON\nimport numpy as np\nJSON({'ü': [1, float('nan')], 'n': np.arange(2)})")
        self.assertEqual(run.result["application/json"], '{"ü":[1,null],"n":[0,1]}'.encode())

    def test_json_that_contains_itself(self):
        run = self.run_bad("a = []\na.append(a)\ndisplay({'application/json': a}, raw=True)", "ValueError")
        self.assertIn("contains itself", run.error.value)
        run = self.run_ok("display({'application/json': a, 'text/plain': 'rest'}, raw=True)")
        self.assertEqual(run.one("display").types, ["text/plain"])
        self.assertIn("contains itself", run.stderr)

    def test_every_display_type(self):
        code = "from IPython.display import *\ndisplay(HTML('<b>'), Latex('$x$'), Markdown('*'), SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'), Javascript('1'))"
        types = [[t for t in shown.types if t != "text/plain"] for shown in self.run_ok(code).all("display")]
        self.assertEqual(types, [["text/html"], ["text/latex"], ["text/markdown"], ["image/svg+xml"], ["application/javascript"]])

    def test_image_is_raw_bytes(self):
        run = self.run_ok("from IPython.display import Image\nImage(data=b'\\x89PNG\\r\\n\\x1a\\nrest')")
        self.assertEqual(run.result["image/png"], b"\x89PNG\r\n\x1a\nrest")

    def test_pillow(self):
        run = self.run_ok("import PIL.Image\nPIL.Image.new('RGB', (3, 2))")
        self.assertTrue(run.result["image/png"].startswith(b"\x89PNG"))

    def test_bytes_and_base64_in_a_raw_bundle(self):
        run = self.run_ok("display({'image/jpeg': b'\\xff\\xd8', 'application/pdf': 'JVBERi0=\\n', 'application/vnd.x.v1+json': {'k': 1}, 'x/y': 'text'}, raw=True)")
        shown = run.one("display")
        self.assertEqual(shown["image/jpeg"], b"\xff\xd8")
        self.assertEqual(shown["application/pdf"], b"%PDF-")
        self.assertEqual(shown["application/vnd.x.v1+json"], b'{"k":1}')
        self.assertEqual(shown["x/y"], b"text")

    def test_odd_types_are_left_out(self):
        run = self.run_ok("display({'Text/Plain; charset=utf-8': 'ok', 'no type': 'x', 'a/' + 'b' * 200: 'x', 5: 'x'}, raw=True)")
        self.assertEqual(run.one("display").types, ["text/plain"])

    def test_at_most_32_parts(self):
        run = self.run_ok("display({f'a/b{i}': 'x' for i in range(50)}, raw=True)")
        self.assertEqual(len(run.one("display").types), 32)

    def test_large_parts_follow_in_pieces(self):
        run = self.run_ok("display({'text/plain': 'p' * 200000, 'text/html': 'h' * 1000000, 'image/png': bytes(300000)}, raw=True)\nprint('after')")
        shown = run.one("display")
        self.assertEqual((len(shown["text/plain"]), len(shown["text/html"]), shown["image/png"]), (200000, 1000000, bytes(300000)))
        self.assertEqual(run.kinds, ["display", "stdout"])

    def test_display_of_32_mib(self):
        self.assertEqual(len(self.run_ok("display({'a/b': bytes(32 << 20)}, raw=True)").one("display")["a/b"]), 32 << 20)

    def test_update_of_a_display(self):
        first, second = self.run_ok("h = display('x', display_id='d1')\nh.update('y')").all("display")
        self.assertEqual((first.display_id, first.update, first.text), ("d1", False, "'x'"))
        self.assertEqual((second.display_id, second.update, second.text), ("d1", True, "'y'"))

    def test_too_long_a_display_id(self):
        for name in ("'x' * 129", "'\\ud800' * 40", "'a\\0'"):
            self.run_bad(f"display(1, display_id={name})", "ValueError")
        self.assertEqual(self.run_ok("display(1, display_id=7)").one("display").display_id, "7")

    def test_clear_output(self):
        run = self.run_ok("from IPython.display import clear_output\nprint('a')\nclear_output(wait=True)\nprint('b')\nclear_output()")
        self.assertEqual(run.kinds, ["stdout", "clear_output", "stdout", "clear_output"])
        self.assertEqual([value.wait for value in run.all("clear_output")], [True, False])

    def test_own_representations(self):
        code = "class R:\n    def _repr_html_(self): return '<i>'\n    def _repr_mimebundle_(self, **k): return {'x/y': 'z'}\n    def __repr__(self): return 'R!'\nR()"
        result = self.run_ok(code).result
        self.assertEqual((result.text, result["text/html"], result["x/y"]), ("R!", b"<i>", b"z"))

    def test_form_registered_for_a_built_in_type(self):
        self.run_ok("html = get_ipython().display_formatter.formatters['text/html']\nhtml.for_type(int, lambda i: f'<b>{i}</b>');")
        self.assertEqual(self.run_ok("5").result["text/html"], b"<b>5</b>")
        self.run_ok("html.pop(int);")
        self.assertEqual(self.run_ok("5").result.types, ["text/plain"])

    def test_built_in_type_that_displays_itself(self):
        self.run_ok("own = get_ipython().display_formatter.ipython_display_formatter\nown.for_type(int, lambda i: print('int', i));")
        self.assertEqual(self.run_ok("5").kinds, ["stdout"])
        self.run_ok("own.pop(int);")
        bundle = "bundle = get_ipython().display_formatter.mimebundle_formatter\nbundle.for_type(int, lambda i, **k: {'x/y': 'z'});"
        self.run_ok(bundle)
        self.assertEqual(sorted(self.run_ok("5").result.types), ["text/plain", "x/y"])
        self.run_ok("bundle.pop(int);")
        self.assertEqual(self.run_ok("5").result.types, ["text/plain"])

    def test_marks_of_ipython_at_the_start_of_a_line(self):
        self.run_ok("def show(*a): print(a)")
        for line, said in ((",show a b", "('a', 'b')"), (";show a b", "('a b',)"), ("/show 1 2", "(1, 2)"), ("!echo x", "x")):
            for indent in ("", "    "):
                self.assertEqual(self.run_ok(f"pass\nif True:\n    pass\n{indent}{line}").stdout, said + "\n")

    def test_token_transform_of_the_program(self):
        self.run_ok("from IPython.core.inputtransformer2 import TokenTransformBase\n"
                    "class Add(TokenTransformBase):\n"
                    "    @classmethod\n"
                    "    def find(cls, lines):\n"
                    "        return next((cls(t.start) for line in lines for t in line if t.string == 'ADD'), None)\n"
                    "    def transform(self, lines):\n"
                    "        return [line.replace('ADD', '+') for line in lines]\n"
                    "transforms = get_ipython().input_transformer_manager.token_transformers\n"
                    "transforms.append(Add)")
        self.assertEqual(self.run_ok("1 ADD 1").result.text, "2")
        self.run_ok("transforms.pop();")
        self.run_bad("1 ADD 1", "SyntaxError")

    def test_object_that_displays_itself(self):
        run = self.run_ok("class D:\n    def _ipython_display_(self): print('myself')\nD()")
        self.assertEqual(run.kinds, ["stdout"])

    def test_repr_that_raises_is_an_error(self):
        for last in ("Bad()", "display(Bad())"):
            run = self.run_bad(f"class Bad:\n    def __repr__(self): raise ValueError('bad repr')\n{last}", "ValueError")
            self.assertEqual(run.all("result") + run.all("display"), [])

    def test_one_form_that_raises_is_mentioned(self):
        run = self.run_ok("class Half:\n    def _repr_html_(self): raise ValueError('bad html')\nHalf()")
        self.assertEqual(run.result.types, ["text/plain"])
        self.assertIn("bad html", run.stderr)


class Figures(KernelTest):
    def figures(self, code):
        return [shown for shown in self.run_ok("import matplotlib.pyplot as plt\n" + code).all("display")]

    def test_shown_at_the_end_of_the_cell(self):
        run = self.run_ok("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('before')")
        self.assertEqual(run.kinds, ["stdout", "display"])
        self.assertTrue(run.one("display")["image/png"].startswith(b"\x89PNG\r\n"))

    def test_shown_by_show(self):
        run = self.run_ok("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()\nprint('after')")
        self.assertEqual(run.kinds, ["display", "stdout"])

    def test_two_figures(self):
        self.assertEqual(len(self.figures("plt.figure(); plt.plot([1])\nplt.figure(); plt.plot([2]);")), 2)

    def test_closed_after_the_cell(self):
        self.figures("plt.plot([1]);")
        self.assertEqual(self.value_of("plt.get_fignums()"), "[]")

    def test_nothing_is_shown_of_a_saved_and_closed_one(self):
        self.assertEqual(self.figures("plt.plot([1]); plt.savefig('/tmp/f.png'); plt.close()"), [])

    def test_figure_as_last_expression(self):
        run = self.run_ok("import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nfig")
        self.assertIn("image/png", run.result.types)

    def test_pandas_plot(self):
        self.assertEqual(len(self.figures("import pandas as pd\npd.Series([1, 2, 3]).plot();")), 1)

    def test_figure_before_an_error(self):
        run = self.run_bad("import matplotlib.pyplot as plt\nplt.plot([1])\n1/0", "ZeroDivisionError")
        self.assertEqual(run.kinds, ["error", "display"])


class Errors(KernelTest):
    def test_name_value_and_line(self):
        run = self.run_bad("a = 1\nundefined_name", "NameError")
        count = run.all("started")[0].execution_count
        self.assertEqual(run.error.value, "name 'undefined_name' is not defined")
        self.assertEqual(
            list(run.error.traceback),
            [
                "Traceback (most recent call last):",
                f"  Cell In[{count}], line 2",
                "    undefined_name",
                "NameError: name 'undefined_name' is not defined",
            ],
        )

    def test_function_of_an_earlier_cell(self):
        first = self.run_ok("def fails():\n    raise KeyError('k')")
        run = self.run_bad("fails()", "KeyError")
        self.assertEqual(run.error.value, "'k'")
        text = "\n".join(run.error.traceback)
        self.assertIn(f"Cell In[{first.all('started')[0].execution_count}], line 2, in fails\n    raise KeyError('k')", text)

    def test_output_before_it_is_kept_and_code_after_it_does_not_run(self):
        run = self.run_bad("print('before')\n1/0\nprint('after')", "ZeroDivisionError")
        self.assertEqual(run.kinds, ["stdout", "error"])
        self.assertEqual(run.stdout, "before\n")

    def test_state_survives(self):
        self.run_bad("survivor = 7\n1/0", "ZeroDivisionError")
        self.assertEqual(self.value_of("survivor"), "7")

    def test_syntax_error(self):
        run = self.run_bad("x = 1\ny = = 2", "SyntaxError")
        text = "\n".join(run.error.traceback)
        self.assertRegex(text, r"^  Cell In\[\d+\], line 2\n    y = = 2\n        \^\nSyntaxError: invalid syntax$")
        self.assertRegex(run.error.value, r"^invalid syntax \(Cell In\[\d+\], line 2\)$")
        self.run_bad("if 1:\nx = 1", "IndentationError")
        self.run_bad("x = 'open", "SyntaxError")
        self.run_bad("return 1", "SyntaxError")
        self.run_bad("x = '\\N{nothing}'", "SyntaxError")
        self.run_bad("\0", "SyntaxError")

    def test_line_numbers_are_those_of_what_was_sent(self):
        for source, line in (("\n\n  \n1/0", 4), ("\n    x = 1\n    x/0", 3), ("x = 1\n\nx/0", 3)):
            run = self.run_bad(source, "ZeroDivisionError")
            self.assertRegex("\n".join(run.error.traceback), rf"Cell In\[\d+\], line {line}\n")
        run = self.run_bad("\n\n x = (", "SyntaxError")
        self.assertIn("'(' was never closed (Cell In", run.error.value)
        self.assertIn("line 3", run.error.value)

    def test_chain(self):
        run = self.run_bad("try:\n    1/0\nexcept Exception as e:\n    raise KeyError('k') from e", "KeyError")
        text = "\n".join(run.error.traceback)
        self.assertLess(text.index("ZeroDivisionError: "), text.index("direct cause"))
        self.assertNotIn("IPython", text)

    def test_group(self):
        run = self.run_bad("raise ExceptionGroup('several', [ValueError(1), TypeError('t')])", "ExceptionGroup")
        text = "\n".join(run.error.traceback)
        self.assertIn("| ValueError: 1", text)
        self.assertRegex(text, r"\|   Cell In\[\d+\], line 1")

    def test_notes(self):
        run = self.run_bad("e = ValueError('v')\ne.add_note('a note')\nraise e", "ValueError")
        self.assertIn("a note", run.error.traceback)

    def test_recursion(self):
        run = self.run_bad("def f(): f()\nf()", "RecursionError")
        self.assertLess(len(run.error.traceback), 30)
        run = self.run_bad("def a(): b()\ndef b(): a()\na()", "RecursionError")
        self.assertLess(len(run.error.traceback), 410)
        self.assertIn("lines cut", "\n".join(run.error.traceback))

    def test_str_that_raises(self):
        run = self.run_bad("class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E", "E")
        self.assertIn("__str__ raised RuntimeError", run.error.value)

    def test_limits(self):
        run = self.run_code("raise type('N' * 1000, (Exception,), {})('ü' * 100000)")
        self.assertLessEqual(len(run.error.name.encode()), 256)
        self.assertIn("cut, 1000 bytes in all", run.error.name)
        self.assertLessEqual(len(run.error.value.encode()), 16 << 10)
        self.assertIn("cut, 200000 bytes in all", run.error.value)
        self.assertLessEqual(sum(len(line.encode()) for line in run.error.traceback), 256 << 10)
        run = self.run_code("raise ValueError('line\\n' * 1000000)")
        self.assertLessEqual(sum(len(line.encode()) for line in run.error.traceback), 256 << 10)
        self.assertIn("lines cut", "\n".join(run.error.traceback))

    def test_nul_in_the_text(self):
        run = self.run_bad("raise ValueError('a\\0b')", "ValueError")
        self.assertEqual(run.error.value, "a\\x00b")
        self.assertNotIn("\0", "".join(run.error.traceback))

    def test_no_colours(self):
        self.assertNotIn("\x1b", "\n".join(self.run_bad("import json\njson.loads('{')", "JSONDecodeError").error.traceback))

    def test_usage_of_a_magic(self):
        self.assertIn("not found", self.run_bad("%nosuchmagic", "UsageError").error.value)

    def test_timed_cell_that_raises(self):
        self.run_bad("%%time\n1/0", "ZeroDivisionError")

    def test_script_that_raises(self):
        self.run_ok("open('/tmp/script.py', 'w').write('raise LookupError(5)');")
        self.run_bad("%run /tmp/script.py", "LookupError")

    def test_error_in_a_thread_is_printed(self):
        run = self.run_ok("import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start()\nt.join()")
        self.assertIn("ZeroDivisionError", run.stderr)

    def test_odd_exceptions(self):
        self.run_bad("raise BaseException('base')", "BaseException")
        self.run_bad("raise GeneratorExit", "GeneratorExit")
        self.run_bad("raise KeyboardInterrupt", "KeyboardInterrupt")
        self.run_bad("raise 5", "TypeError")

    def test_memory_error(self):
        code = "import resource\nold = resource.getrlimit(resource.RLIMIT_AS)\nresource.setrlimit(resource.RLIMIT_AS, (2 << 30, old[1]))\nx = bytearray(4 << 30)"
        self.run_bad(code, "MemoryError")
        self.run_ok("resource.setrlimit(resource.RLIMIT_AS, old)")


if __name__ == "__main__":
    unittest.main()
