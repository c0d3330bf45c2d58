"""The order of a build, from the inputs to a published root."""

import os
import platform
import shutil
import tempfile

from . import child, sources, spec, tree
from .errors import TemplateError
from .recipe import MACHINES, Recipe, explain_pip, host_environment, platform_options
from .store import remove_tree

# The root, its packages on the way, and what the file system keeps for itself.
_NEEDED_BYTES = 2 << 30
_PIP = ["/usr/bin/python3", "-m", "pip"]
_TOOLS = {
    "mmdebstrap": "apt-get install mmdebstrap",
    "unshare": "apt-get install util-linux",
    "setpriv": "apt-get install util-linux",
    "apt-config": "apt-get install apt",
}


class Build:
    """One build of @template into @store."""

    def __init__(self, template, kernel_directory, store, progress, check_interrupt, mirror=None):
        self.template = template
        self.kernel_directory = kernel_directory
        self.store = store
        self.progress = progress
        self.mirror = mirror
        self.machine = platform.machine()
        self._check_interrupt = check_interrupt
        self.pins = spec.read_lock(os.path.join(template.directory, template.python["lock"]))
        self.base_key = spec.base_key(template, self.pins, self.machine)
        self.input_key = spec.input_key(self.base_key, template, kernel_directory)

    def run(self, refresh=False):
        """Builds, unless the same inputs were built before. Returns (digest, whether it was built)."""
        if os.geteuid() != 0:
            raise TemplateError("NO_ROOT", "a template is built as root: its files have several owners", "use sudo")
        self.store.create()
        self.store.lock(self._tick, lambda: self.progress.note("waiting for another build"))
        try:
            known = None if refresh else self.store.lookup("by-input", self.input_key)
            if known:
                self.store.point("by-name", self.template.name, known)
                return known, False
            return self._build(refresh), True
        finally:
            self.store.unlock()

    def _build(self, refresh):
        self._preflight()
        build = self.store.temporary()
        try:
            return self._build_in(build, refresh)
        finally:
            remove_tree(build)

    def _build_in(self, build, refresh):
        scratch = os.path.join(build, "scratch")
        os.mkdir(scratch)
        recipe = Recipe(self.template, os.path.join(build, "root"), scratch, self._tick)
        base = None if refresh else self.store.lookup("by-base", self.base_key)
        if base:
            self._copy_base(base, recipe)
            exact_version = self.store.manifest(base)["kernels"][0]["language_version"]
        else:
            exact_version = self._make_base(recipe)
        self.progress.begin("installing the kernel")
        recipe.install_kernel(self.kernel_directory, spec.kernel_files(self.kernel_directory))
        recipe.describe(self._description(exact_version))
        self.progress.begin("taking the digest")
        found = tree.read(recipe.root, self.template.source_date_epoch, self._tick)
        manifest = self._manifest(found, exact_version, recipe)
        remove_tree(scratch)
        self.progress.begin("publishing")
        self._publish(build, manifest, found)
        self.progress.end()
        return found.digest

    def _make_base(self, recipe):
        lines = self._source_lines()
        self.progress.begin(f"downloading {len(self.pins)} wheels")
        recipe.download_wheels(self.machine, _PIP)
        self.progress.begin(f"installing Debian {self.template.debian['suite']}")
        recipe.bootstrap(lines, self.machine)
        self.progress.begin("installing the wheels")
        recipe.install_wheels()
        self.progress.begin("trimming")
        recipe.configure()
        recipe.trim()
        self.progress.begin("byte-compiling")
        recipe.compile()
        self.progress.begin("warming caches")
        exact_version = recipe.warm()
        recipe.clean()
        return exact_version

    def _copy_base(self, base, recipe):
        """An earlier root but for the kernel's files: as links, since nobody ever writes into a root."""
        self.progress.begin("taking over the packages of an earlier build")
        found = tree.read(self.store.root(base), tick=self._tick)
        if found.digest != base:
            raise TemplateError("DAMAGED", f"{base} was changed after it was built", "build with --refresh")
        command = ["cp", "--archive", "--link", "--no-target-directory", self.store.root(base), recipe.root]
        child.run(command, env=os.environ, log=os.path.join(recipe.scratch, "cp.log"), tick=self._tick)

    def _publish(self, build, manifest, found):
        self.store.publish(build, manifest, found.serialization)
        self.store.point("by-input", self.input_key, found.digest)
        # The newest, not the first: the older ones may be removed.
        self.store.point("by-base", self.base_key, found.digest)
        self.store.point("by-name", self.template.name, found.digest)

    def _description(self, exact_version):
        template = self.template
        return {
            "environment": template.environment,
            "gid": template.user["gid"],
            "home": template.user["home"],
            "kernels": [
                {"argv": template.kernel["argv"], "language": template.language, "language_version": exact_version}
            ],
            "limits": template.limits,
            "name": template.name,
            "uid": template.user["uid"],
            "user": template.user["name"],
        }

    def _manifest(self, found, exact_version, recipe):
        """Nothing that two builds of the same root could disagree about."""
        return {
            **self._description(exact_version),
            "digest": found.digest,
            "format": spec.FORMAT,
            "machine": self.machine,
            "n_files": found.n_files,
            "packages": recipe.packages(),
            "size_bytes": found.size_bytes,
            "suite": self.template.debian["suite"],
            "wheels": [{"name": name, "version": self.pins[name].version} for name in sorted(self.pins)],
        }

    def _source_lines(self):
        suite = self.template.debian["suite"]
        if self.mirror:
            return sources.for_mirror(suite, self.mirror)
        return sources.for_suite(suite, sources.read_host(), sources.host_release())

    def _preflight(self):
        if self.machine not in MACHINES:
            raise TemplateError("BAD_MACHINE", f"templates are not built for {self.machine}")
        for tool, advice in _TOOLS.items():
            if not shutil.which(tool):
                raise TemplateError("NO_TOOL", f"{tool} is not installed", advice)
        keyring = self.template.debian["keyring"]
        if not os.path.exists(keyring):
            raise TemplateError("NO_TOOL", f"there is no {keyring}", "apt-get install debian-archive-keyring")
        if not os.path.isdir(self.kernel_directory):
            raise TemplateError("NO_KERNEL", f"there is no {self.kernel_directory}", "see --kernel-dir")
        self._check_namespaces()
        free = self.store.free_bytes()
        if free < _NEEDED_BYTES:
            raise TemplateError(
                "NO_SPACE",
                f"{self.store.path} has {free >> 20} MiB free, a build needs {_NEEDED_BYTES >> 20}",
                "make room, or name another place: --store DIR",
            )

    def _check_namespaces(self):
        """The tools run in mount and pid namespaces of their own: root in a container may not make any."""
        with tempfile.NamedTemporaryFile() as log:
            try:
                child.run(["true"], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, log=log.name, tick=self._tick)
            except child.Failed as error:
                raise TemplateError("NO_NAMESPACES", error.log.strip(), "build on the host, or with CAP_SYS_ADMIN") from error

    def _tick(self):
        self._check_interrupt()
        self.progress.tick()


def make_lock(template, scratch, progress, check_interrupt):
    """The text of a new lock: what pip resolves now, with the hashes of each machine's wheels."""

    def tick():
        check_interrupt()
        progress.tick()

    pins = {}
    wanted = list(template.python["requirements"])
    for machine in sorted(MACHINES, reverse=True):
        progress.begin(f"resolving for {machine}")
        directory = os.path.join(scratch, machine)
        command = _PIP + ["download", "--quiet", "--dest", directory]
        command += platform_options(machine, template.language_version)
        # The first machine resolves; the others take the same versions.
        command += ["--no-deps"] + [f"{pin.name}=={pin.version}" for pin in pins.values()] if pins else wanted
        try:
            child.run(command, env=host_environment(), log=os.path.join(scratch, "log"), tick=tick)
        except child.Failed as error:
            raise explain_pip(error) from error
        for file_name in sorted(os.listdir(directory)):
            name, version = file_name.split("-")[:2]
            name = spec.canonical_name(name)
            digest = tree.hash_file(os.path.join(directory, file_name))
            known = pins.get(name, spec.Pin(name, version, ()))
            pins[name] = spec.Pin(name, version, tuple(sorted({*known.hashes, digest})))
    progress.end()
    return spec.format_lock(pins)


