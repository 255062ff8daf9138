"""TLS from two files."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.errors import SettingsError


def tls_context(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """What serves TLS 1.2 and later with the certificate chain and the key, PEM files both; None where neither is named.

    Raises SettingsError saying which of them is wrong, and how.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        given, lacking = ("--tls-key", "--tls-cert") if certificate is None else ("--tls-cert", "--tls-key")
        raise SettingsError(f"{given} is of no use without {lacking}")
    for option, path in (("--tls-cert", certificate), ("--tls-key", key)):
        _readable(option, path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _check_certificate(certificate)
    try:
        # Without a function to ask it would wait at the terminal for the key's password.
        context.load_cert_chain(certificate, key, password=_no_password)
    except _EncryptedError:
        raise SettingsError(f"--tls-key: {key} is encrypted; give one without a password") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"--tls-key: {key} is not the key of the certificate {certificate}") from None
        raise SettingsError(f"--tls-key: {key} is no private key in PEM form") from None
    context.set_alpn_protocols(["http/1.1"])
    return context


class _EncryptedError(Exception):
    """The key asks for a password."""


def _no_password() -> str:
    raise _EncryptedError


def _readable(option: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{option}: {path} cannot be read: {error.strerror}") from None


def _check_certificate(path: Path) -> None:
    """Raises SettingsError where there is none in it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise SettingsError(f"--tls-cert: {path} holds no certificate in PEM form") from None
