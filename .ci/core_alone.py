"""Check that the core works without its extras; `.ci/run` calls it in an environment with the core dependencies."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path


def cloudseg(*arguments: str, status: int = 0) -> dict:
    """Run the installed command and return its record."""
    done = subprocess.run(
        [Path(sys.executable).parent / "cloudseg", *arguments, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode != status:
        sys.exit(
            f"cloudseg {' '.join(arguments)}: status {done.returncode}, expected {status}\n{done.stdout}\n{done.stderr}"
        )
    return json.loads(done.stdout)


for name in ("torch", "airflow", "onnxruntime", "safetensors"):
    if importlib.util.find_spec(name) is not None:
        sys.exit(f"{name} is installed here, so this check is void")

from cloudseg.raster.synthetic import make_tiles  # noqa: E402

make_tiles(Path("tiles"), count=4, size=128)
cloudseg("db", "upgrade")
added = cloudseg("ingest", "tiles")["added"]
listed = cloudseg("scenes")["scenes"]
again = cloudseg("ingest", "tiles")
if not added or {scene["scene_id"] for scene in listed} != set(added) or again["added"] or again["known"] != len(added):
    sys.exit(f"ingest without torch: added {added}, listed {len(listed)}, again {again}")
cloudseg("snapshot", "--recipe", "smoke")
cloudseg("maintain")
if not cloudseg("doctor")["ok"]:
    sys.exit("cloudseg doctor found a problem")
refused = cloudseg(
    "model", "import", str(Path("tiles").resolve() / "images" / next(Path("tiles/images").iterdir()).name), status=2
)
if "torch" not in refused["what"]:
    sys.exit(f"the error of a step that needs torch does not name it: {refused}")
print(f"core alone: {len(added)} scenes ingested, listed, frozen; no torch, no Airflow")
