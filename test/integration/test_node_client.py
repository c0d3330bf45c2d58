"""Starts the daemons for the client in JavaScript and passes its TAP on."""

import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "lib"))

import daemons  # noqa: E402  (found only now)


def main():
    test = pathlib.Path(__file__).resolve().parents[1] / "clients/node/client.test.mjs"
    with daemons.Daemons() as running:
        result = subprocess.run(["node", test], env={**os.environ, "HOTCELL_TARGET": running.target},
                                stdin=subprocess.DEVNULL, check=False, timeout=900)
        if result.returncode != 0:
            print("".join(f"# {line}\n" for line in running.log().splitlines()[-40:]))
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
