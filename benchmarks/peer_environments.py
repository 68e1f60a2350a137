"""Virtual environments of the peers, each its own; `python -m benchmarks.peer_environments` (`make peers`) makes them.

A peer is never installed beside this project: its pins and ours need not agree. All its packages are pinned in
`benchmarks/requirements/<peer>.txt`. The environments are in `build/peers/`, 0.9 GB together; an environment is
complete when it has a copy of its requirements, which is written last: an interrupted installation is begun again.
"""

import shutil
import subprocess
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloudseg.errors import StateError

_REPO: Final = Path(__file__).parents[1]
HOME: Final = _REPO / "build" / "peers"


@dataclass(frozen=True)
class Peer:
    """A cloud mask of others whose weights are in its package."""

    name: str
    """As on the package index."""
    version: str
    license: str
    fed: str
    """What it gets from a scene with red, green, blue and perhaps near infrared."""
    scored: bool
    """Whether its IoU on such a scene says anything."""

    @property
    def side(self) -> str:
        """Name of its side in `benchmarks.peer_sides`."""
        return self.name.replace("-", "_")

    @property
    def requirements(self) -> Path:
        """File with all its packages, pinned."""
        return Path(__file__).with_name("requirements") / f"{self.name}.txt"


PEERS: Final = (
    Peer(
        "ukis-csmask",
        "1.0.0",
        "Apache-2.0",
        "blue, green, red, nir as reflectance, its L1C model; cloud is its class 1; red in place of a missing nir",
        scored=True,
    ),
    Peer(
        "s2cloudless",
        "1.7.3",
        "CC-BY-SA-4.0",
        "10 bands, of which the scene has at most 3: blue also as B01, red also as B05, nir also as B8A, B09, B11 and "
        "B12, and 0.001 as B10 (cirrus); speed and memory do not depend on it, so its IoU is left out",
        scored=False,
    ),
)


def python_of(peer: Peer) -> str:
    """Return the interpreter of a peer's environment.

    Raises:
        StateError: the environment is missing, incomplete or of other requirements.
    """
    folder = HOME / peer.name
    installed = folder / "requirements.txt"
    if not installed.is_file() or installed.read_bytes() != peer.requirements.read_bytes():
        raise StateError(
            "the environment of a peer is missing",
            subject=f"{peer.name} {peer.version}",
            found="another version" if installed.is_file() else "not installed",
            expected=str(folder),
            next_step="Create it: make peers (needs a package index; 260 MB of downloads).",
        )
    return str(folder / "bin" / "python")


def create(peer: Peer) -> None:
    """Create the environment of a peer, unless it is complete.

    Raises:
        CalledProcessError: pip cannot install it; the reason is on stderr.
    """
    folder = HOME / peer.name
    try:
        python_of(peer)
    except StateError:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        return
    venv.create(folder, with_pip=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-compile", "--requirement", str(peer.requirements)], check=True)
    shutil.copyfile(peer.requirements, folder / "requirements.txt")


def main() -> None:
    """Create all environments."""
    for peer in PEERS:
        print(f"{peer.name} {peer.version} ({peer.license})", flush=True)
        create(peer)


if __name__ == "__main__":
    main()
