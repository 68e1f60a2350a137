"""A fork server whose decoders turn evil on scenes of certain names, as after an exploit; what they do is real.

Variables WITHOUT_SECCOMP and WITHOUT_NAMESPACES take away a layer, so that the test sees the one below it.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cloudseg.ingest import child, fork_server, sandbox, supervisor
from cloudseg.ingest.job import SceneJob, ScenePixels, SceneReading
from cloudseg.ingest.pixel_stream import PixelSender

NOISE = b"II*\0" + np.random.default_rng(0).bytes(5_000)
READING = SceneReading(radiometry="evil", acquired_at=None, tags={})


def _head(**more: object) -> ScenePixels:
    values = {"rows": 48, "cols": 48, "crs": "EPSG:32631", "transform": [10, 0, 500_000, 0, -10, 5_600_000]}
    values |= {"height": 48, "width": 48, "bands": ["red", "green", "blue"], "tags": {"RADIOMETRY": "evil"}}
    return ScenePixels.model_validate(values | more)


def _write(path: Path, data: bytes) -> int:
    try:
        path.write_bytes(data)
    except OSError:
        return 0
    return 1


def noise(job: SceneJob, pixels: PixelSender) -> SceneReading:
    """Write noise behind the signature of a TIFF wherever an output may be expected, and claim success."""
    outputs = [out / "canonical.tif" for out in Path(job.folder).parent.glob("writer-*/write/*")]
    for path in (Path(job.out), *outputs):
        _write(path, NOISE)
    pixels._send(NOISE)
    return READING


def too_few(job: SceneJob, pixels: PixelSender) -> SceneReading:
    pixels.begin(_head())
    pixels.send(np.full((3, 48, 20), 5, np.uint16))
    pixels.commit()
    return READING


def too_many(job: SceneJob, pixels: PixelSender) -> SceneReading:
    pixels.begin(_head())
    pixels.send(np.full((3, 48, 50), 5, np.uint16))
    pixels.commit()
    return READING


def giant(job: SceneJob, pixels: PixelSender) -> SceneReading:
    pixels.begin(_head(height=100_000, width=100_000))
    pixels.send(np.full((3, 48, 48), 5, np.uint16))
    pixels.commit()
    return READING


def lies(job: SceneJob, pixels: PixelSender) -> SceneReading:
    """Claim whatever the catalog would take; half of the pixels are no data."""
    dn = np.full((3, 48, 48), 5_000, np.uint16)
    dn[1, :24] = 0  # in one band only
    pixels.begin(_head())
    pixels.send(dn)
    pixels.commit()
    written = '{"crs":null,"transform":[1,0,0,0,-1,0],"height":1,"width":1,"resolution_m":null,"bands":["nir"],'
    written += '"footprint_wkb_hex":null,"bounds":null,"center":null,"valid_fraction":1.0}'
    reading = '{"radiometry":"evil","acquired_at":null,"tags":{}}'
    os.write(_answers(), f'{{"scene":{reading},"written_scene":{written}}}\n'.encode())
    os._exit(0)


def _answers() -> int:
    """Return the descriptor of the answers: the one pipe that nothing is sent through yet."""
    return _ANSWERS[0]


def siblings(job: SceneJob, pixels: PixelSender) -> SceneReading:
    """Overwrite the copies and results of every other job, and the own."""
    folder = Path(job.folder)
    tampered = sum(_write(path, NOISE) for path in [*folder.parent.rglob("*"), *folder.rglob("*")])
    reading = _ORIGINAL(job, lambda _: None, pixels)
    return reading.model_copy(update={"tags": {"tampered": str(tampered)}})


def survivor(job: SceneJob, pixels: PixelSender) -> SceneReading:
    """Leave a process behind that has a session of its own and ignores what it can."""
    tags = {"forked": "no"}
    try:
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                time.sleep(120)
            os._exit(0)
        tags = {"forked": "yes"}
    except OSError:
        pass
    return _ORIGINAL(job, lambda _: None, pixels).model_copy(update={"tags": tags})


def sleeper(job: SceneJob, pixels: PixelSender) -> SceneReading:
    time.sleep(120)
    return READING


ACTS = {act.__name__: act for act in (noise, too_few, too_many, giant, lies, siblings, survivor, sleeper)}
_ORIGINAL = child.decode_scene
_ANSWERS: list[int] = []


def _decode_scene(job: SceneJob, on_size: Callable[[float], None], pixels: PixelSender) -> SceneReading:
    act = ACTS.get(job.name)
    return act(job, pixels) if act else _ORIGINAL(job, on_size, pixels)


def _decode(task: child.Task, answers: int, pixels: int) -> None:
    _ANSWERS[:] = [answers]
    _ORIGINAL_CHILD(task, answers, pixels)


_ORIGINAL_CHILD = child.decode

if __name__ == "__main__":
    child.decode_scene, child.decode = _decode_scene, _decode
    if "WITHOUT_SECCOMP" in sys.argv:
        sandbox.deny_system_calls = lambda: True
    if "WITHOUT_NAMESPACES" in sys.argv:
        supervisor.separate_processes = lambda: None
    fork_server.main()
