import copy
import pickle

import pytest

from celbo.data import attrdict


def test_attributes_are_keys_and_nested_only_when_asked():
    plain = attrdict({"a": {"b": 1}})
    assert plain.a == {"b": 1}
    assert type(plain.a) is dict
    assert attrdict({"a": {"b": 1}}, recursive=True).a.b == 1


def test_missing_attribute_names_the_nearest():
    with pytest.raises(AttributeError, match="Did you mean 'n_batch'"):
        _ = attrdict({"n_batch": 2, "n_vars": 3}).n_bach
    assert getattr(attrdict({}), "x", None) is None


def test_attributes_cannot_be_set():
    with pytest.raises(AttributeError, match="does not change it"):
        attrdict({"a": 1}).a = 2


def test_copies_and_pickles():
    stats = attrdict({"a": 1, "b": {"c": 2}}, recursive=True)
    for other in (copy.deepcopy(stats), copy.copy(stats), pickle.loads(pickle.dumps(stats))):
        assert other == stats
        assert isinstance(other, attrdict)
