"""Several images in one request equal single requests. How long both take depends on the machine's other load."""

from loadtest.batch import LARGEST_RATIO, compare, problems
from serving.supervisor import TorchServe


def test_images_in_one_request_get_the_answers_that_they_get_alone(server: TorchServe) -> None:
    report = compare(server.url, count=16, rounds=1)
    assert problems({**report, "ratio": 1}) == []
    assert report["damaged_image"] == "image_unreadable"
    assert report["seconds_in_one_request"] > 0


def test_each_problem_is_named() -> None:
    good = {
        "ratio": LARGEST_RATIO,
        "largest_difference_of_a_logit": 0,
        "largest_difference_beside_a_damaged_image": 0,
    }
    assert problems(good) == []
    assert len(problems({name: value + 0.01 for name, value in good.items()})) == 3
