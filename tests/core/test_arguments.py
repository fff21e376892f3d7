"""Doors: arguments are looked at by name and by annotation, and a function behind one stays what it was."""

import inspect
from collections.abc import Iterable
from typing import Annotated, Any, Literal

import numpy as np
import pytest

from celbo.core import ArgumentError, UnknownArgumentError, checked, checked_methods
from celbo.core.argument_names import NAMES
from celbo.core.kinds import REFUSED, AnyOf, Flag, Number, OneOf, Several, Text, Whole
from celbo.core.lookup import position_of


@checked
def asked(
    n_samples: int = 1,
    lr: float = 0.1,
    mode: Literal["vanilla", "change"] = "vanilla",
    *,
    soft: bool = False,
    n_layers: Annotated[int, Whole(0)] | None = 1,
    indices: Iterable[int] | None = None,
) -> dict[str, Any]:
    """What came through the door."""
    return {"n_samples": n_samples, "lr": lr, "mode": mode, "soft": soft, "n_layers": n_layers, "indices": indices}


class TestKinds:
    @pytest.mark.parametrize("value", [3, 3.0, np.int8(3), np.float32(3), np.array(3), np.array(3.0)])
    def test_whole_numbers_are_taken_as_such(self, value):
        taken = Whole(1).take(value)
        assert taken == 3
        assert type(taken) is int

    @pytest.mark.parametrize("value", [0, -1, 2.5, True, np.True_, "3", None, float("nan"), float("inf"), [3], 3j])
    def test_what_is_no_count(self, value):
        assert Whole(1).take(value) is REFUSED

    @pytest.mark.parametrize("value", [0, -1e-9, 1.5, float("nan"), True, "0.5", np.array([0.5])])
    def test_what_is_no_share(self, value):
        assert Number(0, 1, above=True).take(value) is REFUSED

    def test_bounds_belong_to_the_range_unless_left_out(self):
        assert Number(0, 1).take(0) == 0
        assert Number(0, 1).take(np.float64(1)) == 1
        assert Number(0, 1, below=True).take(1) is REFUSED

    @pytest.mark.parametrize(
        ("value", "taken"), [(True, True), (np.False_, False), (1, True), (0.0, False), (None, False)]
    )
    def test_flags(self, value, taken):
        assert Flag().take(value) is taken

    @pytest.mark.parametrize("value", ["yes", "False", 2, [], np.array([True])])
    def test_what_is_no_flag(self, value):
        assert Flag().take(value) is REFUSED

    def test_words_are_compared_by_value_and_type(self):
        assert OneOf((16, "32")).take(np.int64(16)) == 16
        assert OneOf((1, 2)).take(True) is REFUSED
        assert OneOf(("cpu", "cuda")).hint("CUDDA") == " Did you mean 'cuda'?"

    def test_several(self):
        assert Several(Number(0)).take(np.array([1.0, 2.0])) == [1.0, 2.0]
        assert Several(Number(0)).take(3) == 3
        assert Several(Number(0)).take([]) is REFUSED
        assert Several(Number(0)).take([1, -1]) is REFUSED

    def test_any_of(self):
        kind = AnyOf((OneOf(("latent",)), Number(0, above=True)))
        assert kind.wanted == "'latent' or a number greater than 0"
        assert [kind.take(one) for one in ("latent", 3.5)] == ["latent", 3.5]
        assert kind.take(0) is REFUSED

    def test_every_row_of_the_table_says_what_it_wants(self):
        assert all(kind.wanted for kind in NAMES.values())
        assert all(kind.take(object()) is REFUSED for kind in NAMES.values())


class TestDoor:
    def test_the_function_stays_what_it_was(self):
        assert list(inspect.signature(asked).parameters) == list(inspect.signature(inspect.unwrap(asked)).parameters)
        assert asked.__doc__ == "What came through the door."
        assert asked() == inspect.unwrap(asked)()

    def test_values_are_converted_by_place_and_by_name(self):
        came = asked(np.float64(2), np.float32(0.5), soft=1, n_layers=0.0)
        assert came == {"n_samples": 2, "lr": 0.5, "mode": "vanilla", "soft": True, "n_layers": 0, "indices": None}
        assert [type(came[name]) for name in ("n_samples", "lr", "soft", "n_layers")] == [int, float, bool, int]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"n_samples": 0}, "n_samples must be a whole number of at least 1, got 0"),
            ({"n_samples": None}, "n_samples must be"),
            ({"lr": float("nan")}, "lr must be a number of at least 0, got nan"),
            ({"mode": "chnge"}, "mode must be 'vanilla' or 'change', got 'chnge'. Did you mean 'change'"),
            ({"soft": "yes"}, "soft must be True or False, got 'yes'"),
            ({"n_layers": -1}, "n_layers must be a whole number of at least 0, or None, got -1"),
            ({"n_samples": np.ones((2, 3))}, r"n_samples must be .*, got an array of shape \(2, 3\)"),
        ],
    )
    def test_refusals_name_the_argument(self, given, said):
        with pytest.raises(ArgumentError, match=said) as caught:
            asked(**given)
        assert caught.value.argument == next(iter(given))
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, TypeError)

    def test_a_misspelt_keyword_is_refused_with_the_nearest(self):
        with pytest.raises(UnknownArgumentError, match=r"of asked is called 'n_sample'\. Did you mean 'n_samples'"):
            asked(n_sample=3)

    def test_names_along_the_way_are_all_known(self):
        @checked
        def inner(batch_size: int = 1) -> int:
            return batch_size

        @checked
        def outer(n_latent: int = 1, **kwargs: Any) -> int:
            return inner(**kwargs)

        assert outer(batch_size=2.0) == 2
        for typo, nearest in (("n_latnt", "n_latent"), ("batch_sise", "batch_size")):
            with pytest.raises(UnknownArgumentError, match=f"outer is called '{typo}'. Did you mean '{nearest}'"):
                outer(**{typo: 1})

    def test_keywords_that_a_function_without_a_door_does_not_know(self):
        def plain(units: int = 1) -> int:
            return units

        through = checked(lambda n_latent=1, **kwargs: plain(**kwargs))
        assert through(units=3) == 3
        with pytest.raises(UnknownArgumentError, match="Did you mean 'n_latent'"):
            through(n_latnt=1)

    def test_other_type_errors_pass(self):
        @checked
        def fails(n_latent: int = 1, **kwargs: Any) -> None:
            raise TypeError("something else")

        with pytest.raises(TypeError, match=r"^something else$"):
            fails(n_latnt=2)

    def test_methods_of_a_class(self):
        @checked_methods
        class Model:
            @classmethod
            def load(cls, dir_path: str) -> str:
                return f"{cls.__name__} {dir_path}"

            @staticmethod
            def count(n_samples: int) -> int:
                return n_samples

            def draw(self, n_samples: int = 1) -> int:
                return n_samples

            def _inside(self, n_samples: int) -> int:
                return n_samples

        assert Model.load("here") == "Model here"
        assert Model.count(2.0) == Model().draw(2.0) == 2
        assert Model()._inside(-1) == -1
        for call in (lambda: Model.load(3), lambda: Model.count(0), lambda: Model().draw(0)):
            with pytest.raises(ArgumentError):
                call()

    def test_a_name_that_means_something_else_follows_its_annotation(self):
        @checked
        def other(n_samples: str = "all", n_layers: list[int] | int = 1) -> object:
            return n_samples, n_layers

        assert other("none", [1, 2]) == ("none", [1, 2])

    def test_annotations_that_cannot_be_resolved_are_left_alone(self):
        def other(n_samples: "Nowhere", dof: "float | None" = 1.0) -> object:  # noqa: F821
            return n_samples

        assert checked(other)(3.0, None) == 3

    def test_methods_are_named_by_the_class_that_is_called(self):
        assert_named(lambda: Derived().ask(sft=True), "Derived.ask")
        assert_named(lambda: Derived.make(sft=True), "Derived.make")
        assert_named(lambda: Derived(sft=True), "Derived")
        assert_named(lambda: Base().ask(sft=True), "Base.ask")
        assert_named(lambda: asked(sft=True), "asked")

    def test_what_is_missing_is_said_of_that_class_too(self):
        with pytest.raises(TypeError, match=r"^Derived\.need\(\) missing 1 required positional argument: 'name'"):
            Derived().need()

    def test_help_shows_types_alone(self):
        assert inspect.signature(asked).parameters["n_layers"].annotation == int | None
        assert inspect.signature(asked).parameters["soft"].annotation is bool

    def test_text_alone_says_nothing(self):
        assert kinds_say_nothing("label", str)


def kinds_say_nothing(name: str, annotation: Any) -> bool:
    def function(**kwargs: Any) -> Any: ...

    function.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)]
    )
    return checked(function)(**{name: 3}) is None


@checked_methods
@checked
class Base:
    def __init__(self, soft: bool = False) -> None:
        self.soft = soft

    def ask(self, soft: bool = False) -> bool:
        return soft

    def need(self, name: str) -> str:
        return name

    @classmethod
    def make(cls, soft: bool = False) -> "Base":
        return cls(soft)


class Derived(Base):
    pass


def assert_named(call, name):
    with pytest.raises(UnknownArgumentError, match=f"No argument of {name} is called 'sft'"):
        call()


class TestCategories:
    @pytest.mark.parametrize(
        ("given", "known"),
        [
            ("1", [0, 1]),
            (1, ["0", "1"]),
            (1.0, ["0", "1"]),
            (np.int64(1), [0, 1]),
            (np.str_("b"), ["a", "b"]),
            ("1", [0.0, 1.0]),
        ],
    )
    def test_by_value_and_by_text(self, given, known):
        assert position_of(given, known, "group") == 1

    def test_the_value_wins_over_the_text(self):
        assert position_of("1", [1, "1"], "group") == 1
        assert position_of(1, ["1", 1], "group") == 1

    @pytest.mark.parametrize(("given", "known"), [(True, [0, 1]), (1, [False, True]), (3, ["0", "1"]), (None, ["a"])])
    def test_unknown_ones_are_refused_with_their_types(self, given, known):
        with pytest.raises(ValueError, match=r"No group is called .* They are of type \w+, this is of type \w+\."):
            position_of(given, known, "group")

    def test_arrays_are_no_category(self):
        with pytest.raises(ValueError, match="No group is called"):
            position_of(np.array([1, 2]), ["a"], "group")


def test_text_kind():
    assert Text().take("a") == "a"
    assert Text().take(1) is REFUSED
