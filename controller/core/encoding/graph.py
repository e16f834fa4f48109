"""Directed graphs of keys: cycles, paths and orders, without recursion and deterministic.

A graph maps each key to the keys that its edges lead to. A target without an entry of its own is
not part of the graph. Remembered graphs can have cycles, because only files are checked for cycles.
No function here fails on a cycle.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from controller.model.names import Key

Graph = Mapping[Key, Collection[Key]]


def reverse(graph: Graph) -> dict[Key, set[Key]]:
    """Return the graph with every edge reversed."""
    result: dict[Key, set[Key]] = {key: set() for key in graph}
    for key, targets in graph.items():
        for other in targets:
            if other in result:
                result[other].add(key)
    return result


def cycles(graph: Graph) -> tuple[frozenset[Key], ...]:
    """Return the strongly connected groups of keys, and each key with an edge to itself.

    Kosaraju's algorithm: the last key of a depth-first walk is in one group with all keys that lead
    to it and are in no group yet.
    """
    sources = sorted(key for key, targets in graph.items() if targets)
    postorder = list(_walk(graph, sources, set()))
    back, seen, groups = reverse(graph), set[Key](), list[frozenset[Key]]()
    for start in reversed(postorder):
        if start in seen:
            continue
        group = frozenset(_walk(back, [start], seen))
        if len(group) > 1 or start in graph[start]:
            groups.append(group)
    return tuple(groups)


def _walk(graph: Graph, roots: Iterable[Key], seen: set[Key]) -> Iterator[Key]:
    """Yield the keys reachable from *roots* in depth-first postorder, except those *seen*.

    Adds the keys to *seen*.
    """
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        path = [(root, iter(sorted(graph[root])))]
        while path:
            key, targets = path[-1]
            onward = next((k for k in targets if k in graph and k not in seen), None)
            if onward is None:
                path.pop()
                yield key
            else:
                seen.add(onward)
                path.append((onward, iter(sorted(graph[onward]))))


def shortest_path(graph: Graph, start: Key, goal: Key) -> tuple[Key, ...]:
    """Return the shortest path of one edge or more, with both ends; () if there is none.

    With *start* equal to *goal*, this is the shortest cycle through the key.
    """
    came_from: dict[Key, Key] = {}
    ahead = deque([start])
    while ahead:
        key = ahead.popleft()
        for onward in sorted(graph.get(key, ())):
            if onward in came_from:
                continue
            came_from[onward] = key
            if onward == goal:
                return _trace_path(came_from, start, goal)
            ahead.append(onward)
    return ()


def _trace_path(came_from: Mapping[Key, Key], start: Key, goal: Key) -> tuple[Key, ...]:
    path = [goal, came_from[goal]]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))


def topological_order(graph: Graph) -> list[Key]:
    """Return the keys, each after the targets of its edges, otherwise by name.

    Of the keys in a cycle, the first by name comes first.
    """
    waits = {key: {k for k in targets if k in graph} - {key} for key, targets in graph.items()}
    back = reverse(graph)
    ready = [key for key, others in waits.items() if not others]
    heapq.heapify(ready)
    done: dict[Key, None] = {}
    by_name = iter(sorted(graph))
    while len(done) < len(graph):
        key = heapq.heappop(ready) if ready else next(k for k in by_name if k not in done)
        if key in done:
            continue
        done[key] = None
        # Not `back[key] - done.keys()`: that looks at all of `done`, for each key.
        for other in back[key]:
            if other in done:
                continue
            waits[other].discard(key)
            if not waits[other]:
                heapq.heappush(ready, other)
    return list(done)


def waves(graph: Graph) -> tuple[tuple[Key, ...], ...]:
    """Return the keys in groups: the targets of a key's edges are in later groups.

    Within a cycle this does not hold.
    """
    level: dict[Key, int] = {}
    groups: list[list[Key]] = []
    back = reverse(graph)
    for key in reversed(topological_order(graph)):
        number = 1 + max((level[other] for other in back[key] if other in level), default=-1)
        level[key] = number
        if number == len(groups):
            groups.append([])
        groups[number].append(key)
    return tuple(tuple(sorted(group)) for group in groups)
