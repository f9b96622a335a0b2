"""From raw rows to conversations: readers of file formats, instruction templates, conversion."""
