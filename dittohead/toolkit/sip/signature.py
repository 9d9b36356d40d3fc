"""The signature of a package: the digest of its METS document, signed with a certificate (S/MIME, detached).

Sources: RFC 8551, 3.5.3 (multipart/signed) and RFC 5652, 5; `mets.xml:sha256:HEX` is what the digital
preservation services of Finland ask for. It has no signed attributes, which would hold the time of day:
with an RSA key, the same document has the same signature.
"""

from __future__ import annotations

import base64
import hashlib
import re

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

_BLOCK = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


class BadKey(Exception):
    """What was given cannot sign; says why, and nothing of the key."""


class Signer:
    """Signs with one key.

    Args:
        pem: the private key, without a passphrase, and its certificate; further certificates of the chain
            are put into the signature.

    Raises: BadKey.
    """

    def __init__(self, pem: str) -> None:
        data = pem.encode("utf-8", "surrogateescape")
        try:
            keys = [
                serialization.load_pem_private_key(found[0], None)
                for found in _BLOCK.finditer(data)
                if found[1].endswith(b"PRIVATE KEY")
            ]
            certificates = [
                x509.load_pem_x509_certificate(found[0])
                for found in _BLOCK.finditer(data)
                if found[1] == b"CERTIFICATE"
            ]
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise BadKey("its key or certificate cannot be read; a key must have no passphrase") from None
        if len(keys) != 1 or not certificates:
            raise BadKey("it must hold one private key and its certificate, as PEM")
        (key,) = keys
        if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
            raise BadKey("its key is neither RSA nor of an elliptic curve")
        own = [one for one in certificates if one.public_key() == key.public_key()]
        if not own:
            raise BadKey("none of its certificates belongs to its key")
        self._key, self.certificate = key, own[0]
        self._more = [one for one in certificates if one is not own[0]]

    def sign(self, lines: str) -> bytes:
        """Return a text with its signature, as `openssl smime -verify` reads it."""
        content = lines.replace("\r\n", "\n").replace("\n", "\r\n").encode()
        builder = pkcs7.PKCS7SignatureBuilder().set_data(content)
        builder = builder.add_signer(self.certificate, self._key, hashes.SHA256())
        for one in self._more:
            builder = builder.add_certificate(one)
        options = [
            pkcs7.PKCS7Options.DetachedSignature,
            pkcs7.PKCS7Options.NoAttributes,
            pkcs7.PKCS7Options.Binary,
        ]
        try:
            signed = builder.sign(serialization.Encoding.DER, options)
        except (ValueError, UnsupportedAlgorithm, InvalidSignature):
            raise BadKey("its key cannot sign") from None
        return _message(content, signed)


def lines(name: str, sha256: str) -> str:
    """Return what is signed of a file."""
    return f"{name}:sha256:{sha256}\n"


def _message(content: bytes, signed: bytes) -> bytes:
    boundary = b"----" + hashlib.sha256(content).hexdigest()[:32].upper().encode()
    return b"".join(
        [
            b"MIME-Version: 1.0\n",
            b'Content-Type: multipart/signed; protocol="application/x-pkcs7-signature"; ',
            b'micalg="sha-256"; boundary="%b"\n\n' % boundary,
            b"This is an S/MIME signed message\n\n",
            b"--%b\n%b\n" % (boundary, content),
            b"--%b\n" % boundary,
            b'Content-Type: application/x-pkcs7-signature; name="smime.p7s"\n',
            b"Content-Transfer-Encoding: base64\n",
            b'Content-Disposition: attachment; filename="smime.p7s"\n\n',
            base64.encodebytes(signed),
            b"\n--%b--\n\n" % boundary,
        ]
    )
