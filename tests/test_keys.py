"""Keys and ids are stable and safe, and no key is a prefix of another."""

import inspect
import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudseg import keys

SHA = "ab" + "0" * 62
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def every_key() -> list[str]:
    return [
        keys.CHAMPION_POINTER,
        keys.scene(SHA),
        keys.label(SHA),
        keys.snapshot_manifest("sn-1"),
        keys.snapshot_shard(SHA),
        keys.checkpoint("run-1", 12, SHA),
        keys.weights(SHA),
        keys.weights_asset(SHA, "model.onnx", SHA),
        keys.evaluation("ev-1", "report.html", SHA),
        keys.verdict("ve-1"),
        keys.mask("w-1", "sc-1", "mask.tif", SHA),
        keys.VERIFICATION,
        keys.doctor_probe("1"),
        keys.STAC_ROOT,
        keys.stac_collection("masks"),
        keys.stac_month("masks", "2024-05"),
        keys.stac_item("masks", "2024-05", "mk-1"),
        keys.stac_index("masks", "2024-05"),
        keys.stac_thumbnail("2024-05", "sc-1"),
    ]


def test_every_key_is_valid():
    assert [keys.checked(key) for key in every_key()] == every_key()


def test_no_key_is_a_prefix_of_another():
    for one, two in itertools.permutations(every_key(), 2):
        assert not two.startswith(one + "/")


def test_the_prefixes_are_those_of_the_keys() -> None:
    assert {key.partition("/")[0] + "/" for key in every_key()} == {*keys.PREFIXES, keys.STAC_PREFIX}
    assert len(keys.PREFIXES) == len(set(keys.PREFIXES))


def test_every_function_that_builds_a_key_is_listed_above() -> None:
    source = inspect.getsource(every_key)
    functions = [
        name for name, value in inspect.getmembers(keys, inspect.isfunction) if value.__module__ == keys.__name__
    ]
    other = {
        "sha256_of",
        "canonical_json",
        "make_id",
        "id_from_hash",
        "checked",
        "is_key",
        "parts_of_mask",
        "slug",
        "style",
    }
    assert {name for name in functions if f"keys.{name}(" not in source} == other


def test_keys_contain_the_checksum():
    assert keys.mask("w-1", "sc-1", "mask.tif", SHA) == "masks/w-1/sc-1/mask.ab0000000000.tif"
    assert keys.weights_asset(SHA, "model.onnx", SHA) == f"models/{SHA}/model.ab0000000000.onnx"
    assert keys.checkpoint("run-1", 12, SHA) == "runs/run-1/checkpoints/00000012.ab0000000000.safetensors"


def test_only_mask_keys_are_parsed_as_masks():
    assert [keys.parts_of_mask(key) for key in every_key() if key.startswith("masks/")] == [("w-1", "sc-1")]
    assert [keys.parts_of_mask(key) for key in every_key() if not key.startswith("masks/")] == [None] * (
        len(every_key()) - 1
    )
    assert keys.parts_of_mask("masks/w-1/sc-1") is keys.parts_of_mask("masks/w-1/sc-1/a/b") is None


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "..", "a/../b", ".a", "A", "ä", "a b", "a\n", "x" * 201, "a/" * 300 + "a"]
)
def test_invalid_keys_are_refused(key: str):
    assert not keys.is_key(key)
    with pytest.raises(ValueError, match="not an object key"):
        keys.checked(key)


@given(st.text(max_size=80))
def test_a_slug_is_one_part_of_a_key(text: str):
    assert keys.is_key(keys.slug(text))
    assert "/" not in keys.slug(text)


@given(st.sets(st.text(max_size=12), min_size=2, max_size=2))
def test_different_texts_have_different_slugs(texts: set[str]):
    one, two = texts
    assert keys.slug(one) != keys.slug(two)


def test_a_plain_slug_stays_readable():
    assert keys.slug("run-0a1b.c") == "run-0a1b.c"
    assert keys.slug("Nightly Run!").startswith("nightly-run-")


@given(PLAIN)
def test_canonical_json_is_json_and_stable(value: object):
    text = keys.canonical_json(value)
    assert json.loads(text) == value
    assert keys.canonical_json(json.loads(text)) == text


def test_canonical_json_ignores_the_order_of_keys():
    assert keys.canonical_json({"b": 1, "a": [1, {"d": 2, "c": 3}]}) == keys.canonical_json(
        {"a": [1, {"c": 3, "d": 2}], "b": 1}
    )
    assert keys.canonical_json({"b": "ü", "a": 1}) == '{"a":1,"b":"ü"}'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}])
def test_values_outside_json_are_refused(value: object):
    with pytest.raises(ValueError, match="not JSON compliant"):
        keys.canonical_json(value)


def test_names_that_are_not_utf8_have_ids():
    name = b"bad-\xff.tif".decode("utf-8", "surrogateescape")
    assert json.loads(keys.canonical_json({"name": name})) == {"name": name}
    assert keys.is_key(keys.slug(name))
    assert keys.make_id("qu", name) == keys.make_id("qu", name)


def test_ids_are_stable_and_depend_on_the_separation_of_parts():
    assert keys.make_id("mk", "sc-1", "w-1") == "mk-" + keys.sha256_of(b'["sc-1","w-1"]')[:20]
    assert keys.make_id("mk", "ab", "c") != keys.make_id("mk", "a", "bc")
    assert keys.make_id("mk", "a") != keys.make_id("mk", "a", "")
    assert keys.id_from_hash("sc", SHA) == "sc-ab" + "0" * 18
