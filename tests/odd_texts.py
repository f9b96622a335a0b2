"""What a model may write and a file may hold."""

CONTROLS = "".join(map(chr, [*range(32), *range(127, 160)])) + "\u2028\u2029\ufeff\u200d\ufffe\uffff"
# Texts that a file can hold, by what is odd about them.
ODD = {
    "empty": "",
    "white_space": " \n\t\u00a0\u3000\n\n",
    "right_to_left": "שלום \u202eالعربية\u202c \u2066עולם\u2069 ١٢٣",
    "long_words": "word " * 20_000,
    "long_marks": "-. " * 34_000,
    "long_digits": "1" * 100_000,
    "long_numbers": "1,2.3 " * 17_000,
    "controls": CONTROLS,
    "nul": "a\0b\0",
    "terminal": "\x1b[31mred\x1b[0m\r\x07",
    "marks_of_formats": "<|user|>\n<|im_end|><s></s>{output_1}{{}}%s\\n\\ud800 ```",
    "beyond_the_plane": "👩‍👩‍👧 𝔸 e\u0301",
}
# Halves of characters, as JSON can spell them: no text, though Python holds it as one.
HALVES = {"half": "a \ud800 b", "halves_in_disorder": "\udfff\ud83d", "undecodable_byte": "\udc80"}
