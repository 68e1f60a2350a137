"""The stack from start to end: start everything, print the addresses, wait for Ctrl-C, stop everything."""

import time
from pathlib import Path

from rich.markup import escape

from cloudseg.records import Json
from tools.stack.home import FIRST_PORT, StackHome, prepare_home
from tools.stack.servers import check_programs
from tools.stack.stack import Stack
from tools.terminal import Screen, interrupt_on_signals


def run_stack(*, home: Path = Path("var/stack"), first_port: int = FIRST_PORT) -> Json:
    """Run the services of docker/compose.yaml as plain processes on loopback until Ctrl-C.

    Every process that it starts ends with it, also when it is killed.

    Args:
        home: Folder for data and secrets; the next start finds them again.
        first_port: First of twelve consecutive ports.

    Returns:
        The folder and the ports by name.

    Raises:
        InputError: `home` holds something that no stack made.
        SettingsError: A server is not installed, or a port is in use.
        ServiceFailed: A service did not become healthy.
    """
    check_programs()
    folders, screen = prepare_home(home, first_port=first_port), Screen()
    interrupt_on_signals()
    with Stack(folders, report=lambda text: screen.print(escape(text))) as stack:
        try:
            stack.start()
            stack.unpause_dags()
            _print_addresses(folders, screen)
            while True:
                stack.check()
                time.sleep(1)
        except KeyboardInterrupt:
            screen.print("stopping everything …")
    screen.print("everything is stopped; what it stored stays in " + escape(str(folders.root)))
    return {"home": str(folders.root), "ports": dict(folders.ports)}


def _print_addresses(home: StackHome, screen: Screen) -> None:
    variables = home.variables
    lines = [
        f"[green]✓[/] Airflow     {variables['AIRFLOW_URL']}   user admin",
        f"  PostgreSQL  {variables['POSTGRES_ADDRESS']}   databases airflow, cloudseg; role gis_reader reads gis.*",
        f"  S3          {variables['S3_ENDPOINT']}   bucket cloudseg",
        f"  inbox       {home.inbox}",
        f"  passwords   {home.environment_file} (AIRFLOW_ADMIN_PASSWORD, GIS_READER_PASSWORD, S3_ACCESS_KEY, …)",
        "[bold]Ctrl-C stops the stack[/]",
    ]
    for line in lines:
        screen.print(line)
