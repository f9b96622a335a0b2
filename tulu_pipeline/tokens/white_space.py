"""White space as the ones who work on text have it: the tokenizers library goes by Unicode, Python takes four more."""

UNICODE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
# What `str.strip` takes away.
PYTHON = UNICODE + "\x1c\x1d\x1e\x1f"
