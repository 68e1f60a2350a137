"""Two gloo processes under torchrun train one net together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from cloudseg.catalog import Catalog, model_rows, training_rows
from cloudseg.model.weights import load_weights
from cloudseg.storage import LocalStore
from cloudseg.train import train_run
from tests.tiny_world import CPU, recipe

SCRIPT = """
import hashlib, json, os, sys
from pathlib import Path
from cloudseg.catalog import Catalog
from cloudseg.storage import LocalStore
from cloudseg.train import run as run_module
from cloudseg.train.finish import pack_result
from tests.tiny_world import CPU, recipe

folder, snapshot_id = Path(sys.argv[1]), sys.argv[2]
packed = []
def keep(*arguments):
    result = pack_result(*arguments)
    packed.append(hashlib.sha256(result[0]).hexdigest())
    return result
run_module.pack_result = keep
record = run_module.train_run(
    LocalStore(folder / "store"), Catalog(f"sqlite:///{folder / 'catalog.db'}"), snapshot_id=snapshot_id,
    recipe=recipe(budget={"steps": 6, "epoch_steps": 3}, ema_decay=0.9), run_id="run-two", device=CPU)
(folder / f"rank{os.environ['RANK']}.json").write_text(json.dumps({"record": record.as_json(), "sha256": packed[0]}))
"""


def test_two_processes_end_with_one_net(store: LocalStore, catalog: Catalog, snapshot_id: str, tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    repo = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
        str(tmp_path),
        snapshot_id,
    ]
    done = subprocess.run(
        command,
        cwd=repo,
        env={**os.environ, "PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["sha256"] == second["sha256"], "both processes hold the same parameters"
    assert first["record"]["weights_id"] == second["record"]["weights_id"]
    with catalog.read() as db:
        weights = model_rows.get_weights(db, first["record"]["weights_id"])
        epochs = training_rows.list_epochs(db, "run-two")
    assert weights.sha256 == first["sha256"]
    assert [epoch.step for epoch in epochs] == [3, 6]
    assert all(0 < epoch.metrics["train_loss"] < 5 for epoch in epochs)
    together = load_weights(store.get(weights.key))
    assert together.meta.run_id == "run-two"
    # One process with the same chips in each step: its BatchNorm saw the same distribution.
    alone = train_run(
        store,
        catalog,
        snapshot_id=snapshot_id,
        recipe=recipe(budget={"steps": 6, "epoch_steps": 3, "batch_size": 4}, ema_decay=0.9),
        run_id="run-one",
        device=CPU,
    )
    with catalog.read() as db:
        single = load_weights(store.get(model_rows.get_weights(db, alone.weights_id).key))
    for name in ("enc1.conv.1.running_mean", "enc1.conv.1.running_var"):
        found, expected = together.net.state_dict()[name], single.net.state_dict()[name]
        torch.testing.assert_close(found, expected, rtol=0.2, atol=0.02, msg=f"{name} is the mean of both processes")
