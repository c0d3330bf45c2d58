"""Where modules come from, and what happens when a program loads some of them."""

import importlib.util
import site
import sys


def when_loaded(name, callback):
    """Calls @callback(module) once: now, if it is loaded, or right after it has been, at no cost before."""
    if name in sys.modules:
        callback(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Finder(name, callback))


def expect_user_packages():
    """Has Python look where `pip install` will put packages, although nothing is there yet."""
    directory = site.getusersitepackages()
    if not site.ENABLE_USER_SITE or directory in sys.path:
        return
    at = next((i for i, path in enumerate(sys.path) if path.endswith(("dist-packages", "site-packages"))), len(sys.path))
    sys.path.insert(at, directory)


def look_again():
    """Forgets which directories were not there when Python last looked."""
    for path in sys.path:
        if sys.path_importer_cache.get(path, path) is None:
            del sys.path_importer_cache[path]


class _Finder:
    def __init__(self, name, callback):
        self._name = name
        self._callback = callback

    def find_spec(self, name, path=None, target=None):
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        exec_module = spec.loader.exec_module

        def exec_module_and_call(module):
            exec_module(module)
            self._callback(module)

        spec.loader.exec_module = exec_module_and_call
        return spec
