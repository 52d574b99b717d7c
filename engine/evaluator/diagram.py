"""Decision diagrams: the one intermediate form. A slice of a pack is a finite function, and a reduced ordered diagram holds it exactly.

A node tests one variable and has a child for each of its values. Most values of a large variable lead to the same place, so a node stores the child
of the *last* value as its default and only the values whose child differs: with that convention the form is canonical, and a variable of ten thousand
values costs what it distinguishes. Nodes are hash-consed: the same function has the same number. Leaves are numbers below zero.

Bryant, "Graph-Based Algorithms for Boolean Function Manipulation", IEEE ToC 1986; Srinivasan et al., "Algorithms for Discrete Function Manipulation",
ICCAD 1990 (multi-valued); Rudell, "Dynamic Variable Ordering for OBDDs", ICCAD 1993 (sifting).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

NONE = -1
"""The leaf of "nothing decided yet", and of a condition that does not hold."""
HOLDS = -2
"""The leaf of a condition that holds."""


WIDE = 16
"""A variable with more values than this stays where it is when others are sifted: to move it costs a node for each value."""


class BudgetExceeded(Exception):
    """More nodes than the budget allows."""


class Node(msgspec.Struct, frozen=True, gc=False):
    """Tests `variable`: a value in `others` leads to its child there, any other value to `default`.

    A struct because hundreds of thousands are made and looked up: the French pack takes 0.85 seconds, 1.35 with a dataclass.
    """

    variable: int
    default: int
    others: tuple[tuple[int, int], ...]

    def child(self, value: int) -> int:
        return dict(self.others).get(value, self.default)


FORGOTTEN = Node(-1, NONE, ())


class Store:
    """Hash-consed nodes over variables with `sizes[v]` values each, tested in the order `order` (a list of variables, the first on top).

    Every operation returns a node number, or a leaf below zero. A number means the same function for ever, also after `sift`.
    """

    def __init__(self, sizes: Sequence[int], budget: int = 200_000):
        self.sizes = tuple(sizes)
        self.order = list(range(len(sizes)))
        self.level = list(range(len(sizes)))
        self.budget = budget
        self.nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self._by_variable: list[set[int]] = [set() for _ in sizes]
        self._made: dict[tuple[str, int, int], int] = {}
        self._parents: dict[int, int] = {}  # how many nodes and roots lead to a node; kept while sifting only
        self._sifting = False

    # --- making nodes ---

    def node(self, variable: int, children: Mapping[int, int], default: int) -> int:
        """The node that tests `variable`, `default` being the child of its last value and of every value not in `children`."""
        return self._node(variable, default, [(v, c) for v, c in sorted(children.items()) if c != default])

    def _node(self, variable: int, default: int, others: Iterable[tuple[int, int]]) -> int:
        others = tuple(others)
        if not others:
            return default
        made = Node(variable, default, others)
        number = self._numbers.get(made)
        if number is None:
            number = len(self.nodes)
            if len(self._numbers) >= self.budget and not self._sifting:  # a swap may pass through a larger diagram, and must not stop halfway
                raise BudgetExceeded
            self.nodes.append(made)
            self._numbers[made] = number
            self._by_variable[variable].add(number)
            if self._sifting:
                self._link(made)
        return number

    def test(self, variable: int, values: Iterable[int], yes: int = HOLDS, no: int = NONE) -> int:
        """The condition that `variable` has one of these values."""
        wanted = set(values)
        last = self.sizes[variable] - 1
        if last in wanted:
            return self.node(variable, dict.fromkeys(set(range(last)) - wanted, no), yes)
        return self.node(variable, dict.fromkeys(wanted, yes), no)

    # --- combining ---

    def _apply(self, name: str, terminal: Callable[[int, int], int | None], a: int, b: int) -> int:
        done = terminal(a, b)
        if done is not None:
            return done
        key = (name, a, b)
        made = self._made.get(key)
        if made is not None:
            return made
        top_a = self.level[self.nodes[a].variable] if a >= 0 else len(self.order)
        top_b = self.level[self.nodes[b].variable] if b >= 0 else len(self.order)
        variable = self.order[min(top_a, top_b)]
        default_a, others_a = (self.nodes[a].default, dict(self.nodes[a].others)) if top_a <= top_b else (a, {})
        default_b, others_b = (self.nodes[b].default, dict(self.nodes[b].others)) if top_b <= top_a else (b, {})
        default = self._apply(name, terminal, default_a, default_b)
        others = []
        for value in sorted(others_a.keys() | others_b.keys()):
            child = self._apply(name, terminal, others_a.get(value, default_a), others_b.get(value, default_b))
            if child != default:
                others.append((value, child))
        made = self._node(variable, default, others)
        self._made[key] = made
        return made

    def both(self, a: int, b: int) -> int:
        """Where `a` holds, what `b` says; otherwise NONE. For conditions: and."""
        return self._apply("both", lambda x, y: y if x == HOLDS else NONE if NONE in (x, y) else None, a, b)

    def first(self, a: int, b: int) -> int:
        """What `a` decides; where it decides nothing, what `b` does. For conditions: or."""
        return self._apply("first", lambda x, y: y if x == NONE else x if x < 0 or y == NONE else None, a, b)

    def negate(self, a: int) -> int:
        """Not, of a condition."""
        return self._apply("unless", lambda x, y: y if x == NONE else NONE if x < 0 else None, a, HOLDS)

    def unless(self, a: int, b: int) -> int:
        """What `b` says where the condition `a` does not hold; otherwise NONE."""
        return self._apply("unless", lambda x, y: y if x == NONE else NONE if x < 0 or y == NONE else None, a, b)

    def pairs(self, a: int, b: int, leaf: Callable[[int, int], int], name: str) -> int:
        """A diagram whose leaf, in every situation, is `leaf(leaf of a, leaf of b)`. `name` tells this combination from others."""
        return self._apply(name, lambda x, y: leaf(x, y) if x < 0 and y < 0 else None, a, b)

    def map_leaves(self, a: int, leaf: Callable[[int], int]) -> int:
        """The same diagram with other leaves."""
        made: dict[int, int] = {}

        def walk(n: int) -> int:
            if n < 0:
                return leaf(n)
            if n not in made:
                node = self.nodes[n]
                made[n] = self.node(node.variable, {v: walk(c) for v, c in node.others}, walk(node.default))
            return made[n]

        return walk(a)

    def restrict(self, a: int, fixed: Mapping[int, int]) -> int:
        """The function left when some variables have these values."""
        made: dict[int, int] = {}

        def walk(n: int) -> int:
            if n < 0:
                return n
            if n not in made:
                node = self.nodes[n]
                if node.variable in fixed:
                    made[n] = walk(node.child(fixed[node.variable]))
                else:
                    made[n] = self.node(node.variable, {v: walk(c) for v, c in node.others}, walk(node.default))
            return made[n]

        return walk(a)

    # --- asking ---

    def value(self, a: int, values: Sequence[int]) -> int:
        """The leaf in one situation, given as a value for each variable."""
        while a >= 0:
            node = self.nodes[a]
            a = node.child(values[node.variable])
        return a

    def reachable(self, *roots: int) -> list[int]:
        """Every node under the roots, each after its children."""
        seen: set[int] = set()
        found: list[int] = []

        def walk(n: int) -> None:
            if n < 0 or n in seen:
                return
            seen.add(n)
            for child in self.children(n):
                walk(child)
            found.append(n)

        for root in roots:
            walk(root)
        return found

    def children(self, n: int) -> Iterator[int]:
        node = self.nodes[n]
        yield from (child for _, child in node.others)
        yield node.default

    def support(self, *roots: int) -> list[int]:
        """The variables that the functions depend on, in the order they are tested."""
        used = {self.nodes[n].variable for n in self.reachable(*roots)}
        return [variable for variable in self.order if variable in used]

    def leaves(self, a: int) -> set[int]:
        """Every leaf that some situation reaches."""
        return {child for n in self.reachable(a) for child in self.children(n) if child < 0} or {a}

    def count(self, a: int, over: Iterable[int]) -> dict[int, int]:
        """In how many situations over the variables `over` (which hold the support) each leaf is reached."""
        among = [variable for variable in self.order if variable in set(over)]
        place = {variable: index for index, variable in enumerate(among)}
        sizes = [self.sizes[variable] for variable in among]

        def span(start: int, end: int) -> int:
            product = 1
            for size in sizes[start:end]:
                product *= size
            return product

        def at(n: int) -> int:
            return place[self.nodes[n].variable] if n >= 0 else len(among)

        counts: dict[int, dict[int, int]] = {}
        for n in self.reachable(a):
            node, total = self.nodes[n], {}
            here = at(n)
            rest = self.sizes[node.variable] - len(node.others)
            for weight, child in [*((1, child) for _, child in node.others), (rest, node.default)]:
                skipped = weight * span(here + 1, at(child))
                for leaf, number in (counts[child] if child >= 0 else {child: 1}).items():
                    total[leaf] = total.get(leaf, 0) + skipped * number
            counts[n] = total
        top = span(0, at(a))
        return {leaf: number * top for leaf, number in (counts[a] if a >= 0 else {a: 1}).items()}

    def find(self, a: int, wanted: Callable[[int], bool]) -> dict[int, int] | None:
        """A situation, as values of the variables that matter, that reaches a wanted leaf; nothing when none does. Prefers default values."""
        good = {n: False for n in ()}
        for n in self.reachable(a):
            good[n] = any(good[c] if c >= 0 else wanted(c) for c in self.children(n))
        if not (good[a] if a >= 0 else wanted(a)):
            return None
        found: dict[int, int] = {}
        while a >= 0:
            node = self.nodes[a]
            taken = [v for v, _ in node.others]
            free = next(v for v in reversed(range(self.sizes[node.variable])) if v not in taken)
            choices = [*node.others, (free, node.default)]
            value, a = next((v, c) for v, c in choices if (good[c] if c >= 0 else wanted(c)))
            found[node.variable] = value
        return found

    def paths(self, a: int) -> Iterator[tuple[dict[int, int], int]]:
        """One situation for each path to a leaf: the values of the variables tested on it, and the leaf."""

        def walk(n: int, taken: dict[int, int]) -> Iterator[tuple[dict[int, int], int]]:
            if n < 0:
                yield dict(taken), n
                return
            node = self.nodes[n]
            special = {v for v, _ in node.others}
            free = next(v for v in range(self.sizes[node.variable]) if v not in special)
            for value, child in [*node.others, (free, node.default)]:
                taken[node.variable] = value
                yield from walk(child, taken)
                del taken[node.variable]

        yield from walk(a, {})

    # --- order ---

    def sift(self, *roots: int, work: int = 400_000) -> None:
        """Move each variable to the place where the diagrams under the roots are smallest (Rudell 1993), those with most nodes first.

        Variables of more than WIDE values, all above or all below the others, stay. Stops after `work` children looked at: a better order is worth seconds,
        not minutes. Nodes under the roots keep their numbers; all others are forgotten.
        """
        self._start_sifting(roots)
        narrow = [level for level, v in enumerate(self.order) if self.sizes[v] <= WIDE]
        lowest, highest = max(narrow, default=0), min(narrow, default=0)
        for variable in sorted(self.support(*roots), key=lambda v: -len(self._by_variable[v])):
            best, best_at = len(self._numbers), self.level[variable]
            start = best_at
            if self.sizes[variable] > WIDE:
                continue
            for end, step in ((lowest, 1), (highest, -1)):
                while self.level[variable] != end and work > 0:
                    work -= self._swap(min(self.level[variable], self.level[variable] + step))
                    size = len(self._numbers)
                    if size < best:
                        best, best_at = size, self.level[variable]
                    elif size > best * 1.2 + 4:
                        break
                if step == 1:
                    self._move(variable, start)
            self._move(variable, best_at)
            if work <= 0:
                break
        self._sifting = False

    def forget_all_but(self, *roots: int) -> set[int]:
        """Make room: only what is under the roots keeps its numbers, which are returned."""
        self._made.clear()
        live = set(self.reachable(*roots))
        for numbers in self._by_variable:
            for n in numbers - live:
                numbers.discard(n)
                del self._numbers[self.nodes[n]]
                self.nodes[n] = FORGOTTEN
        return live

    def _start_sifting(self, roots: tuple[int, ...]) -> None:
        """Forget every node that is not under the roots, and count who leads to the others."""
        live = self.forget_all_but(*roots)
        self._parents = dict.fromkeys(live, 0)
        self._sifting = True
        for n in live:
            self._link(self.nodes[n])
        for root in roots:
            self._parents[root] = self._parents.get(root, 0) + 1

    def _link(self, node: Node) -> None:
        parents, child = self._parents, node.default
        parents[child] = parents.get(child, 0) + 1
        for _, child in node.others:
            parents[child] = parents.get(child, 0) + 1

    def _unlink(self, node: Node) -> None:
        """Take back what `_link` counted; a node that nothing leads to any more is forgotten."""
        parents = self._parents
        for child in (node.default, *(child for _, child in node.others)):
            parents[child] = left = parents[child] - 1
            if child >= 0 and not left:
                gone = self.nodes[child]
                self._by_variable[gone.variable].discard(child)
                del self._numbers[gone]
                self._unlink(gone)

    def _move(self, variable: int, place: int) -> None:
        while self.level[variable] != place:
            self._swap(self.level[variable] - (self.level[variable] > place))

    def _swap(self, place: int) -> int:
        """Exchange two neighbouring variables in place: each upper node that sees the lower one becomes a node of the lower, of the same number.

        Returns the work done.
        """
        upper, lower = self.order[place], self.order[place + 1]
        nodes, work = self.nodes, 1
        for n in list(self._by_variable[upper]):
            node = nodes[n]
            below = [node.default, *(c for _, c in node.others)]
            work += len(below)
            seen = [c >= 0 and nodes[c].variable == lower for c in below]
            if True not in seen:
                continue
            # what each child leads to by the value of the lower variable: the exceptions, and where all other values lead
            leads = [(dict(nodes[c].others), nodes[c].default) if sees else ({}, c) for c, sees in zip(below, seen, strict=True)]
            own = [v for v, _ in node.others]
            del self._numbers[node]
            self._by_variable[upper].discard(n)
            default = self._upper(upper, own, [otherwise for _, otherwise in leads])
            others = []
            for value in sorted({value for exceptions, _ in leads for value in exceptions}):
                child = self._upper(upper, own, [exceptions.get(value, otherwise) for exceptions, otherwise in leads])
                if child != default:
                    others.append((value, child))
            made = Node(lower, default, tuple(others))
            self.nodes[n] = made
            self._numbers[made] = n
            self._by_variable[lower].add(n)
            self._link(made)
            self._unlink(node)
        self.order[place], self.order[place + 1] = lower, upper
        self.level[upper], self.level[lower] = place + 1, place
        return work

    def _upper(self, variable: int, values: Sequence[int], children: Sequence[int]) -> int:
        """The node whose first child is the default, and the others those of `values`."""
        default, *rest = children
        return self._node(variable, default, [(v, c) for v, c in zip(values, rest, strict=True) if c != default])
