"""Commands about the model in use: its card, and the history of decisions."""

from typing import Any

import click
from rich.console import Console

from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.records import Json


def _show_champion(console: Console, record: Json) -> None:
    """Print the card: figures in words, then what it learned from."""
    iou, lower, upper = (record[name] for name in ("held_out_iou", "iou_lower", "iou_upper"))
    interval = f", 90 % interval {lower:.3f} to {upper:.3f}" if lower is not None else ", no interval: one place only"
    verdict = f"{record['verdict']} {record['verdict_id']}" if record["verdict"] else "none: a decision without one"
    line = record["line"]
    card = {
        "champion": f"v{record['version']}  {record['weights_id']}",
        "since": record["since"],
        "how": f"{record['how']} by {record['by']}: {record['why']}",
        "verdict": verdict,
        "held-out IoU": f"{iou:.3f}{interval}" if iou is not None else "not evaluated",
        "masks": f"{record['masks']} made, {record['waiting']} waiting",
        "threshold": record["threshold"],
        "line": " · ".join(
            [
                f"run {line['run_id']}" if line["run_id"] else "imported",
                *([f"recipe {record['recipe']}"] if record["recipe"] else []),
                *([f"snapshot {line['snapshot_id']}"] if line["snapshot_id"] else []),
                *([f"warm start from {line['parent_id']}"] if line["parent_id"] else []),
            ]
        ),
    }
    show_record(console, card)


@click.command()
@reports(_show_champion)
def champion() -> Any:
    """Show the champion: since when, by whom and why, held-out IoU with its interval, masks made and waiting."""
    from cloudseg import stages

    return stages.champion()


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Number of rows, newest first."
)
@reports(
    show_rows("history", ["decided_at", "what", "version", "replaces_version", "actor", "verdict"], below=["reason"])
)
def history(limit: int) -> Any:
    """List decisions with who, why and verdict: promoted, approved, rolled back, declined, against a model by the gate.

    Switches of readers are listed too.
    """
    from cloudseg import stages

    return {"history": stages.history(limit=limit)}
