"""The Python kernel of a sandbox: where it starts.

Runs whatever code arrives in one IPython shell and reports what it does; the conversation is defined in
proto/hotcell/sandbox/v1/kernel.proto.

The files beside this one are loaded as the package `_hotcell_kernel`, and their directory leaves `sys.path`: a program may
have modules called `frames` or `shell`, and must find its own.
"""

import sys
import types

PACKAGE = "_hotcell_kernel"


def main():
    package = types.ModuleType(PACKAGE, __doc__)
    package.__path__ = [sys.path.pop(0)]
    sys.modules[PACKAGE] = package
    from _hotcell_kernel import kernel

    kernel.preload()
    kernel.after_fork()
    # As in `python3 -c`. Not before: a file of the program must not take the place of what the kernel needs.
    sys.path.insert(0, "")
    kernel.serve()


main()
