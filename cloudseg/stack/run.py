"""`cloudseg stack`: start everything, say where it is, watch over it until Ctrl-C, leave nothing running."""

import time
from pathlib import Path

from rich.markup import escape

from cloudseg.demo.run import end_like_ctrl_c
from cloudseg.demo.watch import Screen
from cloudseg.records import Json
from cloudseg.stack.place import FIRST_PORT, Place, prepare_place
from cloudseg.stack.servers import check_programs
from cloudseg.stack.stack import Stack


def run_stack(*, home: Path = Path("var/stack"), first_port: int = FIRST_PORT) -> Json:
    """Run the services of docker/compose.yaml as plain processes on loopback until Ctrl-C; return where they were.

    What they store stays in `home`, with the secrets that were made for it, and the next start finds it again. Nothing
    that it starts outlives it, however it ends. Raises InputError and SettingsError before anything is started,
    ServiceFailed where a service does not come up.
    """
    check_programs()
    place, screen = prepare_place(home, first_port=first_port), Screen()
    end_like_ctrl_c()
    with Stack(place, tell=lambda text: screen.say(escape(text))) as stack:
        try:
            stack.start()
            stack.let_dags_run()
            _tell(place, screen)
            while True:
                stack.check()
                time.sleep(1)
        except KeyboardInterrupt:
            screen.say("stopping everything …")
    screen.say("everything is stopped; what it stored stays in " + escape(str(place.root)))
    return {"home": str(place.root), "ports": dict(place.ports)}


def _tell(place: Place, screen: Screen) -> None:
    lines = [
        f"[green]✓[/] Airflow     {place.variables['AIRFLOW_URL']}   user admin",
        f"  PostgreSQL  {place.variables['POSTGRES_ADDRESS']}   databases airflow, cloudseg; GIS people: role gis_reader, views gis.*",
        f"  S3          {place.variables['S3_ENDPOINT']}   bucket cloudseg",
        f"  inbox       {place.inbox}",
        f"  passwords   {place.environment_file} (AIRFLOW_ADMIN_PASSWORD, GIS_READER_PASSWORD, S3_ACCESS_KEY, …)",
        "[bold]Ctrl-C ends it[/]",
    ]
    for line in lines:
        screen.say(line)
