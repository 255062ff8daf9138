from __future__ import annotations

import shutil
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from gateway.errors import SettingsError
from gateway.tls import tls_context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """cert.pem and key.pem, the key of another certificate, the key with a password, rubbish and nothing."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    for i, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(folder / "cert.pem"), append=i > 0)
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    other.private_key_pem.write_to_path(str(folder / "other.pem"))
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    secret = BestAvailableEncryption(b"swordfish")
    (folder / "locked.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret))
    (folder / "old-locked.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, secret))
    (folder / "rubbish.pem").write_bytes(b"\xff rubbish")
    (folder / "empty.pem").write_bytes(b"")
    (folder / "folder.pem").mkdir()
    half = (folder / "cert.pem").read_text()[:300] + "\n-----END CERTIFICATE-----\n"
    (folder / "half.pem").write_text(half)
    return folder


def test_two_files_that_belong_together_serve_modern_tls(files: Path) -> None:
    context = tls_context(files / "cert.pem", files / "key.pem")
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls_context(None, None) is None


def test_a_file_that_holds_both_is_fine(files: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    shutil.copy(files / "cert.pem", both)
    both.write_bytes(both.read_bytes() + (files / "key.pem").read_bytes())
    assert tls_context(both, both) is not None


@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [
        ("cert.pem", None, "--tls-cert is of no use without --tls-key"),
        (None, "key.pem", "--tls-key is of no use without --tls-cert"),
        ("missing.pem", "key.pem", "--tls-cert: .*missing.pem cannot be read: No such file"),
        ("cert.pem", "missing.pem", "--tls-key: .*missing.pem cannot be read: No such file"),
        ("folder.pem", "key.pem", "--tls-cert: .*folder.pem cannot be read: Is a directory"),
        ("rubbish.pem", "key.pem", "--tls-cert: .*rubbish.pem holds no certificate"),
        ("empty.pem", "key.pem", "--tls-cert: .*empty.pem holds no certificate"),
        ("half.pem", "key.pem", "--tls-cert: .*half.pem holds no certificate"),
        ("key.pem", "cert.pem", "--tls-cert: .*key.pem holds no certificate"),
        ("cert.pem", "cert.pem", "--tls-key: .*cert.pem is no private key"),
        ("cert.pem", "rubbish.pem", "--tls-key: .*rubbish.pem is no private key"),
        ("cert.pem", "empty.pem", "--tls-key: .*empty.pem is no private key"),
        ("cert.pem", "other.pem", "--tls-key: .*other.pem is not the key of the certificate .*cert.pem"),
        ("cert.pem", "locked.pem", "--tls-key: .*locked.pem is encrypted"),
        ("cert.pem", "old-locked.pem", "--tls-key: .*old-locked.pem is encrypted"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_in_one_line(
    files: Path, certificate: str | None, key: str | None, told: str
) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        tls_context(certificate and files / certificate, key and files / key)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
