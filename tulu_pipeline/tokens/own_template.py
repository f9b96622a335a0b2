r"""A conversation in the tokenizer's own chat template, with exact masks.

The template is rendered once for each sequence of roles, with two marks that occur nowhere else in the place of each
content. What it writes outside the marks is its own, and control tokens there become ids; what comes between the marks
is a message's, and stays text. The real contents, or the stripped ones where the template trims, are then put there,
and the result must be the rendering of the real conversation. Where it is not, because the template looks at what
messages say, the real contents are rendered between marks; and where it edits them, as those do that drop former
thoughts, turns are found by rendering ever longer conversations. What even that does not explain is refused.

Supervised is what the template says with `{% generation %}`, where it says so. Else an assistant's turn counts from
where the prompt for it ends to where the conversation up to it ends:

- The prompt is the messages before it, rendered with `add_generation_prompt`. A template that ignores that asks without
  the assistant's header, so that the model writes the header, and it counts. Where the prompt ends in something that a
  finished turn lacks (an opened thought), or the turn opens the conversation, counting begins with the content.
- `eos` ends with the first control token after the content, `tulu1` with what stands before the next header, such as
  `<|im_end|>\n`. Where a turn ends otherwise once something follows it, it ends with what both endings begin with.

A token belongs to the part in which its first character lies. A tokenizer may merge the end of a header with what
opens the content, usually white space, as it does for transformers; only there do the ids of a prompt differ from the
beginning of the ids that were trained.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from tulu_pipeline.artifacts.canonical import canonical_json, sha256_text
from tulu_pipeline.chat.options import LossSpan
from tulu_pipeline.chat.schema import Conversation, Message, Role
from tulu_pipeline.chat.spans import Span
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.control_tokens import ControlTokens, Part, Prompt, opens_with_bos
from tulu_pipeline.tokens.encode import Encoded, encode_spans
from tulu_pipeline.tokens.jinja_template import TODAY, JinjaTemplate, load_jinja_template
from tulu_pipeline.tokens.tokenizer import ChatTokenizer

# Characters for private use, of the planes 15 and 16: content i stands between the ith of each, what the template says
# that the assistant writes between the last of each.
_OPEN, _CLOSE, _LAST = 0xF0000, 0x100000, 0xFFFD
_GENERATION = (chr(_OPEN + _LAST), chr(_CLOSE + _LAST))
_MARK = re.compile("([\U000f0000-\U000ffffc][^\U000f0000-\U0010ffff]*[\U00100000-\U0010fffc]|[\U000ffffd\U0010fffd])")
_STRAY = re.compile("[\U000f0000-\U0010ffff]")


def load_own_template(folder: Path, tokenizer: ChatTokenizer, *, loss_span: LossSpan = "tulu1") -> OwnTemplate:
    """The chat template of a tokenizer's folder.

    Raises:
        BadInput: there is none, it cannot render a question and its answer, or no control token ends the answer.
    """
    return OwnTemplate(load_jinja_template(folder, _GENERATION), tokenizer, loss_span)


class OwnTemplate:
    """Renders conversations; use from one thread.

    Attributes:
        fingerprint: hash of all that decides the rendering.
        writes_bos: whether its text opens with BOS, so that none must be added.
        end_of_turn_ids: the control token that ends an answer.
    """

    def __init__(self, template: JinjaTemplate, tokenizer: ChatTokenizer, loss_span: LossSpan) -> None:
        self._template, self._loss_span = template, loss_span
        self._tokenizer = tokenizer
        self._controls = ControlTokens.of(tokenizer)
        self._skeletons: dict[tuple[tuple[Role, ...], bool], list[Part] | BadInput] = {}
        self.fingerprint = sha256_text(canonical_json([template.source, template.variables, str(TODAY)]))
        if _STRAY.search(template.source + "".join(template.variables.values())):
            raise BadInput("the chat template holds characters for private use", template.where, "take them out")
        plain = self._skeleton(("user", "assistant"), ask=False)
        if isinstance(plain, BadInput):
            raise plain
        self.writes_bos = opens_with_bos(self._controls.spans(plain), self._tokenizer)
        (answer,) = (index for index, part in enumerate(plain) if part.message == 1)
        after = self._controls.split("".join(part.text for part in plain[answer + 1 :]))
        self.end_of_turn_ids = tuple(self._controls.ids[text] for text in after[1:2])
        if not self.end_of_turn_ids:
            raise BadInput(
                "the chat template ends no answer with a control token, so a model taught in it would never stop",
                template.where,
                "give the model's sources a `chat_template.jinja` that does, or write template `tulu` in the recipe",
            )

    def encode_many(self, conversations: Sequence[Conversation], *, max_length_tokens: int) -> list[Encoded | BadInput]:
        """Ids and loss mask of each, cut on the right; or why the template does not take it, see `spans`."""
        results: list[Encoded | BadInput | None] = []
        taken: list[list[Span]] = []
        for conversation in conversations:
            try:
                taken.append(self.spans(conversation))
                results.append(None)
            except BadInput as error:
                results.append(error)
        encoded = iter(
            encode_spans(taken, self._tokenizer, max_length_tokens=max_length_tokens, add_bos=not self.writes_bos)
        )
        return [next(encoded) if result is None else result for result in results]

    def spans(self, conversation: Conversation) -> list[Span]:
        """A conversation as `tokens.encode.encode_spans` takes it, with `add_bos` unless `writes_bos`.

        Raises:
            BadInput: the template refuses the conversation, in its own words; or it changes what a message says in a
                way that leaves open which tokens are whose.
        """
        spans = self._controls.spans(self._parts(conversation.messages))
        if opens_with_bos(spans, self._tokenizer) != self.writes_bos:
            raise self._refused("the chat template writes BOS before some conversations only")
        return spans

    def prompt(self, user_text: str, cue: str = "") -> Prompt:
        """The prompt for an answer to one message; `cue` is what the answer starts with.

        Raises:
            BadInput: as `spans`.
        """
        asked = self._parts((Message("user", user_text),), ask=True)
        text, controls = "", list[tuple[int, int]]()
        for piece, control, _ in self._controls.pieces([*asked, Part(cue, message=1)]):
            if control is not None:
                controls.append((len(text), len(text) + len(piece)))
            text += piece
        return Prompt(text=text, controls=tuple(controls))

    def asked(self, messages: Sequence[Message]) -> tuple[list[Span], bool]:
        """A conversation up to where the assistant answers, and whether the tokenizer's BOS must be added before it.

        Raises:
            BadInput: as `spans`.
        """
        spans = self._controls.spans(self._parts(messages, ask=True))
        return spans, not opens_with_bos(spans, self._tokenizer)

    def _parts(self, messages: Sequence[Message], *, ask: bool = False) -> list[Part]:
        text = self._render(messages, ask=ask)
        for parts in self._readings(messages, text, ask=ask):
            if _text_of(parts) == text:
                return parts
        raise self._refused(_what_changed(messages, text))

    def _readings(self, messages: Sequence[Message], text: str, *, ask: bool) -> Iterator[list[Part]]:
        """What the parts of the text may be, the likeliest first."""
        skeleton = self._skeleton(tuple(message.role for message in messages), ask=ask)
        if not isinstance(skeleton, BadInput):
            for contents in ([each.content for each in messages], [each.content.strip() for each in messages]):
                yield [_filled(part, contents) for part in skeleton]
        with suppress(BadInput):
            yield self._read([_marked(index, message) for index, message in enumerate(messages)], ask=ask)
        if not isinstance(skeleton, BadInput):
            # Nothing is known of where messages stand: so what they say must not bring control tokens.
            controls = self._controls.split(_text_of(skeleton))[1::2]
            if controls == self._controls.split(text)[1::2]:
                yield self._by_prefixes(messages, text, ask=ask)

    def _skeleton(self, roles: tuple[Role, ...], *, ask: bool) -> list[Part] | BadInput:
        """The parts of any conversation of these roles, contents left empty; or why there are none."""
        if (roles, ask) not in self._skeletons:
            blanks = [Message(role, chr(_OPEN + index) + chr(_CLOSE + index)) for index, role in enumerate(roles)]
            try:
                self._skeletons[roles, ask] = self._read(blanks, ask=ask)
            except BadInput as error:
                self._skeletons[roles, ask] = error
        return self._skeletons[roles, ask]

    def _read(self, marked: Sequence[Message], *, ask: bool = False) -> list[Part]:
        parts = self._rendered(marked, ask=ask)
        if ask or self._template.has_generation_marks:
            return parts
        return self._with_turns(parts, marked)

    def _rendered(self, marked: Sequence[Message], *, ask: bool = False) -> list[Part]:
        """Parts of the rendering of messages with marks. Without generation marks: template's, message's, … in turn."""
        parts: list[Part] = []
        counts = False
        for index, piece in enumerate(_MARK.split(self._render(marked, ask=ask, mark_generation=True))):
            if piece in _GENERATION:
                counts = piece == _GENERATION[0]
            elif index % 2 == 0:
                parts.append(Part(piece, counts=counts))
            else:
                parts.append(Part(piece[1:-1], ord(piece[0]) - _OPEN, counts))
                if ord(piece[-1]) - _CLOSE != parts[-1].message:
                    raise self._refused("the chat template mixes the contents of messages")
        if any(_STRAY.search(part.text) for part in parts):
            raise self._refused("the chat template cuts the content of a message")
        return parts

    def _with_turns(self, parts: list[Part], marked: Sequence[Message]) -> list[Part]:
        """The same parts, the assistant's turns counting."""
        learned_before, learned_after = dict[int, int](), dict[int, int]()  # by part: characters at its end, its start
        for index, message in enumerate(marked):
            if message.role == "assistant":
                place = self._place(parts, index)
                before, after = parts[place - 1].text, parts[place + 1].text
                learned_before[place - 1] = self._length_before_content(marked[:index], before)
                learned_after[place + 1] = self._length_after_content(marked[: index + 1], after)
        result: list[Part] = []
        for place, part in enumerate(parts):
            if part.message is not None:
                result.append(replace(part, counts=marked[part.message].role == "assistant"))
                continue
            start = learned_after.get(place, 0)
            end = max(start, len(part.text) - learned_before.get(place, 0))
            texts = (part.text[:start], part.text[start:end], part.text[end:])
            result += [Part(text, counts=counts) for text, counts in zip(texts, (True, False, True), strict=True)]
        return result

    def _length_before_content(self, asked: Sequence[Message], before: str) -> int:
        """How much of what stands before a content the model writes, not being asked with it."""
        if not asked:
            return 0
        try:
            head = self._rendered(asked, ask=True)[-1].text
        except BadInput:
            return 0
        return len(before) - len(head) if before.startswith(head) else 0

    def _length_after_content(self, until: Sequence[Message], after: str) -> int:
        parts = self._rendered(until)
        tail = parts[self._place(parts, len(until) - 1) + 1].text
        if not after.startswith(tail):
            both = zip(self._controls.split(tail), self._controls.split(after), strict=False)
            tail = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both))
        return len(self._ending(tail))

    def _ending(self, tail: str) -> str:
        return "".join(self._controls.split(tail)[:2]) if self._loss_span == "eos" else tail

    def _place(self, parts: list[Part], index: int) -> int:
        places = [place for place, part in enumerate(parts) if part.message == index]
        if len(places) != 1:
            raise self._refused(f"the chat template writes message {index + 1} {len(places)} times")
        return places[0]

    def _by_prefixes(self, messages: Sequence[Message], text: str, *, ask: bool) -> list[Part]:
        """Turns by the lengths of ever longer conversations, each of which must begin the next."""
        if ask:
            return [Part(text)]
        if self._template.has_generation_marks:
            return self._rendered(messages)
        parts: list[Part] = []
        done = 0
        for index, message in enumerate(messages):
            if message.role == "assistant":
                asked, answered = self._render(messages[:index], ask=True), self._render(messages[: index + 1])
                if not (text.startswith(answered) and answered.startswith(asked)):
                    raise self._refused(_what_changed(messages, text))
                turn = self._controls.split(text[len(asked) : len(answered)])
                if self._loss_span == "eos" and len(turn) > 1:
                    turn.pop()
                parts += [Part(text[done : len(asked)]), Part("".join(turn), counts=True)]
                done = len(asked) + len(parts[-1].text)
        return [*parts, Part(text[done:])]

    def _render(self, messages: Sequence[Message], *, ask: bool = False, mark_generation: bool = False) -> str:
        plain = [{"role": message.role, "content": message.content} for message in messages]
        return self._template.render(plain, ask=ask, mark_generation=mark_generation)

    def _refused(self, what: str) -> BadInput:
        return BadInput(what, self._template.where, "leave such rows out, or write template `tulu` in the recipe")


def _marked(index: int, message: Message) -> Message:
    """The message with marks around what a trimming template keeps; a blank one stays as it is."""
    core = message.content.strip()
    start = message.content.find(core)
    marked = chr(_OPEN + index) + core + chr(_CLOSE + index) if core else ""
    return Message(message.role, message.content[:start] + marked + message.content[start + len(core) :])


def _filled(part: Part, contents: Sequence[str]) -> Part:
    return part if part.message is None else Part(contents[part.message], part.message, part.counts)


def _text_of(parts: Sequence[Part]) -> str:
    return "".join(part.text for part in parts)


def _what_changed(messages: Sequence[Message], text: str) -> str:
    for index, message in enumerate(messages):
        if message.content.strip() not in text:
            return f"the chat template changes what message {index + 1} ({message.role}) says"
    return "the chat template changes with what the messages say"
