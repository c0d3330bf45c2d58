"""pip installs from an index that a test host serves, with one rule about its name; everything else is refused."""

import base64
import hashlib
import io
import unittest
import zipfile

import scene as scenes
from scene import allow

INDEX = {4: "93.184.216.50", 6: "2606:2800:220:1::50"}
OTHER = {4: "93.184.216.51", 6: "2606:2800:220:1::51"}
scene = scenes.Scene()


def wheel(name, body, requires=()):
    files = {
        f"{name}.py": body,
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + "".join(f"Requires-Dist: {r}\n" for r in requires),
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
                     for path, text in files.items())
    files[f"{name}-1.0.dist-info/RECORD"] = f"{record}{name}-1.0.dist-info/RECORD,,\n"
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return data.getvalue()


def setUpModule():
    scene.enter()
    scene.world.set_zones({"index.test": {"A": [INDEX[4]], "AAAA": [INDEX[6]]}, "other.test": {"A": [OTHER[4]], "AAAA": [OTHER[6]]}})
    wheels = {"hottest": wheel("hottest", "def answer():\n    import warmest\n    return warmest.VALUE + 1\n", ["warmest"]),
              "warmest": wheel("warmest", f"VALUE = 41\nPADDING = {'x' * 300000!r}\n")}
    pages = {}
    for name, content in wheels.items():
        file = f"{name}-1.0-py3-none-any.whl"
        pages[f"/files/{file}"] = ("application/octet-stream", content)
        pages[f"/simple/{name}/"] = ("text/html", (f'<!DOCTYPE html><a href="http://index.test/files/{file}#sha256={hashlib.sha256(content).hexdigest()}">'
                                                   f"{file}</a>").encode())
    # Its index is allowed, its file is elsewhere.
    pages["/simple/lures/"] = ("text/html", b'<!DOCTYPE html><a href="http://other.test/files/lures-1.0-py3-none-any.whl">lures-1.0-py3-none-any.whl</a>')
    scene.world.set_pages(pages)


INSTALL = """
import subprocess, sys
done = subprocess.run([sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--retries", "0", "--timeout", "20",
                       "--index-url", "{scheme}://index.test/simple", "--trusted-host", "index.test", "--target", "/home/user/more", "{package}"],
                      capture_output=True, text=True)
print(done.returncode, done.stdout, done.stderr)
"""


class Pip(unittest.TestCase):
    def test_one_rule_is_enough_and_lets_nothing_else_through(self):
        mark = scene.world.mark()
        sandbox = scene.create(allow("index.test", 80))
        out = scene.run(sandbox, INSTALL.format(scheme="http", package="hottest"), timeout=100).stdout.decode()
        self.assertRegex(out, r"^0 ")
        self.assertEqual(scene.run(sandbox, "import sys; sys.path.insert(0, '/home/user/more'); import hottest; hottest.answer()").text, "42")
        out = scene.run(sandbox, INSTALL.format(scheme="http", package="lures"), timeout=100).stdout.decode()
        self.assertRegex(out, r"^1 ")
        self.assertEqual(scene.inside(sandbox, f"[tcp({OTHER[4]!r}, 80), tcp({OTHER[6]!r}, 80), lookup('other.test'), ask('elsewhere.test')]"),
                         ["EPERM", "EPERM", "EAI_AGAIN", "REFUSED"])
        events = scene.world.events(mark.n_events)
        self.assertEqual({event["host"] for event in events if event["kind"] == "http"}, {"index.test"})
        self.assertEqual({event["name"] for event in events if event["kind"] == "dns"}, {"index.test"})
        self.assertLessEqual({(protocol, address) for protocol, address, _ in scene.world.arrived(mark)},
                             {("tcp", INDEX[4]), ("tcp", INDEX[6]), ("udp", "9.9.9.9"), ("tcp", "9.9.9.9")})
        scene.wait_log(sandbox, type="DENIED", name="other.test")

    def test_without_the_rule_it_fails_soon_and_the_log_says_why(self):
        sandbox = scene.create(allow("other.test"))
        out = scene.run(sandbox, INSTALL.format(scheme="http", package="hottest"), timeout=100).stdout.decode()
        self.assertRegex(out, r"^1 ")
        self.assertEqual(scenes.short(scene.wait_log(sandbox, type="DENIED", name="index.test"))["reason"], "RESOLVER")


if __name__ == "__main__":
    unittest.main()
