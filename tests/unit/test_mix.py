"""The filters of a mixture's component: what passes, in which order, what is told of the rest."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.mix import MIX, MixParams
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.chat.conversations import ConversationFile, ConversationWriter
from tulu_pipeline.chat.draw import draw
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.mixing.language import language_of
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings

CONTEXT = RunContext(profile=Profile(), settings=read_settings())
ENGLISH = "Please tell me how the birds in our garden find so many worms after the rain."
FRENCH = "Dites-moi s'il vous plaît comment les oiseaux de notre jardin trouvent tant de vers après la pluie."
GERMAN = "Bitte sag mir, wie die Vögel in unserem Garten nach dem Regen so viele Würmer finden."


def row(number: int, asked: str, answered: str = "", license_: str = "", language: str = "") -> Conversation:
    messages = (Message("user", asked), Message("assistant", answered))
    return Conversation("birds", f"birds_{number}", messages, license_, language)


@pytest.fixture
def mix(tmp_path: Path) -> Callable[..., tuple[list[Conversation], list[dict[str, str]], Mapping[str, Any]]]:
    """Runs the stage: (what is kept, the rows of dropped.jsonl, metrics)."""

    def run(rows: list[Conversation], ctx: RunContext = CONTEXT, **params: Any) -> Any:
        number = len(list(tmp_path.iterdir()))
        folder, out = tmp_path / f"in{number}", tmp_path / f"out{number}"
        folder.mkdir()
        out.mkdir()
        with ConversationWriter(folder) as writer:
            for each in rows:
                writer.write(each)
        job = Job(
            name="mix[x/birds]",
            params=MixParams(**{"dataset": "birds", "cap": None} | params),
            inputs={"conversations": folder},
            sources={},
            out=out,
            work=tmp_path / f"work{number}",
            publish=lambda metrics: None,
        )
        metrics = MIX.run(job, ctx)  # type: ignore[arg-type]  # not a batch stage
        lines = (out / "aux" / "dropped.jsonl").read_text().splitlines()
        return list(ConversationFile(out)), [json.loads(line) for line in lines], metrics

    return run


def test_each_row_left_out_is_told_with_its_reason_and_counted_by_kind(mix: Any) -> None:
    rows = [
        row(0, ENGLISH, "In the wet soil."),
        row(1, "Hello?", license_="CC-BY-NC-4.0"),
        row(2, FRENCH),
        row(3, f" {ENGLISH}\n", "In the wet soil. "),
        row(4, ENGLISH, "By their ears."),
        row(5, ENGLISH, "By their ears."),
        row(6, "2 + 2 =", "4"),
    ]
    kept, dropped, metrics = mix(rows, licenses=("mit",), dataset_license="MIT", languages=("en",), deduplicate="exact")
    assert [each.id for each in kept] == ["birds_0", "birds_4"]
    assert [(each["row_id"], each["where"], each["reason"]) for each in dropped] == [
        ("birds_1", "conversations.parquet, row 1", "license CC-BY-NC-4.0"),
        ("birds_2", "conversations.parquet, row 2", "language fr"),
        ("birds_3", "conversations.parquet, row 3", "duplicate of birds_0"),
        ("birds_5", "conversations.parquet, row 5", "duplicate of birds_4"),
        ("birds_6", "conversations.parquet, row 6", "language uncertain"),
    ]
    assert dropped[1]["text"] == FRENCH
    assert metrics == {
        "rows": 7,
        "kept": 2,
        "cap": None,
        "note": "",
        "dropped": 5,
        "dropped_by_reason": {
            "license CC-BY-NC-4.0": 1,
            "language fr": 1,
            "duplicate": 2,
            "language uncertain": 1,
        },
        "not_drawn": 0,
    }


def test_what_is_nearly_the_same_names_the_one_that_stays(mix: Any) -> None:
    rows = [row(0, ENGLISH * 4), row(1, "Something else."), row(2, ENGLISH * 4, "Indeed.")]
    kept, dropped, metrics = mix(rows, deduplicate="near")
    assert [each.id for each in kept] == ["birds_0", "birds_1"]
    (left_out,) = dropped
    assert left_out["reason"].startswith("nearly the same as birds_0 (0.")
    assert metrics["dropped_by_reason"] == {"nearly the same": 1}


def test_a_row_that_another_filter_leaves_out_makes_none_a_duplicate(mix: Any) -> None:
    rows = [row(0, ENGLISH, license_="MIT"), row(1, ENGLISH, license_="Apache-2.0"), row(2, ENGLISH)]
    kept, _, metrics = mix(rows, licenses=("Apache-2.0",), deduplicate="exact")
    assert [each.id for each in kept] == ["birds_1"]
    assert metrics["dropped_by_reason"] == {"license MIT": 1, "license unknown": 1}


def test_the_cap_is_drawn_from_what_the_filters_leave_and_is_no_dropping(mix: Any) -> None:
    rows = [row(number, f"{GERMAN if number % 3 else ENGLISH} {number}") for number in range(60)]
    kept, dropped, metrics = mix(rows, languages=("en",), cap=7)
    english = [f"birds_{number}" for number in range(0, 60, 3)]
    assert [each.id for each in kept] == [english[pick] for pick in draw(english, 7, seed=42, dataset="birds")]
    assert len(dropped) == 40
    assert (metrics["kept"], metrics["dropped"], metrics["not_drawn"]) == (7, 40, 13)


def test_licenses_are_compared_whatever_their_case_and_an_unknown_one_never_passes(mix: Any) -> None:
    rows = [row(0, "a", license_="apache-2.0"), row(1, "b"), row(2, "c", license_="MIT")]
    rows += [row(3, "d", license_="NOASSERTION"), row(4, "e", license_="MIT AND Apache-2.0")]
    kept, _, metrics = mix(rows, licenses=("Apache-2.0",))
    assert [each.id for each in kept] == ["birds_0"]
    assert metrics["dropped_by_reason"] == {"license unknown": 2, "license MIT": 1, "license MIT AND Apache-2.0": 1}
    kept, _, _ = mix(rows, licenses=("Apache-2.0", "CC0-1.0"), dataset_license="cc0-1.0")
    assert [each.id for each in kept] == ["birds_0", "birds_1"]


def test_a_rows_own_language_counts_before_what_its_text_looks_like(mix: Any) -> None:
    rows = [row(0, ENGLISH, language="pt-BR"), row(1, FRENCH, language="en"), row(2, ENGLISH, language="nb")]
    kept, _, metrics = mix(rows, languages=("en",))
    assert [each.id for each in kept] == ["birds_1"]
    assert metrics["dropped_by_reason"] == {"language pt": 1, "language no": 1}
    kept, _, _ = mix(rows, languages=("no", "pt"))
    assert [each.id for each in kept] == ["birds_0", "birds_2"]


def test_languages_are_detected_from_all_that_is_said() -> None:
    assert [language_of(row(0, text)) for text in (ENGLISH, FRENCH, GERMAN)] == ["en", "fr", "de"]
    assert language_of(row(0, "猫はどこですか。", "庭にいて、鳥を見ています。")) == "ja"
    assert language_of(row(0, "Go on.", FRENCH * 2)) == "fr"
    for text in ("", "7 * 6", "\U0001f426"):
        assert language_of(row(0, text)) == ""


def test_a_language_that_cannot_be_detected_is_refused_unless_the_rows_tell_it(mix: Any) -> None:
    kept, _, _ = mix([row(0, "Tere!", language="ie"), row(1, "Hi!", language="en")], languages=("ie",))
    assert [each.id for each in kept] == ["birds_0"]
    with pytest.raises(BadInput, match="language `ie` cannot be detected") as caught:
        mix([row(0, ENGLISH)], languages=("ie",))
    assert "en, " in caught.value.fix


def test_filters_that_leave_nothing_are_an_error_that_counts_why(mix: Any) -> None:
    rows = [row(0, ENGLISH), row(1, GERMAN), row(2, GERMAN)]
    with pytest.raises(BadInput, match="nothing is left of the 3 conversations of `birds`: 2 language de; 1") as caught:
        mix(rows, languages=("fr",))
    assert caught.value.where == "mix[x/birds]"


def test_a_weight_that_asks_for_more_than_there_is_is_an_error_with_the_numbers(mix: Any) -> None:
    rows = [row(number, f"Bird {number}?") for number in range(10)]
    assert mix(rows, cap=10, whole_cap=True)[2]["kept"] == 10
    with pytest.raises(BadInput, match="asks for 25 conversations, and there are 10") as caught:
        mix(rows, cap=25, whole_cap=True)
    assert "3 times as often (`repeat`)" in caught.value.fix
    with pytest.raises(BadInput, match="asks for 10 conversations, and there are 9"):
        mix([*rows[:9], row(10, "Bird 3?")], cap=10, whole_cap=True, deduplicate="exact")


def test_the_same_rows_are_filtered_alike_twice(mix: Any) -> None:
    rows = [row(number, f"{ENGLISH} {number % 4} {'x ' * number}") for number in range(40)]
    params = {"deduplicate": "near", "languages": ("en",), "cap": 5}
    assert mix(rows, **params) == mix(rows, **params)


def test_progress_goes_on_while_conversations_are_judged(mix: Any) -> None:
    seen: list[tuple[float, float | None]] = []
    ctx = replace(CONTEXT, progress=lambda name, done, total, unit, note="": seen.append((done, total)))
    mix([row(number, f"Bird {number}?") for number in range(4100)], ctx, deduplicate="exact")
    assert seen == [(2000, 4100), (4000, 4100), (4100, 4100)]


def test_progress_goes_on_while_conversations_are_compared(mix: Any) -> None:
    notes: list[str] = []
    ctx = replace(CONTEXT, progress=lambda name, done, total, unit, note="": notes.append(note))
    mix([row(number, f"Bird {number}?") for number in range(4100)], ctx, deduplicate="near")
    assert notes == ["", "", "compared", "compared", ""]


@pytest.mark.realdata
def test_the_repeated_answers_of_alpaca_are_those_that_its_raw_rows_have(mix: Any, mirror: Path) -> None:
    raw = json.loads((mirror / "train" / "alpaca" / "alpaca_data.json").read_text(encoding="utf-8"))
    assert len({json.dumps(each, sort_keys=True) for each in raw}) == 52_002  # no row stands twice: so answers alone
    first: dict[str, int] = {}
    expected = []
    for number, each in enumerate(raw):
        stood = first.setdefault(each["output"].strip(), number)
        if stood != number:
            expected.append((f"birds_{number}", f"duplicate of birds_{stood}"))
    rows = [row(number, "", each["output"]) for number, each in enumerate(raw)]
    kept, dropped, metrics = mix(rows, deduplicate="exact")
    assert [(each["row_id"], each["reason"]) for each in dropped] == expected
    assert metrics["dropped_by_reason"] == {"duplicate": len(expected)}
    assert [each.id for each in kept] == [f"birds_{number}" for number in sorted(first.values())]


@pytest.mark.realdata
def test_messages_that_people_marked_as_english_are_detected_as_such(mirror: Path) -> None:
    lines = (mirror / "train" / "oasst1" / "en-validation.jsonl").read_text(encoding="utf-8").splitlines()
    found = Counter(language_of(row(0, json.loads(line)["text"])) for line in lines)
    assert found.total() == 2022
    # Single messages are shorter than conversations, and of many ("Sure!") nothing can be said.
    assert found["en"] > 0.95 * found.total()
    assert found.total() - found["en"] - found[""] < 0.01 * found.total()
