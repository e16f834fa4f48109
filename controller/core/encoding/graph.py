"""Graphs of keys: what goes before what. Without recursion, and the same for the same graph.

A graph maps each key to those that it points at; what is pointed at without an entry of its own is
no part of it. What files say is checked for cycles, what is remembered of them may have some:
nothing here ever fails because of one.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping

from controller.model.names import Key

Graph = Mapping[Key, Collection[Key]]


def reverse(graph: Graph) -> dict[Key, set[Key]]:
    """Return the graph with every edge turned round."""
    result: dict[Key, set[Key]] = {key: set() for key in graph}
    for key, pointed in graph.items():
        for other in pointed:
            if other in result:
                result[other].add(key)
    return result


def cycles(graph: Graph) -> tuple[frozenset[Key], ...]:
    """Return the groups of keys that all lead to one another; a key that points at itself is one.

    By Kosaraju: what a walk leaves last is in a group with all that leads to it and isn't in one.
    """
    left = list(_walk(graph, sorted(graph), set()))
    back, seen, groups = reverse(graph), set[Key](), list[frozenset[Key]]()
    for start in reversed(left):
        if start in seen:
            continue
        group = frozenset(_walk(back, [start], seen))
        if len(group) > 1 or start in graph[start]:
            groups.append(group)
    return tuple(groups)


def _walk(graph: Graph, roots: Iterable[Key], seen: set[Key]) -> Iterator[Key]:
    """Yield what is reached from *roots* and wasn't *seen*, each when the walk leaves it."""
    for root in roots:
        if root in seen:
            continue
        seen.add(root)
        path = [(root, iter(sorted(graph[root])))]
        while path:
            key, pointed = path[-1]
            onward = next((k for k in pointed if k in graph and k not in seen), None)
            if onward is None:
                path.pop()
                yield key
            else:
                seen.add(onward)
                path.append((onward, iter(sorted(graph[onward]))))


def shortest_path(graph: Graph, start: Key, goal: Key) -> tuple[Key, ...]:
    """Return the shortest way over one edge or more, both ends with it; () if there is none."""
    came_from: dict[Key, Key] = {}
    ahead = deque([start])
    while ahead:
        key = ahead.popleft()
        for onward in sorted(graph.get(key, ())):
            if onward in came_from:
                continue
            came_from[onward] = key
            if onward == goal:
                return _traced(came_from, start, goal)
            ahead.append(onward)
    return ()


def _traced(came_from: Mapping[Key, Key], start: Key, goal: Key) -> tuple[Key, ...]:
    path = [goal, came_from[goal]]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))


def topological_order(graph: Graph) -> list[Key]:
    """Return the keys, what each points at before it, and by name where nothing says otherwise.

    Of those that wait for one another in a circle the first by name goes first.
    """
    waits = {key: {k for k in pointed if k in graph} - {key} for key, pointed in graph.items()}
    back = reverse(graph)
    ready = [key for key, others in waits.items() if not others]
    heapq.heapify(ready)
    done: dict[Key, None] = {}
    circling = iter(sorted(graph))
    while len(done) < len(graph):
        key = heapq.heappop(ready) if ready else next(k for k in circling if k not in done)
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
    """Return the keys in groups: what a key points at is in a later one (but in a circle)."""
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
