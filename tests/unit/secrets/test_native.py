"""fleet's own sealed documents: what opens where, and why something does not."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet.document import load_documents
from fleet.errors import SealError
from fleet.secrets import native
from fleet.secrets.document import Audience, Binding, Sealed, Template, encode_sealed, parse_sealed, write_sealed
from fleet.secrets.key import KeyState
from fleet.secrets.native import BreakGlass, open_sealed, seal
from fleet.secrets.opened import Scope
from tests.harness.seal import Ring, make_break_glass, make_key

EU, US, DEV = make_key("prod-eu-1"), make_key("prod-us-1"), make_key("dev-1", "dev")
RING = Ring(EU, US, DEV)
HOME = Scope("prod-eu-1", "production", "shop", "db")
PRODUCTION = Audience(environment="production")
ITEMS = {"user": b"shop", "password": b"hunter2", "empty": b""}


def sealed(
    binding: Binding = Binding.STRICT, audience: Audience = PRODUCTION, items: dict[str, bytes] = ITEMS
) -> Sealed:
    """Seal ITEMS for both clusters of production."""
    return seal(items, [EU.public, US.public], namespace="shop", name="db", binding=binding, audience=audience)


def reason_at(document: Sealed, scope: Scope, ring: Ring = RING) -> str:
    """Return why it does not open; empty when it does."""
    try:
        open_sealed(document, scope, ring)
    except SealError as error:
        return error.reason
    return ""


def test_every_recipient_opens_what_was_sealed() -> None:
    """One document opens on each cluster it is for, item by item."""
    for cluster in ("prod-eu-1", "prod-us-1"):
        opened = open_sealed(sealed(), HOME._replace(cluster=cluster), RING)
        assert {item: value.reveal() for item, value in opened.items.items()} == ITEMS


def test_what_is_written_reads_the_same() -> None:
    """The committed text parses to the document, as YAML and as canonical JSON, and is written the same again."""
    shape = Template(type="kubernetes.io/tls", labels={"a": "true"}, annotations={"note": "a: b # c"}, immutable=True)
    document = replace(sealed(), template=shape, labels={"app": "y"})
    text = write_sealed(document)
    value = load_documents(text.encode(), "db.yaml")[0].value
    assert parse_sealed(value) == document
    assert write_sealed(parse_sealed(value)) == text
    assert value == encode_sealed(document)


def test_each_value_and_each_wrap_has_a_line_of_its_own() -> None:
    """A diff of a committed document shows which item and which recipient changed."""
    document = sealed()
    before = write_sealed(document).splitlines()
    after = write_sealed(native.add_items(document, {"user": b"other"}, [EU.public, US.public])).splitlines()
    gone = [line for line in before if line not in after]
    assert [line.split(":")[0].strip() for line in gone] == ["user"]


@pytest.mark.parametrize(
    ("binding", "moved"),
    [
        (Binding.STRICT, {"namespace": "other", "name": "other", "environment": "other"}),
        (Binding.SECRET, {"namespace": "other", "name": "other"}),
        (Binding.NAMESPACE, {"namespace": "other"}),
        (Binding.ENVIRONMENT, {"environment": "other"}),
    ],
)
def test_a_move_out_of_the_scope_is_refused(binding: Binding, moved: dict[str, str]) -> None:
    """Whatever a scope binds, and nothing else, must stay for a value to open."""
    document = sealed(binding)
    for field in ("namespace", "name", "environment"):
        scope = HOME._replace(**{field: "other"})
        assert reason_at(document, scope) == ("ScopeMismatch" if field in moved else "")


def test_a_refused_move_names_both_places() -> None:
    """The message says what it was sealed for and where it was used."""
    with pytest.raises(SealError, match=r"sealed for item \w+ of Secret shop/db, used as item \w+ of Secret web/db on"):
        open_sealed(replace(sealed(), namespace="web"), HOME._replace(namespace="web"), RING)


def test_swapped_items_are_refused_by_name() -> None:
    """User and password cannot change places, which Bitnami's format allows."""
    document = sealed()
    swapped = {**document.values, "user": document.values["password"], "password": document.values["user"]}
    with pytest.raises(SealError, match=r"sealed for item password .* used as item user") as caught:
        open_sealed(replace(document, values=swapped), HOME, RING)
    assert caught.value.reason == "ScopeMismatch"


def test_a_wider_scope_cannot_be_written_over_a_narrow_one() -> None:
    """Editing spec.scope or spec.audience does not widen what a value is bound to."""
    document = sealed()
    for edited in (
        replace(document, binding=Binding.ENVIRONMENT),
        replace(document, audience=Audience()),
        replace(document, audience=Audience(cluster="prod-eu-1")),
    ):
        assert reason_at(edited, HOME) == "ScopeMismatch"


def test_a_cluster_audience_holds_on_that_cluster_alone() -> None:
    """What is sealed for one cluster does not open on another, even where somebody wrapped the key for it."""
    document = seal(ITEMS, [EU.public], namespace="shop", name="db", audience=Audience(cluster="prod-eu-1"))
    assert reason_at(document, HOME) == ""
    assert reason_at(document, HOME._replace(cluster="prod-us-1")) == "NotARecipient"
    keys = [native.unwrap(document, key, "prod-eu-1", RING) for key in document.keys.values()]
    wrapped = native.wrap(keys[0], US.public)
    key = next(iter(document.keys.values()))
    forged = replace(document, keys={key.id: replace(key, wraps={**key.wraps, US.public.kid: wrapped})})
    assert reason_at(forged, HOME._replace(cluster="prod-us-1")) == "ScopeMismatch"


def test_another_cluster_is_told_whom_it_is_for() -> None:
    """A cluster that is no recipient is refused with the names of those that are."""
    with pytest.raises(SealError, match="sealed for prod-eu-1, prod-us-1, not for cluster dev-1") as caught:
        open_sealed(sealed(), Scope("dev-1", "dev", "shop", "db"), RING)
    assert caught.value.reason == "NotARecipient"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (KeyState.PENDING, ""),
        (KeyState.RETIRING, ""),
        (KeyState.RETIRED, "RetiredKey"),
        (KeyState.DESTROYED, "RetiredKey"),
        (KeyState.COMPROMISED, "CompromisedKey"),
    ],
)
def test_the_state_of_a_key_decides(state: KeyState, reason: str) -> None:
    """A key that may not open is named as the reason."""
    assert reason_at(sealed(), HOME, Ring(make_key("prod-eu-1", state=state))) == reason


def test_a_lost_key_is_unknown() -> None:
    """A cluster whose own key is missing hears that, not that the document is for others."""
    assert reason_at(sealed(), HOME, Ring(make_key("prod-eu-1", number=2))) == "UnknownKey"


def test_a_second_key_of_the_document_opens_when_the_first_is_compromised() -> None:
    """Any usable key that the document names is enough."""
    old, new = make_key("prod-eu-1", state=KeyState.COMPROMISED), make_key("prod-eu-1", number=2)
    document = seal(ITEMS, [EU.public, new.public], namespace="shop", name="db", audience=PRODUCTION)
    assert reason_at(document, HOME, Ring(old, new)) == ""


def test_two_data_keys_for_two_clusters_are_noticed() -> None:
    """A sealer who gives clusters different keys under one commitment is found out by whoever got the other one."""
    one, two = native.make_key(), native.make_key()
    document = sealed()
    (key,) = document.keys.values()
    wraps = {EU.public.kid: native.wrap(one, EU.public), US.public.kid: native.wrap(two, US.public)}
    forged = replace(document, keys={key.id: replace(key, commit=one.commit, wraps=wraps)})
    with pytest.raises(SealError, match="commits to") as caught:
        open_sealed(forged, HOME._replace(cluster="prod-us-1"), RING)
    assert caught.value.reason == "Corrupt"


@given(
    at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), part=st.sampled_from(["nonce", "ciphertext", "place"])
)
def test_a_flipped_bit_of_a_value_is_corruption(at: float, bit: int, part: str) -> None:
    """Every byte of a value is covered, and damage is not taken for a move."""
    value = DOCUMENT.values["password"]
    flipped: Any = {part: flip(getattr(value, part), at, bit)}
    changed = replace(value, **flipped)
    document = replace(DOCUMENT, values={**DOCUMENT.values, "password": changed})
    assert reason_at(document, HOME) == "Corrupt"


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), part=st.sampled_from(["commit", "wrap"]))
def test_a_flipped_bit_of_a_data_key_is_corruption(at: float, bit: int, part: str) -> None:
    """Every byte of a commitment and of a wrap is covered."""
    (key,) = DOCUMENT.keys.values()
    kid = EU.public.kid
    changed = (
        replace(key, commit=flip(key.commit, at, bit))
        if part == "commit"
        else replace(key, wraps={**key.wraps, kid: flip(key.wraps[kid], at, bit)})
    )
    assert reason_at(replace(DOCUMENT, keys={key.id: changed}), HOME) == "Corrupt"


@given(cut=st.integers(1, 200), part=st.sampled_from(["nonce", "ciphertext"]))
def test_a_cut_value_is_corruption(cut: int, part: str) -> None:
    """Short values are refused, however short."""
    value = DOCUMENT.values["password"]
    shorter: Any = {part: getattr(value, part)[:-cut]}
    changed = replace(value, **shorter)
    assert reason_at(replace(DOCUMENT, values={"password": changed}), HOME) == "Corrupt"


NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


@example(here=("a/b", "c", "i", "e"), there=("a", "b/c", "i", "e"))
@example(here=("a", "", "i", "e"), there=("", "a", "i", "e"))
@example(here=("a", "b", "\0\0\0\1i", "e"), there=("a", "b\0\0\0\1", "i", "e"))
@given(here=st.tuples(NAMES, NAMES, NAMES, NAMES), there=st.tuples(NAMES, NAMES, NAMES, NAMES))
def test_no_two_places_are_one(here: tuple[str, str, str, str], there: tuple[str, str, str, str]) -> None:
    """Whatever the names are, a value opens where it was sealed for and nowhere else (`a/b`, `c` is not `a`, `b/c`)."""
    namespace, name, item, environment = here
    document = Sealed(namespace=namespace, name=name, audience=Audience(environment=environment or "e"))
    key = native.make_key()
    value = native.seal_value(b"x", key, document, item)
    for place in (here, there):
        held = replace(document, values={place[2]: value}, audience=PRODUCTION)
        scope = Scope("c", place[3] or "e", place[0], place[1])
        if (*place[:3], place[3] or "e") == (*here[:3], here[3] or "e"):
            assert native.open_value(held, scope, place[2], key) == b"x"
        else:
            with pytest.raises(SealError) as caught:
                native.open_value(held, scope, place[2], key)
            assert caught.value.reason == "ScopeMismatch"


def test_the_length_of_a_value_tells_little() -> None:
    """Values of up to 31 bytes have ciphertexts of one length."""
    document = sealed(items={"a": b"", "b": b"x" * 31, "c": b"x" * 32})
    lengths = {item: len(value.ciphertext) for item, value in document.values.items()}
    assert lengths["a"] == lengths["b"] < lengths["c"]


def test_break_glass_opens_without_a_hub() -> None:
    """The age identity of the break-glass recipient opens the data key by itself, another one does not."""
    identity, recipient = make_break_glass()
    document = seal(
        ITEMS, [EU.public, BreakGlass(recipient=recipient)], namespace="shop", name="db", audience=PRODUCTION
    )
    keys = {id_: native.unwrap_with_identity(key, [identity]) for id_, key in document.keys.items()}
    assert native.open_with(document, HOME, keys).items["password"].reveal() == b"hunter2"
    with pytest.raises(SealError, match=recipient) as caught:
        native.unwrap_with_identity(next(iter(document.keys.values())), [make_break_glass(2)[0]])
    assert caught.value.reason == "NotARecipient"


def test_items_are_added_without_opening_the_others() -> None:
    """A merged item has a data key of its own; what stood there stays to the byte, and all of it opens."""
    before = sealed()
    after = native.add_items(before, {"token": b"t0"}, [EU.public, US.public])
    assert {item: after.values[item] for item in before.values} == before.values
    assert len(after.keys) == 2
    opened = open_sealed(after, HOME, RING)
    assert {item: value.reveal() for item, value in opened.items.items()} == {**ITEMS, "token": b"t0"}


def test_a_replaced_document_drops_keys_that_nothing_uses() -> None:
    """When every item was sealed again, the old data key and its recipients go."""
    after = native.add_items(sealed(), ITEMS, [EU.public])
    assert len(after.keys) == 1
    assert after.clusters == ["prod-eu-1"]


def test_rewrap_adds_and_drops_recipients_and_touches_no_value() -> None:
    """A cluster that joins gets a line; one that leaves loses its own; ciphertexts stay."""
    joined = make_key("prod-ap-1")
    document = sealed()
    keys = [native.unwrap(document, key, "prod-eu-1", RING) for key in document.keys.values()]
    after = native.rewrap(document, keys, [EU.public, joined.public])
    assert after.values == document.values
    assert reason_at(after, HOME._replace(cluster="prod-ap-1"), Ring(joined)) == ""
    assert reason_at(after, HOME._replace(cluster="prod-us-1")) == "NotARecipient"
    (old,), (new,) = document.keys.values(), after.keys.values()
    assert new.wraps[EU.public.kid] == old.wraps[EU.public.kid]


def test_recipients_outside_the_audience_are_refused() -> None:
    """Sealing for production does not wrap for a cluster that could not open it."""
    with pytest.raises(SealError, match="cluster dev-1 is outside environment/production"):
        seal(ITEMS, [EU.public, DEV.public], namespace="shop", name="db", audience=PRODUCTION)
    with pytest.raises(SealError, match="no cluster to seal for"):
        seal(ITEMS, [BreakGlass(recipient=make_break_glass()[1])], namespace="shop", name="db")


def test_several_environments_share_an_open_audience() -> None:
    """Without an audience, whoever is a recipient opens it, in its own environment."""
    document = seal(ITEMS, [EU.public, DEV.public], namespace="shop", name="db")
    assert reason_at(document, HOME) == reason_at(document, Scope("dev-1", "dev", "shop", "db")) == ""
    assert reason_at(document, Scope("dev-1", "dev", "shop", "other")) == "ScopeMismatch"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(st.text(max_size=8), below, max_size=3)),
    max_leaves=8,
)


@given(
    field=st.sampled_from(["metadata", "spec", "scope", "audience", "recipients", "template", "dataKeys", "values"]),
    junk=JSON,
)
def test_only_seal_errors_come_out_of_the_parser(field: str, junk: object) -> None:
    """Whatever stands in a field, the answer is a document or a SealError."""
    body = encode_sealed(DOCUMENT)
    holder = body if field in body else body["spec"]
    holder[field] = junk
    with contextlib.suppress(SealError):
        open_sealed(parse_sealed(body), HOME, RING)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"scope"', '"scop"', "spec.scop is no field"),
        ('"commit"', '"comit"', "comit is no field"),
        ('"type"', '"data"', "spec.template.data is no field"),
        ("fs1:", "fs2:", "not of the form fs1"),
        ("x25519-", "mlkem-", "does not know"),
        ('"strict"', '"wide"', "spec.scope must be one of"),
        ("environment/", "cloud/", "spec.audience must be"),
    ],
)
def test_what_no_version_of_the_format_has_is_refused(old: str, new: str, said: str) -> None:
    """Fields, forms and words that are not known are refused by name, never passed over."""
    text = json.dumps(encode_sealed(DOCUMENT)).replace(old, new, 1)
    with pytest.raises(SealError, match=said):
        parse_sealed(text.encode())


def test_base64_has_one_spelling() -> None:
    """Bits left over are refused: the same bytes in another spelling would be another line in a diff."""
    body = encode_sealed(DOCUMENT)
    (key,) = body["spec"]["dataKeys"]
    assert key["commit"].endswith("=")
    last = key["commit"][-2]
    key["commit"] = key["commit"][:-2] + chr(ord(last) + 1) + "="
    with pytest.raises(SealError, match="spelling of its own"):
        parse_sealed(body)


@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_document_are_refused(data: bytes) -> None:
    """Arbitrary bytes are a SealError."""
    with pytest.raises(SealError):
        parse_sealed(data)


def flip(data: bytes, at: float, bit: int) -> bytes:
    """Flip one bit of the byte that is this far into the data."""
    place = int(len(data) * at)
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


DOCUMENT = sealed()
