"""Stands in for a hospital's identity provider, for a trial: prints a JWT for an hour, and makes its key pair where there is none.

    python sign_in.py FOLDER RPPS profession=G15_60 structure=750000036 authentication=DIRECTE purpose=care
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

ISSUER, AUDIENCE = "https://sso.hospital.example", "documents"


def key_in(folder: Path) -> bytes:
    """The private key; the public one is beside it, for the endpoint."""
    private, public = folder / "sign-in.pem", folder / "sign-in.pub"
    if not private.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = ec.generate_private_key(ec.SECP256R1())
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(made.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private.read_bytes()


def main(folder: str, user: str, *claims: str) -> None:
    now = int(time.time())
    said = dict(claim.split("=", 1) for claim in claims) | {"sub": user, "iss": ISSUER, "aud": AUDIENCE, "exp": now + 3600, "sid": str(now)}
    key = load_pem_private_key(key_in(Path(folder)), None)
    print(jwt.encode(said, key, "ES256"))  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
