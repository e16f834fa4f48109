"""How a world ends when an invariant doesn't hold."""

from __future__ import annotations


class Violation(BaseException):
    """An invariant doesn't hold; nothing of the product's may catch this.

    Invariant 0 stands for what none of them says and all take for granted: a pass doesn't raise;
    13 for what people hold by hand, 14 for the order among services, 16 for promptness,
    17 for the addresses of slots, 18 for what the forms of the status say.
    """

    def __init__(self, invariant: int, what: str) -> None:
        super().__init__(f"invariant {invariant}: {what}")
        self.invariant = invariant
        self.what = what
