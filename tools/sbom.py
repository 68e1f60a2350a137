"""Write the bill of materials of this environment: `build/sbom.cdx.json` (CycloneDX 1.5) and `build/licenses.txt`.

    python -m tools.sbom [FOLDER]

Of every installed package that the constraints pin, and torch: version, checksum of its wheel, license as its own
metadata state it. The same environment gives the same bytes: no time, and a serial number that follows from the
content.
"""

import importlib.metadata
import json
import sys
import uuid
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, Final

from cloudseg import __version__
from tools.checkout import CHECKOUT
from tools.lock import CONSTRAINTS, LOCK, normalized, read_pins

_UNSTATED: Final = "not stated"
_NAMESPACE: Final = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
"""The name space for URLs (RFC 9562, 6.6)."""


def license_of(package: Distribution) -> str:
    """Return the license in the package's metadata: an SPDX expression, else its classifiers, else the first line."""
    stated = package.metadata
    if expressions := stated.get_all("License-Expression"):
        return str(expressions[0])
    classifiers = [str(c) for c in stated.get_all("Classifier") or [] if str(c).startswith("License ::")]
    named = [c.rpartition(" :: ")[2] for c in classifiers if c != "License :: OSI Approved"]
    if named:
        return " AND ".join(named)
    text = "\n".join(map(str, stated.get_all("License") or [])).strip().splitlines()
    return text[0][:100] if text and text[0].strip() else _UNSTATED


def installed() -> dict[str, Distribution]:
    """Return the pinned packages of this environment, and torch, by normalized name."""
    pinned = {*read_pins(CONSTRAINTS), "torch"}
    found = {normalized(package.metadata["Name"]): package for package in importlib.metadata.distributions()}
    return {name: found[name] for name in sorted(pinned & found.keys())}


def bill_of_materials(
    packages: dict[str, Distribution], checksums: dict[str, tuple[str, str | None]]
) -> dict[str, Any]:
    """Return the document (cyclonedx.org/docs/1.5/json).

    Args:
        packages: by normalized name.
        checksums: version and SHA-256 of the wheels, by normalized name; only those of the installed version are named.
    """
    components = [_component(name, package, checksums.get(name)) for name, package in packages.items()]
    content = json.dumps(components, sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "cloudseg", "version": __version__}},
        "components": components,
    }


def _component(name: str, package: Distribution, locked: tuple[str, str | None] | None) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{package.version}"
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": package.version,
        "purl": purl,
        "licenses": [{"license": {"name": license_of(package)}}],
    }
    if locked is not None and locked[0] == package.version and locked[1] is not None:
        component["hashes"] = [{"alg": "SHA-256", "content": locked[1]}]
    return component


def license_list(packages: dict[str, Distribution]) -> str:
    """Return one line for each package: name, version, license."""
    return "".join(f"{name}\t{package.version}\t{license_of(package)}\n" for name, package in packages.items())


def main(arguments: list[str]) -> int:
    """Write both files into a folder and return the exit status."""
    folder = Path(arguments[0]) if arguments else CHECKOUT / "build"
    folder.mkdir(parents=True, exist_ok=True)
    packages = installed()
    document = bill_of_materials(packages, read_pins(LOCK))
    (folder / "sbom.cdx.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (folder / "licenses.txt").write_text(license_list(packages), encoding="utf-8")
    sys.stdout.write(f"{len(packages)} packages: {folder / 'sbom.cdx.json'}, {folder / 'licenses.txt'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
