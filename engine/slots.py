"""Places in a worker's tables of state, by number: those that were given back are taken first."""


class Slots:
    def __init__(self) -> None:
        self._free: list[int] = []
        self._made = 0

    def take(self) -> int:
        if self._free:
            return self._free.pop()
        self._made += 1
        return self._made - 1

    def give_back(self, slot: int) -> None:
        self._free.append(slot)
