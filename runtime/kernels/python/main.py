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
    # The working directory takes the place of the script's directory, as it does in `python3 -c`.
    package.__path__ = [sys.path[0]]
    sys.path[0] = ""
    sys.modules[PACKAGE] = package
    from _hotcell_kernel import kernel

    kernel.preload()
    kernel.after_fork()
    kernel.serve()


main()
