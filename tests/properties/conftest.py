"""Property tests on a busy machine: a slow example is no failure."""

import hypothesis

hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
