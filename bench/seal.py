"""Sealing and opening: CPU per value, and whether the event loop goes on meanwhile. Needs no API server."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bench.result import Measure
from fleet.aio import spawn
from fleet.object import Manifest, ObjectKey, Origin, Seal, encode_canonical
from fleet.secrets import bitnami, native
from fleet.secrets.document import encode_sealed, parse_sealed, write_sealed
from fleet.secrets.key import Algorithm, KeyState, PrivateKey, PublicKey, compute_kid, derive_box_key, derive_public
from fleet.secrets.opened import Scope
from fleet.secrets.unseal import KeyringUnsealer
from tests.harness.seal import Ring

VALUES = 1000
CLUSTERS = 200
BITNAMI = 500
TICK_S = 0.001
"""How often the loop is asked whether it still runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much is sealed and opened."""

    values: int = VALUES
    bitnami: int = BITNAMI


def measure_sealing(amount: Amount) -> list[Measure]:
    """Seal for many clusters, and open many values, on this core."""
    keys = [_make_key(f"c{number}") for number in range(CLUSTERS)]
    return [_seal_for_many(keys), _open_documents(keys[0], amount.values), _open_items(keys[0], amount.values)]


def _make_key(cluster: str) -> PrivateKey:
    seed = cluster.encode().ljust(32, b".")
    public = derive_public(derive_box_key(seed))
    return PrivateKey(public=_describe(cluster, Algorithm.X25519, compute_kid(public), public), secret=seed)


def _describe(cluster: str, algorithm: Algorithm, kid: str, public: bytes) -> PublicKey:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return PublicKey(
        kid=kid,
        cluster=cluster,
        environment="e",
        uid="u",
        algorithm=algorithm,
        public=public,
        state=KeyState.ACTIVE,
        created_at=at,
        renew_at=at,
    )


def _seal_for_many(keys: list[PrivateKey]) -> Measure:
    recipients = [key.public for key in keys]
    times = []
    for _ in range(5):
        start = time.process_time()
        write_sealed(native.seal({"password": b"hunter2"}, recipients, namespace="shop", name="db"))
        times.append(time.process_time() - start)
    return Measure(
        name=f"seal one value for {len(keys)} clusters", value=min(times) * 1000, unit="ms", aim=50, note="CPU"
    )


def _open_documents(key: PrivateKey, values: int) -> Measure:
    """One value per document: each has a data key of its own to unwrap."""
    made = [native.seal({"a": b"hunter2"}, [key.public], namespace="n", name=f"s{i}") for i in range(values)]
    bodies = [encode_canonical(encode_sealed(each)) for each in made]
    ring = Ring(key)
    start = time.process_time()
    for number, body in enumerate(bodies):
        native.open_sealed(parse_sealed(body), Scope(key.public.cluster, "e", "n", f"s{number}"), ring)
    return _opened(f"open {values} values, one per document", time.process_time() - start, values)


def _open_items(key: PrivateKey, values: int) -> Measure:
    """All values in one document: one data key."""
    items = {f"i{number}": b"hunter2" for number in range(values)}
    body = encode_canonical(encode_sealed(native.seal(items, [key.public], namespace="n", name="s")))
    start = time.process_time()
    native.open_sealed(parse_sealed(body), Scope(key.public.cluster, "e", "n", "s"), Ring(key))
    return _opened(f"open {values} values of one document", time.process_time() - start, values)


def _opened(name: str, spent_s: float, values: int) -> Measure:
    return Measure(name=name, value=spent_s * 1000, unit="ms", aim=100 * values / VALUES, note="CPU, with parsing")


async def measure_bitnami(amount: Amount) -> list[Measure]:
    """Open RSA-4096 values as the hub does, and watch the longest time in which the loop did not run."""
    private = generate_private_key(65537, 4096)
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key = PrivateKey(public=_describe("c0", Algorithm.RSA, compute_kid(spki), spki), secret=der)
    label = bitnami.make_label("strict", "n", "s")
    value = bitnami.seal_value(b"hunter2", private.public_key(), label)
    body = {
        "apiVersion": bitnami.API_VERSION,
        "kind": bitnami.KIND,
        "metadata": {"name": "s", "namespace": "n"},
        "spec": {"encryptedData": {"a": value}},
    }
    manifest = Manifest(
        key=ObjectKey("", "Secret", "n", "s"),
        version="v1",
        body=encode_canonical(body),
        digest=b"",
        origin=Origin("s.yaml", 1),
        seal=Seal.BITNAMI,
        sensitive=True,
    )
    stalls: list[float] = []
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=2) as executor:
        unsealer = KeyringUnsealer(Ring(key), environment_of=lambda _: "e", digest_key=b"k" * 32, executor=executor)
        await unsealer.open(manifest, "c0")  # reads the key
        async with asyncio.TaskGroup() as group:
            ticking = spawn(group, "tick", _tick(stalls))
            start = loop.time()
            async with asyncio.TaskGroup() as opening:
                for number in range(amount.bitnami):
                    spawn(opening, f"open/{number}", unsealer.open(manifest, "c0"))
            spent_s = loop.time() - start
            ticking.cancel()
    name = f"open {amount.bitnami} RSA-4096 values"
    return [
        Measure(name=f"{name}, longest stall of the loop", value=max(stalls) * 1000, unit="ms", aim=50),
        Measure(name=name, value=spent_s * 1000, unit="ms", note="wall time, two threads"),
    ]


async def _tick(stalls: list[float]) -> None:
    """Note how late each wake-up is."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + TICK_S
        await asyncio.sleep(TICK_S)
        stalls.append(loop.time() - due)
