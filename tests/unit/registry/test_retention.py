"""Whatever a registry looks like: what an alias or a release that stays needs is never among what goes."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from adapterctl.registry.retention import Doomed, Kept, Plan, Ref, kept

NAMES = ("p-de", "p-ja", "p-merged", "p-combined")


class Graph(NamedTuple):
    there: dict[str, list[int]]
    links: dict[Ref, list[Ref]]
    roots: dict[Ref, str]
    keep: int


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any registry: numbers with gaps, links to what is gone, rings, aliases of anything."""
    there = {name: draw(st.lists(st.integers(1, 12), unique=True, max_size=8)) for name in NAMES}
    anything = st.tuples(st.sampled_from((*NAMES, "p-gone")), st.integers(1, 13))
    refs = [(name, number) for name, numbers in there.items() for number in numbers]
    links = {ref: draw(st.lists(anything, max_size=4)) for ref in refs}
    roots = draw(st.dictionaries(anything, st.just("champion"), max_size=4))
    return Graph(there, links, roots, draw(st.integers(1, 5)))


def stay_by_definition(graph: Graph) -> set[Ref]:
    """The same, as it is written in the manual: grow a set until nothing is added any more."""
    every = {(name, number) for name, numbers in graph.there.items() for number in numbers}
    staying = {ref for ref in every if ref in graph.roots}
    for ref in every:
        newer = [number for number in graph.there[ref[0]] if number > ref[1]]
        if len(newer) < graph.keep:
            staying.add(ref)
    while True:
        more = {part for ref in staying for part in graph.links[ref]} & every
        if more <= staying:
            return staying
        staying |= more


@settings(deadline=None)
@given(graphs())
def test_what_stays_is_what_the_manual_says(graph: Graph) -> None:
    found = kept(graph.there, lambda ref: graph.links[ref], graph.roots, graph.keep)
    assert set(found) == stay_by_definition(graph)
    assert all(found.values())


@settings(deadline=None)
@given(graphs())
def test_nothing_that_stays_loses_a_part(graph: Graph) -> None:
    found = kept(graph.there, lambda ref: graph.links[ref], graph.roots, graph.keep)
    going = {(name, number) for name, numbers in graph.there.items() for number in numbers} - set(found)
    assert not {part for ref in found for part in graph.links[ref]} & going
    assert not set(graph.roots) & going


@settings(deadline=None)
@given(graphs())
def test_who_keeps_more_deletes_no_other_version(graph: Graph) -> None:
    fewer = kept(graph.there, lambda ref: graph.links[ref], graph.roots, graph.keep)
    more = kept(graph.there, lambda ref: graph.links[ref], graph.roots, graph.keep + 1)
    assert set(fewer) <= set(more)


def test_the_reason_is_told() -> None:
    links = {("p-merged", 1): [("p-ja", 1)], ("p-merged", 2): [("p-ja", 2)]}
    found = kept(
        {"p-ja": [1, 2, 3], "p-merged": [1, 2]}, lambda ref: links.get(ref, []), {("p-merged", 1): "previous"}, 1
    )
    assert found == {
        ("p-merged", 1): "previous",
        ("p-merged", 2): "the newest",
        ("p-ja", 1): "part of p-merged v1",
        ("p-ja", 2): "part of p-merged v2",
        ("p-ja", 3): "the newest",
    }


def test_a_plan_is_named_by_what_would_go() -> None:
    one, other = (Doomed("p-ja", number, f"m-{number}", "", 10 * number, "old") for number in (1, 2))
    plan = Plan(1, (one, other), (Kept("p-ja", 3, "the newest"),))
    assert plan.bytes == 30
    assert plan.id == Plan(1, (one, other), ()).id
    assert len({plan.id, Plan(1, (one,), ()).id, Plan(2, (one, other), ()).id}) == 3
