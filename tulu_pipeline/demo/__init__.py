"""The raw files of the experiment `demo`: made here, in the formats of the originals."""
