from handler.isolation import together_or_alone


def run(items: list[int]) -> tuple[list[list[int]], dict[int, str]]:
    """The batches that were done, where negative numbers fail, and the failures."""
    done: list[list[int]] = []
    failures: dict[int, str] = {}

    def work(batch: object) -> None:
        numbers = list(batch)  # type: ignore[call-overload]
        if min(numbers) < 0:
            raise ValueError(f"{min(numbers)}")
        done.append(numbers)

    together_or_alone(items, work, lambda item, error: failures.update({item: str(error)}))
    return done, failures


def test_good_items_are_done_together() -> None:
    assert run([1, 2, 3]) == ([[1, 2, 3]], {})


def test_a_bad_item_fails_alone() -> None:
    assert run([1, -2, 3, -4]) == ([[1], [3]], {-2: "-2", -4: "-4"})
    assert run([-1]) == ([], {-1: "-1"})


def test_without_items_there_is_no_work() -> None:
    assert run([]) == ([], {})
