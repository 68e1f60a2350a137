"""The command that runs the web application."""

import click


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="Port; 0 for a free one.")
@click.option(
    "--forwarded-allow-ips",
    default="127.0.0.1",
    show_default=True,
    metavar="IPS",
    help="Reverse proxies whose X-Forwarded headers are believed.",
)
def serve(host: str, port: int, forwarded_allow_ips: str) -> None:
    """Serve masks and scenes to readers: a STAC API, tiles, features, files and a map.

    It only reads, and listens on this machine unless --host says otherwise. CLOUDSEG_SERVE_API_KEYS limits it to
    readers with a key. Ctrl-C stops it.
    """
    from cloudseg.runtime import set_up_logging

    set_up_logging(click.get_current_context().find_root().params.get("log_level"))
    try:
        from cloudseg.serve.run import run
    except ImportError as error:
        from cloudseg.serve import extra_missing

        raise extra_missing(error, "cloudseg serve") from error
    run(host, port, forwarded_allow_ips)
