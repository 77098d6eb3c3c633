"""What a machine has, before a run is bet on it: each finding with its remedy.

    for finding in of_the_host(Path("runs")):
        print(finding)
    for finding in of_the_devices():  # which of several processes wait for each other
        print(finding)

Nothing is changed but a file that is written and removed again. Of several processes each looks at its own
machine, and all at their devices together.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo import cluster, joining, throughput
from zoo.data import cache
from zoo.errors import first_line
from zoo.run import versions

GOOD, WARNING, FAULT = "ok", "warning", "fault"
LITTLE_DISK, LITTLE_MEMORY = 10 << 30, 4 << 30
PROBE_BYTES = 1 << 26  # written to disk, and gathered from every device
# {what is there where an accelerator is: the extra that makes JAX use it}
ACCELERATORS = {"/dev/nvidiactl": "cuda12", "/dev/accel0": "tpu", "/dev/vfio/0": "tpu"}
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


@dataclass(frozen=True)
class Finding:
    """Something about a machine, and what to do where it is a fault or may become one."""

    kind: str
    subject: str
    text: str
    remedy: str = ""

    def __str__(self):
        return f"{self.kind:8} {self.subject:9} {self.text}" + (f"; {self.remedy}" if self.remedy else "")


def of_the_host(folder: Path) -> Iterator[Finding]:
    """What can be seen before a device starts; `folder` is where runs are to be kept."""
    return looked(libraries, memory, disk(folder), disk(cache.folder()))


def of_the_devices() -> Iterator[Finding]:
    """The processes, and all their devices together."""
    return looked(processes, devices)


def looked(*looks: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What each finds; a fault where it cannot even look."""
    for look in looks:
        try:
            yield from look()
        except Exception as error:  # a machine may be broken in any way
            name = getattr(look, "__name__", "machine")
            yield Finding(FAULT, name, f"{type(error).__name__}: {first_line(error)}", "mend this first")


def libraries() -> Iterator[Finding]:
    """Their versions, and those that do not belong together."""
    found = versions()
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    jax, jaxlib = (found[name].split("+")[0] for name in ("jax", "jaxlib"))
    if jax != jaxlib:
        yield Finding(FAULT, "libraries", text, f"jax and jaxlib belong together: pip install jaxlib=={jax}")
    else:
        yield Finding(GOOD, "libraries", text)
    for name, version in sorted(plugins().items()):
        if version.split("+")[0] != jaxlib:
            remedy = f"it is of another jaxlib ({jaxlib}): pip install {name}=={jaxlib}"
            yield Finding(FAULT, "libraries", f"{name} {version}", remedy)


def plugins() -> dict[str, str]:
    """JAX's own plugins for GPUs that are installed, which have jaxlib's version."""
    names = ("jax-cuda12-plugin", "jax-cuda13-plugin", "jax-cuda12-pjrt", "jax-cuda13-pjrt")
    found = {}
    for name in names:
        if importlib.util.find_spec(name.replace("-pjrt", "-plugin").replace("-", "_")):
            found[name] = importlib.metadata.version(name)
    return found


def processes() -> Iterator[Finding]:
    """Whether this is one of several, and what may keep them from each other."""
    import jax

    launcher = joining.launched()
    variables = (*joining.COUNTS.values(), joining.STEP, *joining.HOSTS, joining.SLICES)
    known = "".join(f"; {name}={os.environ[name]}" for name in variables if name in os.environ)
    if cluster.is_several():
        text = f"{jax.process_index()} of {jax.process_count()}"
        yield Finding(GOOD, "processes", text + f", started by {launcher}" * bool(launcher) + known)
    elif launcher and launcher != joining.TPU:  # of which JAX alone knows whether there are others
        text = f"{launcher} has started several, and this is alone{known}"
        yield Finding(FAULT, "processes", text, "look at the error above, or start train.py alone")
    else:
        yield Finding(GOOD, "processes", f"one, as no launcher says that there are several{known}")
    proxies = [name for name in PROXIES if os.environ.get(name)]
    if proxies and launcher:
        remedy = "processes may hang in looking for each other: unset them for the run"
        yield Finding(WARNING, "processes", f"{', '.join(proxies)} set", remedy)


def memory() -> Iterator[Finding]:
    """The host's; its devices' is said with them."""
    page, cores = os.sysconf("SC_PAGE_SIZE"), os.cpu_count()
    total, free = (os.sysconf(name) * page for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    text = f"{gib(total)} on the host, {gib(free)} unused, {cores} cores"
    if total < LITTLE_MEMORY:
        yield Finding(WARNING, "memory", text, "small models only; a compiler alone takes a GiB")
    else:
        yield Finding(GOOD, "memory", text)


def disk(folder: Path) -> Callable[[], Iterator[Finding]]:
    """A look at the disk of a folder, which need not be there."""

    def disk() -> Iterator[Finding]:
        place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        try:
            seconds = written_in(place)
        except OSError as error:
            remedy = "make room, mend its permissions or choose another place"
            yield Finding(FAULT, "disk", f"{folder}: cannot be written ({error.strerror})", remedy)
            return
        free, rate = shutil.disk_usage(place).free, PROBE_BYTES / seconds / 1e6
        text = f"{folder}: {gib(free)} free, {rate:,.0f} MB/s written"
        remedy = "a checkpoint has three times the parameters, and two are kept (--keep)"
        yield Finding(WARNING, "disk", text, remedy) if free < LITTLE_DISK else Finding(GOOD, "disk", text)

    return disk


def written_in(folder: Path) -> float:
    """Seconds to write PROBE_BYTES to a disk. Raises OSError where they cannot be, or come back otherwise."""
    content = np.random.default_rng(0).bytes(PROBE_BYTES)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".zoo-doctor-") as file:
        start = time.perf_counter()
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        seconds = time.perf_counter() - start
        if Path(file.name).read_bytes() != content:
            raise OSError(0, "what was written did not come back")
    return seconds


def devices() -> Iterator[Finding]:
    """What JAX computes on, how fast, and whether the devices add up what they hold."""
    import jax

    found = jax.devices()
    first, count = found[0], len(found)
    limits = {(each.memory_stats() or {}).get("bytes_limit") for each in jax.local_devices()} - {None}
    _, peak = throughput.peak_flops(first.device_kind, first.platform, num_devices=count)
    text = f"{count} x {first.device_kind} ({first.platform}); {peak}"
    text += f"; {gib(min(limits))} each" if limits else ""
    unused = {extra for path, extra in ACCELERATORS.items() if os.path.exists(path)}
    if first.platform == "cpu" and unused:
        extra = min(unused)
        remedy = f'JAX does not use it: pip install -e ".[{extra}]", and JAX_PLATFORMS must not say cpu'
        yield Finding(FAULT, "devices", f"{text}, beside an accelerator", remedy)
    else:
        yield Finding(GOOD, "devices", text)
    yield layout(found)
    if count > 1:
        yield collective(found)


def layout(found) -> Finding:
    """The mesh that a run has by default, and what its sizes are to respect."""
    import jax

    from zoo.mesh import MeshConfig, describe, mesh_sizes, slices_of

    slices, own = slices_of(found), jax.local_device_count()
    sizes = mesh_sizes(MeshConfig(slice=slices), len(found))
    text = f"{describe(sizes)} unless --mesh says otherwise; sizes multiply to {len(found)}"
    if own < len(found):
        text += f", the last ones up to {own} stay within a process"
    return Finding(GOOD, "mesh", text)


def collective(found) -> Finding:
    """One sum over all devices, of numbers whose sum is known, and how fast it comes."""
    import jax

    from zoo.mesh import MeshConfig, make_mesh, slices_of
    from zoo.sharding import replicated, rows_sharding

    count, size = len(found), PROBE_BYTES // 4
    mesh = make_mesh(MeshConfig(slice=slices_of(found)), found)
    x = jax.make_array_from_callback(
        (count, size),
        rows_sharding(mesh),
        lambda index: np.full((1, size), index[0].start or 0, np.float32),
    )
    total = jax.jit(lambda x: x.sum(0), out_shardings=replicated(mesh))
    total(x).block_until_ready()
    start = time.perf_counter()
    sums = total(x).block_until_ready()
    seconds = time.perf_counter() - start
    want = count * (count - 1) / 2
    wrong = int((np.asarray(sums.addressable_shards[0].data) != want).sum())
    moved = 2 * (count - 1) / count * PROBE_BYTES  # by each device of a ring
    text = f"a sum of {PROBE_BYTES >> 20} MiB over {count} devices in {1000 * seconds:,.0f} ms"
    if wrong:
        remedy = "a device or a link is broken: find it by leaving devices out, and have it changed"
        return Finding(FAULT, "links", f"{text}: {wrong:,} numbers of it are wrong", remedy)
    return Finding(GOOD, "links", f"{text}, {moved / seconds / 1e9:.2f} GB/s in and out of each")


def gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"
