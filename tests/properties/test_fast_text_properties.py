"""Cutting texts into words gives what tokenizing whole texts gives, for vocabularies made to tell the two apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fast_tokenizers import BYTE_LEVEL, ODD, write_byte_level, write_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from tulu_pipeline.chat.options import EncodeOptions, LossSpan
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.chat.spans import Span, stripped, tulu_spans
from tulu_pipeline.tokens import white_space
from tulu_pipeline.tokens.encode import encode_many
from tulu_pipeline.tokens.encoded import EncodedBatch, id_type
from tulu_pipeline.tokens.marked_text import MarkedText, marked
from tulu_pipeline.tokens.plain_text import PlainText
from tulu_pipeline.tokens.text_encoder import TextEncoder
from tulu_pipeline.tokens.tokenizer import ChatTokenizer, load_tokenizer
from tulu_pipeline.tokens.tulu_text import conversation_lists, tulu_texts

MODES: tuple[Any, ...] = ("legacy_fast", "nonlegacy", "v2023_slow")
TEXT = st.lists(
    st.one_of(
        st.text(ODD, max_size=20),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
        st.sampled_from(
            [
                "don't",
                " I'Ve",
                " the",
                "12345",
                "  ",
                "\n\n",
                " \n ",
                "</s>",
                "<s>",
                "<think>",
                "a_",
                "\r\n",
                "<|user|>\n",
            ]
        ),
    ),
    max_size=6,
).map("".join)
ROLES = st.sampled_from(["system", "user", "assistant"])
CONVERSATIONS = st.lists(
    st.lists(st.builds(Message, ROLES, TEXT), min_size=1, max_size=4).map(
        lambda messages: Conversation("d", "d_0", tuple(messages))
    ),
    max_size=3,
)
SPANS = st.sampled_from(["tulu1", "eos"])


@st.composite
def spans_of_any_format(draw: st.DrawFn) -> list[list[Span]]:
    """Spans with pieces anywhere, inside words too, and control tokens in a row."""
    conversations = []
    for _ in range(draw(st.integers(1, 3))):
        spans = []
        for _ in range(draw(st.integers(1, 4))):
            text = draw(TEXT)
            inner = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
            flags = draw(st.lists(st.booleans(), min_size=len(inner) + 1, max_size=len(inner) + 1))
            spans.append(Span(text, [0, *inner], flags, draw(st.integers(0, 2)), draw(st.booleans())))
        if draw(st.booleans()):
            spans.append(Span(draw(TEXT), [0], [draw(st.booleans())]))
        conversations.append(spans)
    return conversations


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTokenizer]:
    folder = tmp_path_factory.mktemp("tokenizers")
    made: dict[str, ChatTokenizer] = {}
    for seed in range(3):
        llama = write_llama(folder / f"llama {seed}", seed)
        for mode in MODES:
            made[f"{mode} {seed}"] = load_tokenizer(llama, tokenizer_mode=mode)
        made[f"hf {seed}"] = load_tokenizer(llama, tokenizer_mode=MODES[seed], special_in_text="hf")
    for name in BYTE_LEVEL:
        made[name] = load_tokenizer(write_byte_level(folder / name, name, 7))
        made[f"{name} hf"] = load_tokenizer(write_byte_level(folder / name, name, 7), special_in_text="hf")
    return made


NAMES = [f"{kind} {seed}" for seed in range(3) for kind in (*MODES, "hf")] + [
    f"{name}{hf}" for name in BYTE_LEVEL for hf in ("", " hf")
]
each = pytest.mark.parametrize("name", NAMES)


def plain(
    tokenizer: ChatTokenizer, texts: MarkedText, bos_ids: tuple[int, ...] = (), max_length_tokens: int = 10**6
) -> EncodedBatch:
    kind = id_type(tokenizer.vocabulary_size)
    encoder = TextEncoder(PlainText(tokenizer.opening, tokenizer.following, kind), "asked for", kind)
    assert encoder.way == "plain: asked for"
    return encoder.encode(texts, bos_ids=bos_ids, max_length_tokens=max_length_tokens)


def assert_same(ours: EncodedBatch, theirs: EncodedBatch) -> None:
    for column in ("offsets", "input_ids", "loss_mask", "truncated"):
        one, other = getattr(ours, column), getattr(theirs, column)
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist(), column


@each
@settings(max_examples=100)
@given(conversations=CONVERSATIONS, loss_span=SPANS, max_length_tokens=st.one_of(st.integers(1, 40), st.just(10**6)))
def test_words_give_the_tokens_of_the_whole(
    tokenizers: dict[str, ChatTokenizer],
    name: str,
    conversations: list[Conversation],
    loss_span: LossSpan,
    max_length_tokens: int,
) -> None:
    tokenizer = tokenizers[name]
    assert tokenizer.encoder.way == "fast"
    spans = [
        tulu_spans(conversation, end_mark_id=tokenizer.end_mark_id, loss_span=loss_span)
        for conversation in conversations
    ]
    expected = plain(tokenizer, marked(spans, strips=tokenizer.strips_at_end_mark), (), max_length_tokens)
    options = EncodeOptions(max_length_tokens=max_length_tokens, loss_span=loss_span)
    ours = encode_many(conversations, tokenizer, options)
    for encoded, row in zip(ours, expected, strict=True):
        assert encoded.input_ids.tolist() == row.input_ids.tolist()
        assert encoded.loss_mask.tolist() == row.loss_mask.tolist()
        assert encoded.truncated == row.truncated


@each
@settings(max_examples=80)
@given(
    conversations=spans_of_any_format(),
    bos_ids=st.sampled_from([(), (1,), (1, 2)]),
    max_length_tokens=st.one_of(st.integers(1, 40), st.just(10**6)),
)
def test_so_it_is_for_the_pieces_and_control_tokens_of_any_format(
    tokenizers: dict[str, ChatTokenizer],
    name: str,
    conversations: list[list[Span]],
    bos_ids: tuple[int, ...],
    max_length_tokens: int,
) -> None:
    tokenizer = tokenizers[name]
    texts = marked(conversations, strips=tokenizer.strips_at_end_mark)
    ours = tokenizer.encoder.encode(texts, bos_ids=bos_ids, max_length_tokens=max_length_tokens)
    assert_same(ours, plain(tokenizer, texts, bos_ids, max_length_tokens))


@settings(max_examples=25)
@given(seed=st.integers(10, 10**6), text=TEXT, follows=st.booleans(), mode=st.sampled_from(MODES))
def test_no_vocabulary_of_llamas_shape_is_too_odd(
    tmp_path_factory: pytest.TempPathFactory, seed: int, text: str, follows: bool, mode: Any
) -> None:
    folder = write_llama(tmp_path_factory.mktemp("llama"), seed, vocabulary=400)
    tokenizer = load_tokenizer(folder, tokenizer_mode=mode)
    assert tokenizer.encoder.way == "fast"
    opening = [Span("", [], [], control=0)] if follows else []
    texts = marked([[*opening, Span(text, [0], [True])]], strips=False)
    assert_same(tokenizer.encoder.encode(texts), plain(tokenizer, texts))


@settings(max_examples=300)
@given(conversations=CONVERSATIONS.filter(bool), loss_span=SPANS, strips=st.booleans())
def test_columns_give_the_text_that_the_template_describes(
    conversations: list[Conversation], loss_span: LossSpan, strips: bool
) -> None:
    (texts,) = tulu_texts(conversation_lists(conversations), end_mark_id=9, loss_span=loss_span, strips=strips)
    spans = [tulu_spans(conversation, end_mark_id=9, loss_span=loss_span) for conversation in conversations]
    if strips:
        spans = [[stripped(span, follows=index > 0) for index, span in enumerate(some)] for some in spans]
    everything = np.ones(len(conversations), dtype=bool)
    assert [shown(some) for some in texts.conversations(everything)] == [shown(some) for some in spans]


def shown(spans: Sequence[Span]) -> list[Any]:
    """Text with the flag of each character, and control tokens."""
    result: list[Any] = []
    for span in spans:
        pieces = list(zip(span.starts, span.flags, strict=True))
        flags = [[flag for start, flag in pieces if start <= place][-1] for place in range(len(span.text))]
        result.append((span.text, flags, span.control, span.control_counts))
    return result if result[-1][0] or result[-1][2] is not None else result[:-1]


def test_white_space_is_what_python_and_the_tokenizers_strip() -> None:
    every = [character for character in map(chr, range(0x110000)) if not "\ud800" <= character <= "\udfff"]
    assert sorted(white_space.PYTHON) == [character for character in every if character.isspace()]
    strip = normalizers.Strip().normalize_str
    assert sorted(white_space.UNICODE) == [character for character in every if not strip(character)]
