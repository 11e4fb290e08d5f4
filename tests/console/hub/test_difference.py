"""Changes of views: whatever two views are, the change turns one into the other, and holds nothing that stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundfault.console.hub.difference import applied, difference

ROWS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 3)).flatmap(
    lambda rows: st.permutations(list(rows)).map(lambda order: [{"id": name, "n": rows[name]} for name in order])
)
VIEWS = st.fixed_dictionaries(
    {
        "sequence": st.integers(0, 5),
        "made_at": st.floats(0, 5),
        "headline": st.fixed_dictionaries({"words": st.sampled_from("xyz")}),
        "unknown": st.lists(st.sampled_from("xyz"), max_size=2),
        "commands": ROWS,
    }
)


@given(VIEWS, VIEWS)
def test_a_change_turns_the_old_view_into_the_new_one(old, new):
    assert applied(old, difference(old, new)) == new


@given(VIEWS)
def test_of_what_stays_nothing_is_said(view):
    assert difference(view, {**view, "sequence": 9}) == {"sequence": 9, "made_at": view["made_at"]}


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("ab", "abc", {"set": ["c"]}),
        ("abc", "ac", {"gone": ["b"]}),
        ("ab", "ba", {"order": ["b", "a"]}),
        ("ab", "cab", {"set": ["c"], "order": ["c", "a", "b"]}),
        ("ab", "cd", {"set": ["c", "d"], "gone": ["a", "b"]}),
    ],
)
def test_the_order_is_said_only_where_it_is_another(before, after, change):
    old, new = ({"sequence": 1, "made_at": 1.0, "commands": [{"id": name} for name in ids]} for ids in (before, after))
    said = difference(old, new)["commands"]
    if "set" in said:
        said["set"] = [row["id"] for row in said["set"]]
    assert said == change
