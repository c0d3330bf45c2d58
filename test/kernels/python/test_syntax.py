"""The Python kernel in its template: IPython's syntax and settings also where a cell looks like plain Python, one fact a test."""

import unittest

from cases import OwnKernelTest


class Syntax(OwnKernelTest):
    def value_of(self, code):
        return self.run_ok(code).result.text

    def test_prompts_and_indents_are_taken_off(self):
        for code in (">>> 6 * 7", "In [3]: 6 * 7", "    6 * 7", ">>> x = 6\n... \n>>> x * 7", "    x = 6\n    x * 7"):
            with self.subTest(code=code):
                self.assertEqual(self.value_of(code), "42")

    def test_magics_without_percent_sign(self):
        self.assertEqual(self.value_of("pwd"), "'/home/user'")
        self.assertEqual(self.run_ok("cd /tmp").stdout, "/tmp\n")
        self.run_ok("pwd = 'mine'")
        self.assertEqual(self.value_of("pwd"), "'mine'")

    def test_no_magics_without_percent_sign_when_switched_off(self):
        self.run_ok("%automagic off")
        self.run_bad("pwd", "NameError")

    def test_magics_help_and_commands(self):
        self.assertEqual(self.value_of("%pwd"), "'/home/user'")
        self.assertEqual(self.run_ok("!echo shell").stdout, "shell\n")
        self.assertIn("Docstring", self.run_ok("len?").stdout)
        self.assertEqual(self.value_of("words = !echo a; echo b\nwords"), "['a', 'b']")
        self.assertEqual(self.run_ok("%%bash\necho cell").stdout, "cell\n")
        self.assertEqual(self.value_of("7 % 4"), "3")

    def test_exit_without_parentheses(self):
        run = self.run_code("exit")
        self.assertEqual(run.done.exit_code, 0)
        self.assertTrue(run.done.HasField("exit_code"))

    def test_calls_without_parentheses_when_switched_on(self):
        self.run_bad("abs -7", "TypeError")
        self.run_ok("%autocall 2")
        self.assertEqual(self.value_of("abs 7"), "7")
        self.assertEqual(self.value_of(",list abc"), "['a', 'b', 'c']")

    def test_macros(self):
        self.run_ok("y = 20")
        self.run_ok("get_ipython().define_macro('again', 'y += 1\\n')")
        self.run_ok("again")
        self.assertEqual(self.value_of("y"), "21")

    def test_awaits(self):
        self.run_ok("import asyncio")
        self.assertEqual(self.value_of("await asyncio.sleep(0, 'slept')"), "'slept'")
        self.assertEqual(self.value_of("async def numbers():\n    yield 1\n    yield 2\n[n async for n in numbers()]"), "[1, 2]")
        self.run_ok("sleep = asyncio.sleep")
        self.assertEqual(self.value_of("await sleep(0, 'slept again')"), "'slept again'")
        self.assertEqual(self.value_of("awaited = 3\nawaited"), "3")

    def test_transforms_of_the_program(self):
        self.run_ok("shell = get_ipython()\nshell.input_transformers_post.append(lambda lines: [l.replace('ONE', '1') for l in lines])")
        self.assertEqual(self.value_of("ONE + ONE"), "2")
        self.run_ok("shell.input_transformers_post.clear()")
        self.run_bad("ONE + ONE", "NameError")
        self.run_ok("shell.input_transformers_cleanup.append(lambda lines: [l.replace('TWO', '2') for l in lines])")
        self.assertEqual(self.value_of("x = TWO\nx + TWO"), "4")

    def test_transforms_of_the_syntax_tree(self):
        self.run_ok("import ast\nclass Double(ast.NodeTransformer):\n"
                    "    def visit_Constant(self, node):\n        return ast.copy_location(ast.Constant(node.value * 2), node)\n"
                    "get_ipython().ast_transformers.append(Double())")
        self.assertEqual(self.value_of("21"), "42")

    def test_plain_forms_of_the_program(self):
        self.run_ok("plain = get_ipython().display_formatter.formatters['text/plain']\n"
                    "plain.for_type(int, lambda value, p, cycle: p.text(f'<{value}>'));")
        self.assertEqual(self.value_of("7"), "<7>")
        self.run_ok("plain.type_printers.pop(int);")
        self.run_ok("import IPython.lib.pretty\nplain.for_type(int, IPython.lib.pretty._repr_pprint);")
        self.assertEqual(self.value_of("7"), "7")
        self.run_ok("plain.singleton_printers[id(7)] = lambda value, p, cycle: p.text('seven')")
        self.assertEqual(self.value_of("7"), "seven")
        self.run_ok("%precision 2")
        self.assertEqual(self.value_of("1 / 3"), "0.33")

    def test_a_number_that_has_no_text(self):
        self.run_bad("10 ** 5000", "ValueError")

    def test_names_of_cells_differ(self):
        self.run_ok("def f(): 1 / 0")
        self.run_ok("def g(): f()")
        lines = "\n".join(self.run_bad("g()", "ZeroDivisionError").error.traceback)
        self.assertIn("def f(): 1 / 0", lines)
        self.assertIn("def g(): f()", lines)


if __name__ == "__main__":
    unittest.main()
