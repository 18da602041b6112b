"""A new certificate for each emulator that speaks TLS. Its key is never written to a file."""

from __future__ import annotations

import ssl
from collections.abc import Iterable


def make_certificate(names: Iterable[str]) -> tuple[ssl.SSLContext, str]:
    """A context for a server of these names and addresses, and the root certificate that clients have to trust, as PEM.

    Raises:
        ModuleNotFoundError: trustme is not installed.
    """
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context, authority.cert_pem.bytes().decode()
