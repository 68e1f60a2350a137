"""The command line: one record on stdout, the log on stderr, documented exit codes, no traceback."""

import inspect
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from cloudseg import errors, stages
from cloudseg.cli import main, root
from cloudseg.cli.output import reports, show_record, show_rows
from cloudseg.ingest import decoder_session
from cloudseg.ingest.probe import RESTRICTIONS

Run = Callable[..., tuple[int, str, str]]
MOVED = {"demo", "stack"}


@pytest.mark.parametrize("name", ["scenes", "models", "runs", "masks", "quarantine"])
def test_an_empty_catalog_returns_an_empty_list(run: Run, name: str):
    code, out, _ = run(name, "--json")
    assert (code, json.loads(out)) == (0, {name: []})
    assert run(name)[1].strip() == ("no file is in quarantine" if name == "quarantine" else f"no {name}")


def test_doctor_finds_no_problem_with_the_embedded_default(run: Run):
    for _ in range(2):
        code, out, _ = run("doctor", "--json")
        assert (code, json.loads(out)["ok"]) == (0, True)
        assert [check["name"] for check in json.loads(out)["checks"]] == [
            "settings",
            "catalog",
            "store",
            "integrity",
            "recipes",
            "decoder",
            "device",
        ]
        assert run("db", "upgrade")[0] == 0


def test_doctor_says_what_the_sandbox_denies(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(decoder_session, "_probe", lambda *_: [name for name in RESTRICTIONS if name != "files"])
    code, out, _ = run("doctor", "--json")
    found = {check["name"]: check for check in json.loads(out)["checks"]}["decoder"]
    detail = found["detail"]
    assert (code, found["ok"], found["warning"]) == (0, True, True)
    assert "in force: network, sockets" in detail
    assert "missing: files (needs Landlock (Linux 5.13" in detail
    monkeypatch.setenv("CLOUDSEG_REQUIRE_SANDBOX", "1")
    code, out, _ = run("doctor")
    assert code == 1
    assert "FAIL  decoder" in out
    assert "no restriction of files" in out


def test_doctor_reports_problems(run: Run, runtime_env: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CLOUDSEG_CATALOG_URL", f"sqlite:///{tmp_path / 'server.db'}")
    code, out, _ = run("doctor")
    assert code == 1
    assert "FAIL  catalog" in out
    assert "cloudseg db upgrade" in out
    monkeypatch.setenv("CLOUDSEG_STORE_URL", "gopher://hole")
    code, out, _ = run("doctor", "--json")
    assert code == 1
    assert "gopher" in json.loads(out)["checks"][0]["detail"]


def test_db_upgrade_dry_run_writes_nothing(run: Run):
    code, out, _ = run("db", "upgrade", "--dry-run", "--json")
    assert (code, json.loads(out)["before"]) == (0, None)
    assert json.loads(run("db", "upgrade", "--dry-run", "--json")[1])["before"] is None
    first = json.loads(run("db", "upgrade", "--json")[1])
    assert first["after"] == json.loads(run("db", "upgrade", "--json")[1])["before"]


def test_db_roles_dry_run_prints_readable_sql(run: Run):
    code, out, _ = run("db", "roles", "--dry-run")
    assert code == 0
    assert "GRANT SELECT ON gis.scenes, gis.masks TO gis_reader;" in out
    assert run("db", "roles")[0] == errors.StateError.exit_code, "SQLite has no roles"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["lineage", "mk-0"], 2, ["mk-0", "cloudseg masks"]),
        (["evaluate", "w-0"], 2, ["w-0"]),
        (["promote", "w-0"], 2, ["w-0"]),
        (["train", "sn-0", "--recipe", "smoke", "--dry-run"], 2, ["sn-0"]),
        (["train", "sn-0", "--recipe", "nowhere"], 2, ["nowhere", "nightly"]),
        (["predict"], 2, ["neither", "--new"]),
        (["predict", "--new"], 2, ["champion", "cloudseg retrain"]),
        (["rollback", "--reason", "test", "--dry-run"], 4, ["champion"]),
        (["maintain", "--as-of", "2026-01-01"], 2, ["zone"]),
        (["maintain", "--as-of", "yesterday"], 2, ["ISO 8601"]),
        (["maintain", "--as-of", "0001-01-01T00:00:00Z"], 2, ["nothing was stored then"]),
        (["maintain", "--orphan-hours", "1e300"], 2, ["not an age"]),
        (["maintain", "--checkpoint-days", "inf"], 2, ["not an age"]),
        (["maintain", "--evaluation-days", "nan"], 2, ["not an age"]),
        (["ingest", "/nowhere/at/all"], 2, ["no such folder"]),
        (["ingest", "a\0b"], 2, ["no such folder"]),
        (["ingest", os.fsdecode(b"/nowhere/\xff")], 2, [r"/nowhere/\xff"]),
        (["ingest", "gopher://hole/x"], 2, ["unsupported URL scheme", "store://"]),
        (["ingest", "store://../../etc"], 2, ["not a valid prefix of the store"]),
        (["ingest", "store://UPPER"], 2, ["not a valid prefix of the store"]),
        (["ingest", ".", "--layout", "nonsense"], 2, ["no such layout", "multiband"]),
        (["ingest", ".", "--bands", "red,purple"], 2, ["purple", "rededge071"]),
        (["snapshot"], 3, ["no labeled scene"]),
        (["retrain", "--recipe", "smoke", "--minutes", "nan", "--dry-run"], 2, ["finite number"]),
        (["snapshot", "--recipe", "../../etc/passwd"], 2, ["no such recipe"]),
        (["masks", "--weights", "w-0"], 2, ["w-0", "cloudseg models"]),
    ],
)
def test_user_errors_print_one_message_and_set_the_exit_code(
    run: Run, arguments: list[str], code: int, words: list[str]
):
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert "Traceback" not in err
    assert [word for word in words if word not in err] == []
    found, out, _ = run(*arguments, "--json")
    record = json.loads(out)
    assert found == code
    assert record["error"] in vars(errors)


@pytest.mark.parametrize("name", sorted(MOVED))
def test_a_command_that_moved_to_the_checkout_names_its_make_target(run: Run, name: str):
    code, out, err = run(name, "--keep", "--home", "x")
    assert (code, out) == (2, "")
    assert err.strip() == f"error: cloudseg {name}: now `make {name}`, in a checkout of the project"
    assert f"\n  {name} " not in run("--help")[1]


def test_a_removed_setting_is_ignored_with_one_message(runtime_env: Path):
    done = subprocess.run(
        [sys.executable, "-m", "cloudseg", "scenes", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CLOUDSEG_UI_URL": "http://127.0.0.1:8080"},
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, {"scenes": []})
    assert [line for line in done.stderr.splitlines() if "CLOUDSEG_UI_URL" in line] == [
        "CLOUDSEG_UI_URL is ignored: this setting no longer exists"
    ]


def test_unknown_settings_are_named(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLOUDSEG_HOEM", "/tmp")  # noqa: S108
    code, _, err = run("scenes")
    assert code == 2
    assert "CLOUDSEG_HOEM" in err


@pytest.mark.parametrize("other", ["--no-apply", "--ask", "--decline", "--automatic"])
def test_a_forced_promotion_is_combined_with_no_other_decision(run: Run, other: str):
    code, _, err = run("promote", "w-0", "--force", "--reason", "test", other)
    assert (code, "--force cannot be combined" in err) == (2, True)


def test_usage_errors_have_the_exit_code_of_input_errors(run: Run):
    assert run("scenes", "--limit", "0")[0] == 2
    assert run("nonsense")[0] == 2
    assert run("--help")[0] == 0


@pytest.mark.parametrize(
    ("name", "value", "arguments", "code"),
    [
        ("CATALOG_URL", "nonsense", ["scenes"], 2),
        ("CATALOG_URL", "oracle://x", ["scenes"], 2),
        ("CATALOG_URL", "sqlite:////proc/nowhere/x.db", ["scenes"], 6),
        ("STORE_URL", "s3://No_Bucket", ["scenes"], 2),
        ("STORE_URL", "s3://key:secret@bucket", ["scenes"], 2),
        ("STORE_URL", "/proc/nowhere", ["ingest", "."], 6),
        ("HOME", "/proc/nowhere", ["scenes"], 6),
        ("HOME", "/proc/nowhere", ["db", "upgrade"], 6),
        ("INBOX", "/proc/nowhere", ["ingest"], 2),
        ("THREADS", "many", ["scenes"], 2),
        ("LOG_LEVEL", "loud", ["doctor"], 2),
        ("DEVICE", "tpu", ["scenes"], 2),
        ("DECODE_TIMEOUT_S", "0", ["ingest"], 2),
    ],
)
def test_a_wrong_setting_is_one_message(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, arguments: list[str], code: int
):
    monkeypatch.setenv(f"CLOUDSEG_{name}", value)
    found, out, err = run(*arguments)
    assert (found, out) == (code, "")
    assert err.strip().splitlines()[-1].startswith("error: ")


def test_unwritable_stdout_is_an_error_and_a_closed_pipe_is_not(runtime_env: Path):
    command = f"{sys.executable} -m cloudseg"
    ends = {
        f"{command} doctor --json > /dev/full": (1, "No space left"),
        f"{command} scenes >&-": (1, "it is closed"),
        f"set -o pipefail; {command} doctor --json | true": (0, ""),
    }
    for line, (code, words) in ends.items():
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "CLOUDSEG_LOG_LEVEL": "ERROR"},
        )
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert words in done.stderr


def test_characters_outside_the_terminals_encoding_are_escaped(runtime_env: Path):
    done = subprocess.run(
        [sys.executable, "-m", "cloudseg", "ingest", "/nowhere/ünï"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 2
    assert rb"/nowhere/\xfcn\xef" in done.stderr  # in the log
    assert b"Traceback" not in done.stderr


def test_ctrl_c_ends_with_130_and_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch):
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(root.commands["doctor"], "callback", interrupt)
    code, _, err = run("doctor")
    assert code == 130
    assert "Traceback" not in err


def test_main_exits_with_the_exit_code(runtime_env: Path):
    with pytest.raises(SystemExit) as caught:
        main(["lineage", "mk-0"])
    assert caught.value.code == 2


def test_python_dash_m_prints_only_the_record_to_stdout(runtime_env: Path):
    environment = {**os.environ, "CLOUDSEG_HOME": str(runtime_env)}
    done = subprocess.run(
        [sys.executable, "-m", "cloudseg", "maintain", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
    )
    assert json.loads(done.stdout)["dry_run"] is True
    assert "maintain starts" in done.stderr
    assert "maintain ends" in done.stderr


def test_every_command_exists():
    pipeline = {"ingest", "snapshot", "train", "evaluate", "promote", "rollback", "retrain", "predict"}
    pipeline |= {"backfill", "readers"}
    inspecting = {"models", "runs", "scenes", "masks", "lineage", "quarantine", "labels", "worklist"}
    inspecting |= {"alerts", "changes", "champion", "compare", "drift", "history", "metrics"}
    for_others = {"export", "stats", "composite", "serve"}
    wanted = pipeline | inspecting | for_others | {"maintain", "remove", "db", "doctor", "model", "backup", "restore"}
    assert wanted == {name for name, command in root.commands.items() if not command.hidden}
    assert "upgrade" in root.commands["db"].commands
    assert "import" in root.commands["model"].commands
    assert set(root.commands["remove"].commands) == {"scene", "lift", "list"}
    assert set(root.commands["labels"].commands) == {"list", "show", "diff", "accept", "reject", "withdraw"}


@pytest.mark.parametrize(
    "name",
    [
        *("ingest", "snapshot", "train", "evaluate", "promote", "rollback", "retrain", "predict", "backfill"),
        *("maintain", "quarantine"),
    ],
)
def test_commands_that_write_have_a_dry_run(name: str):
    assert "dry_run" in {option.name for option in root.commands[name].params}


@pytest.mark.parametrize(("name", "stage"), [("switch", "switch_readers"), ("back", "switch_readers_back")])
def test_decisions_on_readers_have_the_arguments_of_their_stage_and_a_dry_run(name: str, stage: str):
    options = {option.name for option in root.commands["readers"].commands[name].params}
    assert options - {"as_json"} == set(inspect.signature(getattr(stages, stage)).parameters)
    assert "dry_run" in options


@pytest.mark.parametrize("name", ["accept", "reject", "withdraw"])
def test_decisions_on_labels_have_the_arguments_of_their_stage_and_a_dry_run(name: str):
    options = {option.name for option in root.commands["labels"].commands[name].params} - {"as_json"}
    assert options == set(inspect.signature(getattr(stages, f"{name}_labels")).parameters)
    assert "dry_run" in options


@pytest.mark.parametrize("name", ["clouds", "masks", "footprints"])
def test_an_export_has_the_arguments_of_its_stage(name: str):
    options = {option.name for option in root.commands["export"].commands[name].params} - {"as_json"}
    assert options == set(inspect.signature(getattr(stages, f"export_{name}")).parameters)


@pytest.mark.parametrize("command", ["scene", "lift", "list"])
def test_a_command_of_remove_has_the_arguments_of_its_stage(command: str):
    stage = {"scene": stages.remove_scene, "lift": stages.lift_removal, "list": stages.list_removals}[command]
    options = {option.name for option in root.commands["remove"].commands[command].params} - {"as_json"}
    assert options == set(inspect.signature(stage).parameters)


@pytest.mark.parametrize(
    "name", sorted(set(root.commands) - {"db", "model", "labels", "readers", "remove", "export", "serve", *MOVED})
)
def test_a_command_has_the_arguments_of_its_stage(name: str):
    together = {"link": "link_s", "hours": "link_s"}  # two options of the command are one argument of the stage
    chooses_the_stage = {"apply", "ask", "decline", "automatic"} if name == "promote" else set()
    chooses_the_stage |= {"release", "same_reason", "actor", "reason"} if name == "quarantine" else set()
    of_file = {"file", "out", "probability", "bands", "resolution_m"} if name == "predict" else set()
    chooses_the_stage |= {"rehearse"} if name == "restore" else set()
    together |= {"weights": "weights_id"} if name == "predict" else {}
    options = {together.get(option.name, option.name) for option in root.commands[name].params}
    of_drain = {"drain", "minutes", "worker"} if name == "predict" else set()
    names = options - {"as_json", "dry_run"} - chooses_the_stage - of_file - of_drain
    stage = stages.compare_models if name == "compare" else getattr(stages, name)  # stages.compare is the gate's
    of_dag = {"since"} if name == "promote" else set()  # a command is not repeated by itself
    assert names == set(inspect.signature(stage).parameters) - {"dry_run"} - of_dag


def test_predict_has_the_arguments_of_predict_file_too():
    together = {"file": "path"}
    options = {together.get(option.name, option.name) for option in root.commands["predict"].params}
    names = options - {"as_json", "dry_run", "new", "scene_ids", "drain", "minutes", "worker"}
    assert names == set(inspect.signature(stages.predict_file).parameters)


def test_predict_has_the_arguments_of_drain_too():
    together = {"weights": "weights_id"}
    options = {together.get(option.name, option.name) for option in root.commands["predict"].params}
    of_others = {"new", "scene_ids", "drain", "file", "out", "probability", "bands", "resolution_m"}
    assert options - {"as_json", "dry_run"} - of_others == set(inspect.signature(stages.drain).parameters)


def test_releasing_from_quarantine_has_a_dry_run(run: Run, tmp_path: Path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    for name in ("a.tif", "b.tif"):
        (inbox / name).write_bytes(b"no raster" + name.encode())
    first, second = (
        json.loads(run("ingest", str(inbox / "a.tif"), "--json")[1]),
        json.loads(run("ingest", str(inbox), "--json")[1]),
    )
    (wanted,) = first["quarantined"]
    assert second["still_quarantined"] == 1
    listed = json.loads(run("quarantine", "--release", wanted, "--dry-run", "--json")[1])["quarantine"]
    assert [entry["quarantine_id"] for entry in listed] == [wanted]
    left = json.loads(run("quarantine", "--release", wanted, "--json")[1])["quarantine"]
    assert [entry["quarantine_id"] for entry in left] == second["quarantined"]
    assert json.loads(run("ingest", str(inbox), "--json")[1])["quarantined"] == [wanted]


def test_every_command_with_a_record_has_a_json_option():
    assert [
        name
        for name, command in root.commands.items()
        if not hasattr(command, "commands")
        and not command.hidden
        and name != "serve"  # it runs until it is stopped
        and "as_json" not in {p.name for p in command.params}
    ] == []


def test_tables_show_nested_values():
    console = Console(record=True, width=100)
    show_rows("models", ["version", "held_out.iou"])(
        console, {"models": [{"version": 3, "held_out": {"iou": 0.71234}}, {"version": 2, "held_out": None}]}
    )
    show_record(console, {"added": ["a", "b"], "nothing": None, "counts": {"train": 3}})
    text = console.export_text()
    assert "0.7123" in text
    assert "a, b" in text
    assert "nothing" not in text
    assert "train 3" in text


ROWS = {
    "scenes": [
        {
            "scene_id": f"sc-{n:020}",
            "name": f"S2A_{n:056}",
            "place": "mgrs:31UDQ",
            "acquired_at": "2018-01-23T00:07:31Z",
            "uri": "/a/" * 60,
        }
        for n in range(3)
    ]
}


def _printed(width: int, *, terminal: bool) -> list[str]:
    console = Console(record=True, width=width, force_terminal=terminal, file=io.StringIO())
    show_rows("scenes", ["scene_id", "name", "place", "acquired_at"], below=["uri"])(console, ROWS)
    return console.export_text().splitlines()


@pytest.mark.parametrize("width", [80, 60, 40])
def test_narrow_terminals_keep_ids_and_truncate_other_columns(width: int):
    lines = _printed(width, terminal=True)
    rows = [line for line in lines if line.startswith("sc-")]
    assert [line[:23] for line in rows] == [row["scene_id"] for row in ROWS["scenes"]]
    assert max(map(len, rows)) <= width
    assert "…" in rows[0]
    assert ("no room for" in lines[-1]) == (width < 80)
    assert f"    uri: {'/a/' * 60}" in lines


@pytest.mark.parametrize("width", [40, 2000])
def test_output_to_a_pipe_has_one_untruncated_line_for_each_row(width: int):
    lines = _printed(width, terminal=False)
    assert len(lines) == 4
    assert lines[0].split() == ["scene_id", "name", "place", "acquired_at", "uri"]
    assert lines[1].split() == [
        "sc-00000000000000000000",
        "S2A_" + 56 * "0",
        "mgrs:31UDQ",
        "2018-01-23",
        "00:07",
        "/a/" * 60,
    ]
    assert [line for line in lines if line != line.rstrip()] == []


def test_output_to_a_pipe_has_no_colors_and_no_rules():
    console = Console(file=(out := io.StringIO()), width=2000, force_terminal=False)
    show_rows("scenes", ["scene_id", "name"])(console, {"scenes": [{"scene_id": "sc-1", "name": "a\nb [red]"}]})
    assert out.getvalue() == "scene_id  name\nsc-1      a b [red]\n"


def test_ids_are_never_truncated():
    lines = _printed(15, terminal=True)
    assert [line for line in lines if line.startswith("sc-")] == [row["scene_id"] for row in ROWS["scenes"]]


def test_wide_characters_count_as_two_columns():
    console = Console(record=True, width=30, force_terminal=True, file=io.StringIO())
    rows = [{"name": "雲" * 20, "place": "p" * 8}, {"name": "cloud", "place": "q" * 8}]
    show_rows("scenes", ["name", "place"])(console, {"scenes": rows})
    lines = console.export_text().splitlines()
    widths = {cell_len(line) for line in lines[1:]}
    assert len(widths) == 1, "the second column starts at the same column of the terminal"
    assert max(widths) <= 30
    pipe = Console(file=(out := io.StringIO()), width=10, force_terminal=False)
    show_rows("scenes", ["name"])(pipe, {"scenes": rows})
    assert out.getvalue().splitlines() == ["name", "雲" * 20, "cloud"]


def test_an_unexpected_exception_keeps_its_traceback():
    """An unexpected exception is a bug and keeps its traceback."""
    import click

    @click.command()
    @reports(show_record)
    def broken() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken.main([], standalone_mode=False)
