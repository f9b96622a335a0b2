"""Tables, figures and the report folder."""
